//! `--stdin`: the same over what is piped in.

use crate::files::Files;
use crate::lines::stdin::{Input, run};
use crate::render::Renderer;
use crate::setup::Setup;
use crate::writer::{Writer, is_closed};
use devloop_core::ui::Ui;
use devloop_core::{CommandError, ErrorContext, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

/// Reads standard input to its end, on this thread.
///
/// # Errors
/// When it can't be read, or what it becomes can't be written.
pub(crate) fn read(ui: &Ui, setup: Setup, output: impl Write) -> Result<()> {
    let files = setup.files.map(Files::new).transpose().context("could not make the folder of --output-dir")?;
    let mut writer = Writer::new(Renderer::new(setup.look), files, output);
    let mut judge = setup.judge;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("could not read standard input")?;
    let result = run(&mut Stdin(File::from(stdin)), setup.joining, &mut judge, &mut writer).and_then(|()| writer.finish(&judge, ui));
    match result {
        Err(error) if !is_closed(&error) => Err(CommandError::new("could not read standard input, or write its lines").caused_by(error)),
        _ => Ok(()),
    }
}

/// Without the buffer of the standard library: blocks are read as they are.
struct Stdin(File);

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Input for Stdin {
    fn is_ready(&mut self, wait: Duration) -> bool {
        let mut files = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        // What can't be asked is read, which says what is wrong.
        poll(&mut files, timeout).map_or(true, |count| count > 0)
    }
}
