//! Delve's own command line, as a client of the port.

use crate::delve::Delve;
use crate::sources::Rule;
use devloop_core::{CommandError, ErrorContext, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getpgrp, tcsetpgrp};
use std::io::{IsTerminal, Write};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

/// A running command line; ended when dropped.
#[derive(Debug)]
pub(crate) struct Cli {
    child: Child,
    /// Whether it has the terminal to itself.
    has_terminal: bool,
    _settings: NamedTempFile,
}

impl Cli {
    /// Starts it.
    ///
    /// # Errors
    /// When it can't be.
    pub(crate) fn start(delve: &Delve, port: u16, rules: &[Rule]) -> Result<Self> {
        let settings = settings(rules).context("could not write the settings of Delve's command line")?;
        let has_terminal = std::io::stdin().is_terminal();
        let mut command = Command::new(&delve.path);
        command.arg("connect").arg(format!("127.0.0.1:{port}")).arg("--init").arg(settings.path()).kill_on_drop(true);
        if has_terminal {
            // Ctrl-C halts the process there, and must not end this command.
            command.process_group(0);
        } else {
            command.arg("--allow-non-terminal-interactive=true");
        }
        let child =
            command.spawn().map_err(|error| CommandError::new(format!("could not start {}", delve.path.display())).caused_by(error))?;
        if let Some(pid) = child.id().filter(|_| has_terminal).map(u32::cast_signed) {
            give_terminal(Pid::from_raw(pid));
            // It may have asked for input before it was given the terminal.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
        Ok(Self { child, has_terminal, _settings: settings })
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) {
        // Its exit code says nothing of use.
        let _ = self.child.wait().await;
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
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

/// Where the sources are (Delve's `config substitute-path FROM TO`).
fn settings(rules: &[Rule]) -> std::io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("devloop-dlv-").tempfile()?;
    for rule in rules {
        writeln!(file, "config substitute-path {:?} {:?}", rule.remote, rule.local)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted() {
        let rules = [
            Rule { local: "/home/dev/my shop".to_owned(), remote: "example.com/shop".to_owned() },
            Rule { local: "/usr/lib/go/src".to_owned(), remote: String::new() },
        ];
        let text = std::fs::read_to_string(settings(&rules).unwrap().path()).unwrap();
        assert_eq!(
            text,
            "config substitute-path \"example.com/shop\" \"/home/dev/my shop\"\nconfig substitute-path \"\" \"/usr/lib/go/src\"\n"
        );
    }
}
