//! The inside of a container, seen from this machine: the nodes of the embedded
//! cluster and of kind are process trees here.

use crate::tree::Tree;
use std::path::PathBuf;

/// The first process of a container, as this machine numbers it. `id` as
/// Kubernetes tells it, with or without `containerd://`.
///
/// # Errors
/// When no process of this machine is it.
pub fn process(id: &str) -> Result<i32, String> {
    let id = id.rsplit('/').next().filter(|id| !id.is_empty()).ok_or("the container has no id yet")?;
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_in = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id));
    // What `exec` brings in has another number there.
    let is_first = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.is_some_and(|numbers| numbers.split_whitespace().count() > 1 && numbers.split_whitespace().last() == Some("1"))
    };
    pids.find(|pid| is_in(pid) && is_first(pid)).ok_or_else(|| format!("no process of this machine is the first of container {id}"))
}

/// A path in a container, as this machine reaches it.
///
/// # Errors
/// When the container isn't here.
pub fn path(id: &str, inside: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(format!("/proc/{}/root", process(id)?)).join(inside.trim_start_matches('/')))
}

/// What lies in a folder of a container.
///
/// # Errors
/// When the container isn't here.
pub fn tree(id: &str, folder: &str) -> Result<Tree, String> {
    Ok(Tree::read(&path(id, folder)?))
}
