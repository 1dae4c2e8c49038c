//! The tools as commands of the agent.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::core_file::{self, core};
use super::modules::send_file;
use super::profile::{self, profile};
use super::shell::{self, shell};
use super::snapshot::snapshot;
use super::toolbox::Toolbox;
use crate::process::Proc;
use crate::protocol::ProcessId;

/// What they are called by.
pub(crate) const USAGE: &str = "core PID START [--sparing] | stacks PID START | profile PID START MILLISECONDS HERTZ | code-file PID START ADDRESS | shell [--beside] PID START BUSYBOX FOLDER COLUMNSxROWS|- TERM -- COMMAND...";

/// One that was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Tool {
    Core(core_file::Order),
    Stacks(ProcessId),
    Profile(profile::Order),
    /// The file that is mapped at an address.
    CodeFile(ProcessId, u64),
    Shell(shell::Order),
}

impl Tool {
    /// Understands the words after the agent's name; `None` for those of others.
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let process = |pid: &str, start: &str| Some(ProcessId { pid: pid.parse().ok()?, start_time: start.parse().ok()? });
        match words {
            ["core", pid, start, rest @ ..] if matches!(rest, [] | ["--sparing"]) => {
                Some(Self::Core(core_file::Order { process: process(pid, start)?, is_sparing: !rest.is_empty() }))
            }
            ["stacks", pid, start] => Some(Self::Stacks(process(pid, start)?)),
            ["profile", pid, start, duration, frequency] => Some(Self::Profile(profile::Order {
                process: process(pid, start)?,
                duration: Duration::from_millis(duration.parse().ok()?),
                frequency: frequency.parse().ok().filter(|frequency| (1..=10_000).contains(frequency))?,
            })),
            ["code-file", pid, start, address] => Some(Self::CodeFile(process(pid, start)?, address.parse().ok()?)),
            ["shell", "--beside", rest @ ..] => Self::shell(true, rest),
            ["shell", rest @ ..] => Self::shell(false, rest),
            _ => None,
        }
    }

    fn shell(is_beside: bool, words: &[&str]) -> Option<Self> {
        let [pid, start, busybox, folder, size, kind, "--", command @ ..] = words else { return None };
        let terminal = match *size {
            "-" => None,
            size => {
                let (columns, rows) = size.split_once('x')?;
                Some((columns.parse().ok()?, rows.parse().ok()?))
            }
        };
        Some(Self::Shell(shell::Order {
            process: ProcessId { pid: pid.parse().ok()?, start_time: start.parse().ok()? },
            toolbox: Toolbox { busybox: busybox.into(), folder: folder.into(), is_beside },
            terminal,
            kind: (*kind).to_owned(),
            command: command.iter().map(OsString::from).collect(),
        }))
    }

    /// Runs it to its end.
    pub(crate) fn run(self, input: File, output: File) -> io::Result<()> {
        // A terminal sends these to all that runs in it: the client decides what they mean.
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGHUP);
        signals.thread_block()?;
        let proc = Proc::system();
        match self {
            Self::Core(order) => core(&proc, order, input, output),
            Self::Stacks(process) => snapshot(&proc, process, output),
            Self::Profile(order) => profile(&proc, order, input, output),
            Self::CodeFile(process, address) => send_file(&proc, process, address, output),
            Self::Shell(order) => shell(&proc, &order, input, output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_requests_are_understood() {
        let parse = |words: &str| Tool::parse(&words.split(' ').collect::<Vec<_>>());
        assert!(matches!(parse("core 7 5 --sparing"), Some(Tool::Core(order)) if order.is_sparing));
        assert!(matches!(parse("stacks 7 5"), Some(Tool::Stacks(ProcessId { pid: 7, start_time: 5 }))));
        assert!(parse("profile 7 5 1000 99").is_some() && parse("code-file 7 5 4096").is_some());
        assert!(
            matches!(parse("shell --beside 7 5 /busybox /run/x 80x25 xterm -- sh -c x"), Some(Tool::Shell(order)) if order.command.len() == 3)
        );
        for words in ["core 7", "shell 7 5 /busybox /run/x 80 xterm -- sh", "core 7 5 --fast", "profile 7 5 1000 0", "stacks 7 x", "hold 7"]
        {
            assert!(parse(words).is_none(), "{words}");
        }
    }
}
