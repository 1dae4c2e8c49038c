//! The environment's own branch of every cgroup hierarchy: `devloop/NAME-INDEX`, with
//! `system` for the components; the kubelet makes `kubepods` beside it.
//!
//! Both versions are served (`cgroups(7)`). Nothing outside the branch is
//! written, but for the controllers that version 2 wants enabled on the way.

use devloop_core::error::{CommandError, ErrorContext, Result};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    path: PathBuf,
    version: u8,
}

/// Makes the branch and moves the process `pid` into its `system` part.
///
/// # Errors
/// When no hierarchy is mounted or the branch can't be made.
pub(crate) fn enter(branch: &str, pid: i32) -> Result<()> {
    let hierarchies = mounted()?;
    if hierarchies.is_empty() {
        return Err(CommandError::new("no cgroup hierarchy is mounted").with_hint("mount one at /sys/fs/cgroup, as every init system does"));
    }
    for hierarchy in &hierarchies {
        let system = hierarchy.path.join(branch).join("system");
        prepare(hierarchy, &system).with_context(|| format!("could not make cgroup {}", system.display()))?;
        std::fs::write(system.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("could not enter cgroup {}", system.display()))?;
    }
    Ok(())
}

/// Kills what is left in the branch and removes it.
///
/// # Errors
/// When a process doesn't go away, or a cgroup can't be removed.
pub(crate) fn remove(branch: &str) -> Result<()> {
    for hierarchy in mounted()? {
        let branch = hierarchy.path.join(branch);
        let started = Instant::now();
        while branch.exists() {
            for pid in processes_below(&branch) {
                // It may be gone already.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            match remove_tree(&branch) {
                Ok(()) => break,
                // A killed process still counts until it is reaped.
                Err(error) if started.elapsed() > Duration::from_secs(10) => {
                    return Err(error).with_context(|| format!("could not remove cgroup {}", branch.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        // The last environment takes the parent with it; it is not empty before.
        if let Some(parent) = branch.parent() {
            let _ = std::fs::remove_dir(parent);
        }
    }
    Ok(())
}

/// Removes branches of an environment whose index is not known any more. One
/// that has processes is somebody's and stays.
pub(crate) fn remove_abandoned(name: &str) {
    for hierarchy in mounted().unwrap_or_default() {
        let numbered = |path: &PathBuf| {
            let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            file_name.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(|index| index.parse::<u8>().is_ok())
        };
        for branch in children(&hierarchy.path.join("devloop")).into_iter().filter(numbered) {
            let _ = remove_tree(&branch);
        }
        let _ = std::fs::remove_dir(hierarchy.path.join("devloop"));
    }
}

fn mounted() -> Result<Vec<Hierarchy>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("could not read the list of mounts")?;
    Ok(parse_mounts(&text))
}

/// Finds the hierarchies in `proc_pid_mountinfo(5)`.
fn parse_mounts(text: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let version = match after.split(' ').next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        Some(Hierarchy { path: PathBuf::from(before.split(' ').nth(4)?), version })
    };
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for hierarchy in text.lines().filter_map(parse) {
        if !hierarchies.contains(&hierarchy) {
            hierarchies.push(hierarchy);
        }
    }
    hierarchies
}

fn prepare(hierarchy: &Hierarchy, system: &Path) -> io::Result<()> {
    std::fs::create_dir_all(system)?;
    let Ok(below) = system.strip_prefix(&hierarchy.path) else { return Ok(()) };
    let mut parent = hierarchy.path.clone();
    for part in below {
        let child = parent.join(part);
        match hierarchy.version {
            // A new cpuset has no CPU; a process can't enter it before it has.
            1 => inherit_cpuset(&parent, &child)?,
            _ => enable_controllers(&parent)?,
        }
        parent = child;
    }
    Ok(())
}

fn inherit_cpuset(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let Ok(value) = std::fs::read_to_string(parent.join(file)) else { continue };
        if std::fs::read_to_string(child.join(file))?.trim().is_empty() {
            std::fs::write(child.join(file), value.trim())?;
        }
    }
    Ok(())
}

fn enable_controllers(parent: &Path) -> io::Result<()> {
    let available = std::fs::read_to_string(parent.join("cgroup.controllers"))?;
    for controller in available.split_ascii_whitespace() {
        // Some (rt, misc) can't be enabled everywhere and nobody needs them.
        let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn processes_below(folder: &Path) -> Vec<i32> {
    let own = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(children(folder).iter().flat_map(|child| processes_below(child)));
    pids
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove_tree(&child)?;
    }
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let text = "\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
";
        let found = parse_mounts(text);
        assert_eq!(
            found.iter().map(|hierarchy| (hierarchy.path.to_str().unwrap(), hierarchy.version)).collect::<Vec<_>>(),
            [("/sys/fs/cgroup/unified", 2), ("/sys/fs/cgroup/memory", 1)]
        );
    }
}
