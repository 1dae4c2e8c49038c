//! The terminal of the user, handed to a program that is elsewhere.

use devloop_core::{ErrorContext, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{IsTerminal, stdin, stdout};

/// Columns and rows, where both input and output are a terminal.
pub(super) fn size() -> Option<(u16, u16)> {
    let is_terminal = stdin().is_terminal() && stdout().is_terminal();
    let (rows, columns) = console::Term::stdout().size_checked()?;
    is_terminal.then_some((columns, rows))
}

/// Every key goes to the program, Ctrl-C, too, until this is dropped.
#[derive(Debug)]
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    pub(super) fn begin() -> Result<Self> {
        let before = tcgetattr(stdin()).context("could not prepare the terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("could not prepare the terminal")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing else can be done about it.
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.before);
    }
}
