//! The agent's program: found on this machine, checked, put on the node.

use super::AgentError;
use crate::node::Node;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, elf};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The program's name.
pub(super) const NAME: &str = "devloop-agent";
/// Where it goes on a node. Not below `/run` or `/tmp`: on a kind node these are
/// mounted such that nothing in them can be executed.
const FOLDER: &str = "/var/lib/devloop";

/// Finds the agent: `DEVLOOP_AGENT`, beside this program, on PATH.
pub(super) fn find() -> Result<PathBuf, AgentError> {
    let beside = std::env::current_exe().and_then(|program| program.canonicalize()).ok();
    let beside = beside.as_deref().and_then(Path::parent);
    find_in(std::env::var_os("DEVLOOP_AGENT"), beside, std::env::var_os("PATH"))
}

fn find_in(named: Option<OsString>, beside: Option<&Path>, search: Option<OsString>) -> Result<PathBuf, AgentError> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        // What was named is used or complained about, never replaced silently.
        return if path.is_file() {
            Ok(path)
        } else {
            Err(AgentError::Unusable { path, reason: "DEVLOOP_AGENT names no file".to_owned() })
        };
    }
    let search = search.unwrap_or_default();
    let folders = beside.map(Path::to_owned).into_iter().chain(std::env::split_paths(&search));
    folders.map(|folder| folder.join(NAME)).find(|path| path.is_file()).ok_or(AgentError::Missing)
}

/// Puts the program on the node unless it is there; answers its path there.
pub(super) async fn install(node: &Node, program: &Path) -> Result<String, AgentError> {
    let content = read(program)?;
    let path = format!("{FOLDER}/agent-{}", short_hash(&content));
    // It came by a rename, so it is there as a whole or not at all.
    if node.file_size(&path).await.map_err(AgentError::Start)? != Some(content.len() as u64) {
        node.write_file(&path, &content, 0o755).await.map_err(AgentError::Start)?;
    }
    Ok(path)
}

/// Reads the program and makes sure that it can run anywhere on this architecture.
pub(super) fn read(program: &Path) -> Result<Vec<u8>, AgentError> {
    let content = std::fs::read(program).map_err(|source| AgentError::Source { path: program.to_owned(), source })?;
    check(&content, std::env::consts::ARCH).map_err(|reason| AgentError::Unusable { path: program.to_owned(), reason })?;
    Ok(content)
}

/// Enough of its hash to tell one build of the agent from another.
pub(super) fn short_hash(content: &[u8]) -> String {
    blake3::hash(content).to_hex()[..16].to_owned()
}

/// Says why a program would not run on a node of architecture `arch`.
fn check(content: &[u8], arch: &str) -> Result<(), String> {
    let file = ElfFile64::<Endianness>::parse(content).map_err(|error| format!("not a 64-bit ELF program ({error})"))?;
    let endian = file.endian();
    let machine = file.elf_header().e_machine(endian);
    let expected = match arch {
        "x86_64" => elf::EM_X86_64,
        "aarch64" => elf::EM_AARCH64,
        other => return Err(format!("nodes of architecture {other} are not supported")),
    };
    if machine != expected {
        return Err(format!("it is not for {arch}"));
    }
    if file.elf_program_headers().iter().any(|header| header.p_type(endian) == elf::PT_INTERP) {
        return Err("it is linked dynamically, and a node need not have its libraries".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_the_named_one_then_the_one_beside_then_the_one_on_path() {
        let (beside, search) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = Some(search.path().as_os_str().to_owned());
        assert!(matches!(find_in(None, Some(beside.path()), path.clone()), Err(AgentError::Missing)));
        std::fs::write(search.path().join(NAME), "").unwrap();
        assert_eq!(find_in(None, Some(beside.path()), path.clone()).unwrap(), search.path().join(NAME));
        std::fs::write(beside.path().join(NAME), "").unwrap();
        assert_eq!(find_in(None, Some(beside.path()), path.clone()).unwrap(), beside.path().join(NAME));
        assert!(matches!(find_in(Some("/nowhere".into()), Some(beside.path()), path), Err(AgentError::Unusable { .. })));
    }

    #[test]
    fn a_program_that_a_node_can_not_run_is_refused() {
        assert!(check(b"#!/bin/sh", "x86_64").unwrap_err().contains("not a 64-bit ELF"));
        // A test program is linked dynamically.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(check(&own, std::env::consts::ARCH).unwrap_err().contains("dynamically"));
        let other = if std::env::consts::ARCH == "x86_64" { "aarch64" } else { "x86_64" };
        assert_eq!(check(&own, other).unwrap_err(), format!("it is not for {other}"));
    }

    #[tokio::test]
    async fn a_program_is_put_once_as_a_whole() {
        use std::os::unix::fs::MetadataExt;
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: joining namespaces needs root");
            return;
        }
        // This process stands for the node: its namespaces are ours.
        let node = Node::embedded("test", i32::try_from(std::process::id()).unwrap());
        let own = std::env::current_exe().unwrap();
        assert!(matches!(install(&node, &own).await, Err(AgentError::Unusable { .. })));
        let Ok(agent) = find() else {
            eprintln!("skipped: no agent was built");
            return;
        };
        let path = install(&node, &agent).await.unwrap();
        let first = Path::new(&path).metadata().unwrap();
        assert_eq!(install(&node, &agent).await.unwrap(), path);
        assert_eq!(Path::new(&path).metadata().unwrap().ino(), first.ino());
        std::fs::write(&path, b"half").unwrap();
        install(&node, &agent).await.unwrap();
        assert_eq!(Path::new(&path).metadata().unwrap().len(), first.len());
        std::fs::remove_file(&path).unwrap();
    }
}
