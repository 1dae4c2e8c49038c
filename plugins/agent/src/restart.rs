//! Programs that are executed again: the current one, whose source changed, or
//! the original one when a session is undone.

use std::path::{Component, Path, PathBuf};

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ByteString, ProcessId, Swapped, Undone};
use crate::root::{Container, ContainerPath, ContainerRoot};
use crate::swap::{Again, Halt, require_all_running};
use crate::undo::{Recorder, Store};

/// Between a container's first process and its application there are a few
/// wrappers at most; a loop there can't be.
const MAX_PARENTS: usize = 64;

/// A process that may be the one to restart.
#[derive(Debug)]
struct Candidate {
    process: ProcessId,
    directory: PathBuf,
    arguments: Vec<Vec<u8>>,
}

/// Of `process` and its parents up to `main`, the outermost that has one of the
/// changed paths among its arguments; else `process`.
pub(crate) fn target(proc: &Proc, process: ProcessId, main: ProcessId, changed: &[ByteString]) -> ProcessId {
    let changed: Vec<PathBuf> = changed.iter().map(|path| normal(path.as_path())).collect();
    let chain: Vec<Candidate> = lineage(proc, process, main).into_iter().filter_map(|process| candidate(proc, process).ok()).collect();
    choose(&chain, &changed).unwrap_or(process)
}

/// From `process` outwards; only itself if it does not descend from `main`.
fn lineage(proc: &Proc, process: ProcessId, main: ProcessId) -> Vec<ProcessId> {
    let mut chain = vec![process];
    let mut current = process;
    while current != main {
        match proc.parent(current) {
            Some(parent) if chain.len() < MAX_PARENTS => {
                chain.push(parent);
                current = parent;
            }
            _ => return vec![process],
        }
    }
    chain
}

fn candidate(proc: &Proc, process: ProcessId) -> Result<Candidate, Failure> {
    Ok(Candidate { process, directory: proc.working_directory(process.pid)?, arguments: proc.arguments(process.pid)? })
}

/// `chain` goes from the inside out.
fn choose(chain: &[Candidate], changed: &[PathBuf]) -> Option<ProcessId> {
    let names_one = |candidate: &&Candidate| {
        candidate.arguments.iter().any(|argument| {
            // An empty argument would name the folder.
            let path = (!argument.is_empty()).then(|| normal(&candidate.directory.join(ByteString(argument.clone()).as_path())));
            path.is_some_and(|path| changed.contains(&path))
        })
    };
    chain.iter().rev().find(names_one).map(|candidate| candidate.process)
}

/// Without `.` and, by its words alone, `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

/// Executes the program of a process once more.
pub(crate) fn restart(proc: &Proc, process: ProcessId, container: &Container, previous_kept: bool) -> Result<Swapped, Failure> {
    require_all_running(proc, process)?;
    let executable = proc.executable(process.pid)?;
    let again = Again {
        proc,
        process,
        root: &container.root,
        path: &ContainerPath::parse(&executable.path.into())?,
        arguments: &proc.arguments(process.pid)?,
        recorder: &container.recorder,
        halt: Halt::Stays,
    };
    let from_memory = executable.in_memory || !again.is_installed();
    let mut swapped = if from_memory { again.copied(&proc.open_executable(process.pid)?)? } else { again.executed()? };
    swapped.previous_kept = previous_kept;
    Ok(swapped)
}

/// What becomes of programs that were replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Programs {
    RunAgain,
    /// For a container that is about to end: a program that has just been told to
    /// end would begin anew and know nothing of that.
    Leave,
}

/// Puts a container back, and then lets the programs that were replaced in it run
/// again, the outermost first: that ends those below it. The record stays.
pub(crate) fn undo(proc: &Proc, store: &Store, process: ProcessId, programs: Programs) -> Result<Undone, Failure> {
    let root = ContainerRoot::of(proc, process)?;
    let restored = store.restore(&root)?;
    let mut undone = Undone { restored: restored.paths, restarted: false, process };
    for program in restored.programs {
        if programs == Programs::Leave || !proc.is_running(program.process) {
            continue;
        }
        let arguments: Vec<Vec<u8>> = program.arguments.into_iter().map(|argument| argument.0).collect();
        let again = Again {
            proc,
            process: program.process,
            root: &root,
            path: &ContainerPath::parse(&program.path)?,
            arguments: &arguments,
            recorder: &Recorder::none(),
            halt: Halt::Ends,
        };
        again.executed()?;
        undone.restarted = true;
        undone.process = program.process;
    }
    Ok(undone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(pid: u32, directory: &str, arguments: &[&str]) -> Candidate {
        let arguments = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        Candidate { process: ProcessId { pid, start_time: 1 }, directory: directory.into(), arguments }
    }

    fn chosen(chain: &[Candidate], changed: &[&str]) -> Option<u32> {
        let changed: Vec<PathBuf> = changed.iter().map(|path| normal(Path::new(path))).collect();
        choose(chain, &changed).map(|process| process.pid)
    }

    #[test]
    fn the_outermost_process_that_names_what_changed_is_restarted() {
        let chain = [
            candidate(9, "/app", &["python3", "-u", "./src/../main.py", ""]),
            candidate(7, "/", &["/bin/sh", "/app/start.sh", "--flag"]),
            candidate(1, "/", &["/sbin/tini", "--", "/app/start.sh"]),
        ];
        assert_eq!(chosen(&chain[..2], &["/app/start.sh"]), Some(7));
        assert_eq!(chosen(&chain, &["/app/start.sh", "/app/main.py"]), Some(1));
        assert_eq!(chosen(&chain, &["/app/main.py"]), Some(9));
        assert_eq!(chosen(&chain, &["/app/lib.py", "/app", "/"]), None);
        assert_eq!(chosen(&chain, &[]), None);
    }

    #[test]
    fn what_does_not_descend_from_the_first_process_stands_alone() {
        let proc = Proc::system();
        let own = ProcessId { pid: std::process::id(), start_time: proc.stat(std::process::id()).unwrap().start_time };
        let parent = proc.parent(own).unwrap();
        assert_eq!(lineage(&proc, own, own), [own]);
        assert_eq!(lineage(&proc, own, parent), [own, parent]);
        assert_eq!(lineage(&proc, own, ProcessId { pid: 0, start_time: 0 }), [own]);
    }
}
