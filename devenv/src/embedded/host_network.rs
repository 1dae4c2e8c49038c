//! What an environment has on the host's network: one veth pair, one nftables
//! table for the way out, two rules in Docker's chain for others where Docker
//! filters, and, while any environment is up, IPv4 forwarding.

use super::addresses::Addresses;
use super::docker_rules;
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::files;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The routes of the host, all tables.
///
/// # Errors
/// When `ip` fails.
pub(crate) fn routes() -> Result<Vec<(Ipv4Addr, u8)>> {
    Ok(super::addresses::parse_routes(&run("ip", &["-4", "-o", "route", "show", "table", "all"], "")?))
}

/// Links the network namespace of process `pid` to the host's: addresses and
/// routes on both ends, masquerading for what leaves the machine. `owner`, the
/// environment's folder, is written on the interface.
///
/// # Errors
/// When an `ip` or `nft` call fails; [`remove`] undoes what was done before.
pub(crate) fn link(addresses: Addresses, pid: i32, owner: &Path, state: &Path) -> Result<()> {
    let interface = addresses.host_interface();
    let (host, node) = (addresses.host(), addresses.node());
    let (pods, services) = (addresses.pod_cidr(), addresses.service_cidr());
    // The routes let tools on the host reach pods and Services directly; they
    // go when the interface goes.
    let outside = format!(
        "\
link add {interface} type veth peer name eth0 netns {pid}
addr add {host}/30 dev {interface}
link set {interface} up
route add {pods} via {node} dev {interface}
route add {services} via {node} dev {interface}
"
    );
    run("ip", &["-batch", "-"], &outside).hint("a VPN or another program may use the same addresses; see `ip route`")?;
    let alias = interfaces().join(&interface).join("ifalias");
    std::fs::write(&alias, owner.as_os_str().as_encoded_bytes()).with_context(|| format!("could not write {}", alias.display()))?;
    let inside = format!("link set lo up\naddr add {node}/30 dev eth0\nlink set eth0 up\nroute add default via {host}\n");
    let target = pid.to_string();
    run("nsenter", &["--target", &target, "--net", "--", "ip", "-batch", "-"], &inside)?;
    let table = addresses.nft_table();
    let link = addresses.link_cidr();
    let rules = format!(
        "\
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip saddr {{ {link}, {pods} }} oifname != \"{interface}\" masquerade
  }}
}}
"
    );
    run("nft", &["-f", "-"], &rules)?;
    docker_rules::allow(&interface)?;
    enable_forwarding(state)
}

/// Removes the interface and the table; absent ones are fine. With `last`, puts
/// forwarding back to what it was before the first environment.
///
/// # Errors
/// When something that is there can't be removed.
pub(crate) fn remove(addresses: Addresses, last: bool, state: &Path) -> Result<()> {
    let interface = addresses.host_interface();
    if interfaces().join(&interface).exists() {
        // The kernel may remove it at the same moment, with its namespace.
        if let Err(error) = run("ip", &["link", "delete", &interface], "")
            && interfaces().join(&interface).exists()
        {
            return Err(error);
        }
    }
    docker_rules::withdraw(&interface)?;
    let table = addresses.nft_table();
    // "add" first: deleting a table that isn't there is an error.
    run("nft", &["-f", "-"], &format!("add table ip {table}\ndelete table ip {table}\n"))?;
    if last { restore_forwarding(state) } else { Ok(()) }
}

/// The folder of the environment that the interface of this index belongs to;
/// `None` when there is no such interface.
pub(crate) fn owner(addresses: Addresses) -> Option<PathBuf> {
    let alias = std::fs::read_to_string(interfaces().join(addresses.host_interface()).join("ifalias")).ok()?;
    Some(PathBuf::from(alias.trim_end_matches('\n')))
}

/// The indexes of which there is an interface or a table on the host.
///
/// # Errors
/// When the tables can't be listed.
pub(crate) fn indexes() -> Result<BTreeSet<u8>> {
    let entries = std::fs::read_dir(interfaces()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let linked = names.filter_map(|name| name.strip_prefix("devloop")?.parse::<u8>().ok());
    let tables = run("nft", &["list", "tables", "ip"], "")?;
    let filtered = tables.lines().filter_map(|line| line.trim().strip_prefix("table ip devloop_")?.parse::<u8>().ok());
    Ok(linked.chain(filtered).collect())
}

fn interfaces() -> PathBuf {
    PathBuf::from("/sys/class/net")
}

/// Says that forwarding was off and that we turned it on.
fn forwarding_mark(state: &Path) -> PathBuf {
    state.join("ip-forward-was-off")
}

fn enable_forwarding(state: &Path) -> Result<()> {
    let now = std::fs::read_to_string(FORWARDING).with_context(|| format!("could not read {FORWARDING}"))?;
    if now.trim() == "1" {
        return Ok(());
    }
    files::write_atomic(&forwarding_mark(state), b"", 0o600).context("could not record that IP forwarding was off")?;
    std::fs::write(FORWARDING, "1").with_context(|| format!("could not write {FORWARDING}"))
}

fn restore_forwarding(state: &Path) -> Result<()> {
    let mark = forwarding_mark(state);
    if !mark.exists() {
        return Ok(());
    }
    // A container engine or a virtual machine that came up meanwhile found
    // forwarding on and relies on it now.
    if !others_need_forwarding() {
        std::fs::write(FORWARDING, "0").with_context(|| format!("could not write {FORWARDING}"))?;
    }
    files::remove_all(&mark).with_context(|| format!("could not remove {}", mark.display()))
}

fn others_need_forwarding() -> bool {
    let entries = std::fs::read_dir(interfaces()).into_iter().flatten().flatten();
    // Bridges, tunnels and other veth pairs route for somebody.
    entries
        .map(|entry| entry.path())
        .any(|path| path.join("bridge").exists() || path.join("tun_flags").exists() || path.join("brport").exists())
}

/// Runs a program with `input` on its stdin and answers its stdout.
///
/// # Errors
/// When it can't be started or fails; the message has what it said.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("could not run {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CommandError::new(format!("{program} {} failed ({}): {}", arguments.join(" "), output.status, said.trim().replace('\n', "; "))))
}
