//! What the embedded provider needs of the machine, checked before anything is
//! changed.

use devloop_core::error::{CommandError, ErrorHint, Result};
use devloop_core::ui::human_bytes;
use std::path::Path;

/// A program, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 10] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// The CNI plugins that the node's network is made of.
const CNI_PLUGINS: [&str; 4] = ["ptp", "host-local", "portmap", "loopback"];
const CNI_FOLDER: &str = "/usr/lib/cni";

/// Below this, `up` would end half way: images, logs and etcd need room.
const MIN_FREE_BYTES: u64 = 1 << 30;

/// Capability numbers of `capabilities(7)`.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Whether this process may raise resource limits.
    pub(crate) can_raise_limits: bool,
}

/// Checks the machine.
///
/// # Errors
/// What is missing, all of it at once, with the command that installs it.
pub(crate) fn check() -> Result<Machine> {
    if !cfg!(target_os = "linux") || !(cfg!(target_arch = "x86_64") || cfg!(target_arch = "aarch64")) {
        return Err(CommandError::new("the embedded provider runs on Linux on x86_64 and aarch64 only"));
    }
    let capabilities = effective_capabilities();
    if !nix::unistd::geteuid().is_root() || !has(capabilities, CAP_SYS_ADMIN) {
        return Err(CommandError::new("the embedded provider needs to be root, with CAP_SYS_ADMIN"))
            .hint("run it with sudo, or in a privileged container");
    }
    let missing = missing_on_this_machine();
    if !missing.is_empty() {
        let packages = missing.join(" ");
        return Err(CommandError::new(format!("programs that a node is made of are missing: packages {packages}")))
            .hint(format!("install them with `apt-get install --no-install-recommends {packages}`"));
    }
    Ok(Machine { can_raise_limits: has(capabilities, CAP_SYS_RESOURCE) })
}

/// Checks that a folder's file system has room.
///
/// # Errors
/// When it has less than a node needs to start.
pub(crate) fn check_space(folder: &Path) -> Result<()> {
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(file_system) = nix::sys::statvfs::statvfs(existing) else { return Ok(()) };
    let free = file_system.blocks_available().saturating_mul(file_system.fragment_size());
    if free >= MIN_FREE_BYTES {
        return Ok(());
    }
    let message = format!(
        "{} has {} of free disk space, less than the {} that a node needs",
        existing.display(),
        human_bytes(free),
        human_bytes(MIN_FREE_BYTES)
    );
    Err(CommandError::new(message)).hint("free some space, or set XDG_STATE_HOME and XDG_CACHE_HOME to folders on another disk")
}

/// The packages whose programs a node is made of and that aren't there.
pub(crate) fn missing_on_this_machine() -> Vec<&'static str> {
    missing_packages(&program_is_there, &|plugin| Path::new(CNI_FOLDER).join(plugin).exists())
}

fn missing_packages<'a>(program_is_there: &dyn Fn(&str) -> bool, plugin_is_there: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    let mut missing: Vec<&str> = PROGRAMS.iter().filter(|(program, _)| !program_is_there(program)).map(|(_, package)| *package).collect();
    if CNI_PLUGINS.iter().any(|plugin| !plugin_is_there(plugin)) {
        missing.push("containernetworking-plugins");
    }
    missing.dedup();
    missing
}

/// The node's PATH is fixed; a program elsewhere would not be found there.
pub(crate) fn program_is_there(name: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(name).exists())
}

fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

fn has(capabilities: u64, number: u32) -> bool {
    capabilities >> number & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        assert!(missing_packages(&|_| true, &|_| true).is_empty());
        assert_eq!(
            missing_packages(&|program| !["containerd", "ctr", "nft"].contains(&program), &|plugin| plugin != "ptp"),
            ["containerd", "nftables", "containernetworking-plugins"]
        );
    }
}
