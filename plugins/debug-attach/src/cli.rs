//! A debugger's own command line, beside the session that serves it.

use devloop_core::{CommandError, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getpgrp, tcsetpgrp};
use std::io::IsTerminal;
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// A running command line; ended when dropped.
#[derive(Debug)]
pub(crate) struct Cli {
    child: Child,
    /// Whether it has the terminal to itself.
    has_terminal: bool,
    _settings: Option<NamedTempFile>,
    /// What it speaks to, while it runs.
    serving: Option<JoinHandle<()>>,
}

/// Whether a command line gets a terminal, and not a pipe.
pub(crate) fn has_terminal() -> bool {
    std::io::stdin().is_terminal()
}

impl Cli {
    /// Starts it. It needs `settings` for as long as it runs.
    ///
    /// # Errors
    /// When it can't be.
    pub(crate) fn start(mut command: Command, settings: Option<NamedTempFile>) -> Result<Self> {
        let has_terminal = has_terminal();
        command.kill_on_drop(true);
        if has_terminal {
            // Ctrl-C halts the process there, and must not end this command.
            command.process_group(0);
        }
        let name = command.as_std().get_program().to_owned();
        let child = command.spawn().map_err(|error| CommandError::new(format!("could not start {}", name.display())).caused_by(error))?;
        if let Some(pid) = child.id().filter(|_| has_terminal).map(u32::cast_signed) {
            give_terminal(Pid::from_raw(pid));
            // It may have asked for input before it was given the terminal.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
        Ok(Self { child, has_terminal, _settings: settings, serving: None })
    }

    /// Starts the one of this command; `port` is where the session listens.
    ///
    /// # Errors
    /// When it can't be.
    pub(crate) fn own(port: u16) -> Result<Self> {
        let program = std::env::current_exe().map_err(|error| CommandError::new("this program does not find itself").caused_by(error))?;
        let mut command = Command::new(program);
        command.arg("__prompt").arg(port.to_string());
        Self::start(command, None)
    }

    /// The same with a task that serves it.
    pub(crate) fn with(mut self, serving: JoinHandle<()>) -> Self {
        self.serving = Some(serving);
        self
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) {
        // Its exit code says nothing of use.
        let _ = self.child.wait().await;
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
        if self.has_terminal {
            give_terminal(getpgrp());
        }
    }
}

/// Makes a group of processes the terminal's foreground one. One in the background
/// that does so is stopped by SIGTTOU unless it blocks that (termios(3)).
fn give_terminal(group: Pid) {
    let mut stops = SigSet::empty();
    stops.add(Signal::SIGTTOU);
    if stops.thread_block().is_ok() {
        // Without the terminal it works, too, but for Ctrl-C.
        let _ = tcsetpgrp(std::io::stdin(), group);
        let _ = stops.thread_unblock();
    }
}
