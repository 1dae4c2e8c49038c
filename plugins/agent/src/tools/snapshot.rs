//! Where all threads of a process are, at one moment.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::core_file::micros;
use super::freeze::{Frozen, threads};
use super::output::Output;
use super::target_memory::TargetMemory;
use super::unwind::{Walker, Words};
use super::{CodeFile, Stack, StackAnswer, Way, modules, registers};
use crate::failure::Failure;
use crate::process::{Proc, parse_stat};
use crate::protocol::ProcessId;

/// About so many addresses, and so many files, go into one message.
const MOST_ADDRESSES: usize = 8 * 1024;
const MOST_FILES: usize = 256;

pub(super) fn snapshot(proc: &Proc, process: ProcessId, output: File) -> io::Result<()> {
    let mut output = Output::new(output)?;
    match take(proc, process) {
        Ok((stacks, files, stopped)) => {
            output.tell(&StackAnswer::Began { way: Way::Frozen })?;
            tell(&mut output, stacks, &files)?;
            output.tell(&StackAnswer::Ended { stopped_micros: micros(stopped), duration_micros: micros(stopped), lost: 0 })
        }
        Err(failure) => output.tell(&StackAnswer::Failed(failure.into())),
    }
}

/// Sends stacks, and the files in which they are.
pub(super) fn tell(output: &mut Output, stacks: Vec<Stack>, files: &[CodeFile]) -> io::Result<()> {
    let (mut piece, mut addresses) = (Vec::new(), 0);
    let mut is_used = vec![false; files.len()];
    for stack in stacks {
        for address in &stack.addresses {
            if let Some(index) = files.iter().position(|file| (file.start..file.end).contains(address)) {
                is_used[index] = true;
            }
        }
        addresses += stack.addresses.len() + 8;
        piece.push(stack);
        if addresses > MOST_ADDRESSES {
            output.tell(&StackAnswer::Stacks(std::mem::take(&mut piece)))?;
            addresses = 0;
        }
    }
    output.tell(&StackAnswer::Stacks(piece))?;
    let used: Vec<CodeFile> = files.iter().zip(is_used).filter(|(_, is_used)| *is_used).map(|(file, _)| file.clone()).collect();
    used.chunks(MOST_FILES).try_for_each(|files| output.tell(&StackAnswer::CodeFiles(files.to_vec())))
}

fn take(proc: &Proc, process: ProcessId) -> Result<(Vec<Stack>, Vec<CodeFile>, Duration), Failure> {
    let modules = modules::of(proc, process)?;
    let files: Vec<CodeFile> = modules.iter().map(|module| module.file.clone()).collect();
    let mut walker = Walker::new(modules);
    let memory = TargetMemory::open(proc, process.pid)?;
    // Once they stand still it can't be seen any more what they did.
    let seen: Vec<(i32, Seen)> =
        threads(proc, process.pid)?.into_iter().map(|thread| (thread, Seen::of(proc, process.pid, thread))).collect();
    let frozen = Frozen::stop(proc, process)?;
    let mut walked = Vec::new();
    for thread in frozen.threads() {
        // One that was killed meanwhile has no registers.
        if let Ok(point) = registers::point(*thread) {
            let mut words = Words::of(&memory);
            walked.push((*thread, walker.walk(point, |address| words.at(address))));
        }
    }
    let stopped = frozen.release();
    let stack = |(thread, walked): (i32, super::unwind::Walked)| {
        let seen = seen.iter().find(|(seen, _)| *seen == thread).map(|(_, seen)| seen.clone());
        seen.unwrap_or_else(|| Seen::of(proc, process.pid, thread)).stack(walked)
    };
    Ok((walked.into_iter().map(stack).collect(), files, stopped))
}

/// What `/proc` says of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) state: char,
}

impl Seen {
    pub(super) fn of(proc: &Proc, pid: u32, thread: i32) -> Self {
        let own = thread.cast_unsigned();
        let status = proc.thread_status(pid, own).ok();
        let stat = proc.read(pid, &format!("task/{thread}/stat")).ok().and_then(|text| parse_stat(&text));
        let name = proc.read(pid, &format!("task/{thread}/comm")).unwrap_or_default();
        Self {
            number: status.and_then(|status| status.namespace_pids.last().copied()).unwrap_or(own),
            name: String::from_utf8_lossy(name.trim_ascii_end()).into_owned(),
            state: stat.map_or('?', |stat| char::from(stat.state)),
        }
    }

    pub(super) fn stack(self, walked: super::unwind::Walked) -> Stack {
        let super::unwind::Walked { addresses, is_whole } = walked;
        Stack { thread: self.number, name: self.name, state: self.state, addresses, is_whole, count: 1 }
    }
}
