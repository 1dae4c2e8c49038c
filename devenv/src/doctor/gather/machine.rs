//! The kernel's files about this machine and this process; programs.

use super::{FILES, within};
use crate::doctor::facts::{Capabilities, Inotify, Known, Machine, Memory, Programs};
use crate::embedded::{node_binary, preflight};
use devloop_core::environment::{Directories, find_on_path};
use std::path::Path;
use std::process::Stdio;

pub(super) fn machine() -> Machine {
    Machine {
        supported: cfg!(target_os = "linux") && (cfg!(target_arch = "x86_64") || cfg!(target_arch = "aarch64")),
        root: nix::unistd::geteuid().is_root(),
        capabilities: capabilities_of("self"),
        cgroup_version: cgroup_version(),
        inotify: inotify(),
        memory: memory(),
    }
}

/// The capability sets of a process; `self` is this one.
pub(super) fn capabilities_of(process: &str) -> Known<Capabilities> {
    let status = read(&format!("/proc/{process}/status"))?;
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).ok_or_else(|| format!("/proc/{process}/status has no {name}"))
    };
    Ok(Capabilities { effective: set("CapEff:")?, bounding: set("CapBnd:")? })
}

fn cgroup_version() -> Known<u8> {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Ok(2);
    }
    if Path::new("/sys/fs/cgroup/memory").exists() { Ok(1) } else { Err("nothing is mounted at /sys/fs/cgroup".to_owned()) }
}

fn inotify() -> Known<Inotify> {
    let limit = |name: &str| number(&read(&format!("/proc/sys/fs/inotify/{name}"))?);
    Ok(Inotify { watches: limit("max_user_watches")?, instances: limit("max_user_instances")?, used: instances_in_use() })
}

/// Instances that processes of this user hold, as far as they can be seen.
fn instances_in_use() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = nix::unistd::geteuid().as_raw();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = processes
        .filter(|entry| entry.file_name().to_str().is_some_and(is_process) && entry.metadata().is_ok_and(|metadata| metadata.uid() == own));
    let files = own.flat_map(|process| std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten());
    let is_instance =
        |file: &std::fs::DirEntry| std::fs::read_link(file.path()).is_ok_and(|target| target == Path::new("anon_inode:inotify"));
    files.filter(is_instance).count() as u64
}

/// Memory of the machine, or what the control group that we are in leaves of it.
fn memory() -> Known<Memory> {
    let text = read("/proc/meminfo")?;
    let field = |name: &str| field(&text, name).map(|kib| kib.saturating_mul(1024)).ok_or_else(|| format!("/proc/meminfo has no {name}"));
    let machine = Memory { available: field("MemAvailable:")?, total: field("MemTotal:")? };
    let group = group_memory("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
        .or_else(|| group_memory("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"));
    Ok(match group {
        Some(group) if group.total < machine.total => Memory { available: group.available.min(machine.available), total: group.total },
        _ => machine,
    })
}

fn group_memory(folder: &str, limit: &str, usage: &str, reclaimable: &str) -> Option<Memory> {
    let value = |name: &str| read(&format!("{folder}/{name}")).ok();
    let (limit, usage) = (number(&value(limit)?).ok()?, number(&value(usage)?).ok()?);
    // Cached files count as used, but make way.
    let reclaimable = field(&value("memory.stat")?, reclaimable).unwrap_or_default();
    Some(Memory { available: limit.saturating_sub(usage.saturating_sub(reclaimable)), total: limit })
}

/// The number after a name in a file of names and numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(str::split_ascii_whitespace).find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    words.next()?.parse().ok()
}

fn number(text: &str) -> Known<u64> {
    text.trim().parse().map_err(|_| format!("{:?} is not a number", text.trim()))
}

fn read(path: &str) -> Known<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

pub(super) async fn programs(directories: &Directories) -> Known<Programs> {
    let cached = directories.clone();
    let found = super::blocking(move || {
        Ok(Programs {
            missing_packages: preflight::missing_on_this_machine().into_iter().map(str::to_owned).collect(),
            node_built: node_binary::is_built(&cached),
            go: None,
            kind: find_on_path("kind").is_some() || cached.cache.join("bin/kind").is_file(),
            kubectl: find_on_path("kubectl").is_some(),
        })
    });
    let (programs, go) = tokio::join!(found, go_version());
    Ok(Programs { go, ..programs? })
}

/// What Go calls itself; `None` when it is not there.
async fn go_version() -> Option<Known<String>> {
    let go = find_on_path("go")?;
    let asked = async {
        let mut command = tokio::process::Command::new(go);
        // Another toolchain would be downloaded only to be asked for its name.
        command.arg("version").env("GOTOOLCHAIN", "local").stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("go1").map(|rest| format!("1{rest}")));
        version.ok_or_else(|| "`go version` does not say one".to_owned())
    };
    Some(within(FILES, asked).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field("MemTotal: 12 kB\nMemAvailable:  7 kB\n", "MemAvailable:"), Some(7));
        assert_eq!(field("total_inactive_file 5\n", "inactive_file"), None);
        assert_eq!(field("", "x"), None);
    }
}
