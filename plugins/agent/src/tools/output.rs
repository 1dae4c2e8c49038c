//! Messages to a client that may go away without a word.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::debug::SILENCE;
use crate::protocol::encode;

/// The stream to the client. A network that is cut says nothing: one that takes
/// nothing for a while is taken for gone, for a process may stand still meanwhile.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    patience: Duration,
}

impl Output {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { file, patience: SILENCE })
    }

    pub(super) fn tell<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut frame = Vec::new();
        encode(message, &mut frame).map_err(io::Error::other)?;
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => rest = &rest[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let timeout = PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], timeout) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing any more")),
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_nothing_is_gone() {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        output.patience = Duration::from_millis(20);
        let error = loop {
            if let Err(error) = output.tell(&vec![7_u8; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(reader);
        assert_eq!(output.tell(&1_u8).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
