//! debugpy, in a Python process that knew nothing of it: what runs there is
//! `serve.py`, brought by `inject`.

mod functions;
mod inject;

use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::inject::{Injected, inject, running, state};
use super::relay::{Relay, Speech};
use super::{Debugger, Refusal, Target};
use crate::debug::HoldFailure;
use crate::debug::network::{Address, Network};
use crate::failure::Failure;
use crate::protocol::ErrorKind;

/// How long it may take to import debugpy, in a thread beside the program's own.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to stop tracing.
const GRACE: Duration = Duration::from_secs(5);

pub(super) struct Python {
    status: File,
    stopped: Duration,
    started: Instant,
    relay: Option<Relay>,
    failure: Option<String>,
}

impl Python {
    pub(super) fn start(wheel: &Path, target: &Target<'_>) -> Result<Self, Refusal> {
        let status = match running(target.proc, target.process.pid) {
            Some(status) => Injected { status, stopped: Duration::ZERO },
            None => {
                let unreadable = |error| (HoldFailure::Debugger, format!("{} can't be read: {error}", wheel.display()));
                let wheel = fs::read(wheel).map_err(unreadable)?;
                inject(target.proc, target.process, &wheel).map_err(refusal)?
            }
        };
        let Injected { status, stopped } = status;
        Ok(Self { status, stopped, started: Instant::now(), relay: None, failure: None })
    }

    /// Where it listens, once it does.
    fn listening(&mut self) -> Option<String> {
        match state(&self.status) {
            Some((word, name)) if word == "listens" => Some(name),
            Some((word, reason)) if word == "failed" => {
                self.failure = Some(format!("debugpy could not be imported: {reason}"));
                None
            }
            _ => None,
        }
    }

    fn open(&mut self, target: &Target<'_>, name: String) -> std::io::Result<()> {
        let network = Network::of(target.proc, target.process.pid)?;
        self.relay = Some(Relay::start(target.socket, network, Address::Name(name), Speech::Dap)?);
        Ok(())
    }
}

impl Debugger for Python {
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        self.relay.iter().map(Relay::file).collect()
    }

    fn look(&mut self, _target: &Target<'_>) -> Option<String> {
        match &mut self.relay {
            Some(relay) => relay.accept(),
            None if self.failure.is_some() => return self.failure.take(),
            None if self.started.elapsed() > PATIENCE => {
                return Some(format!("debugpy was not imported within {} s", PATIENCE.as_secs()));
            }
            None => {}
        }
        None
    }

    fn attached(&mut self, target: &Target<'_>) -> Option<Duration> {
        let name = self.listening()?;
        match self.open(target, name) {
            Ok(()) => Some(self.stopped),
            Err(error) => {
                self.failure = Some(error.to_string());
                None
            }
        }
    }

    fn let_go(&mut self, target: &Target<'_>, _is_asked: bool) -> u32 {
        if let Some(mut relay) = self.relay.take() {
            relay.close();
        }
        // It sees by the end of the connection that its client is gone.
        let started = Instant::now();
        let is_there = || target.is_running() && !target.is_replaced();
        while started.elapsed() < GRACE && is_there() && state(&self.status).is_some_and(|(word, _)| word == "serves") {
            sleep(Duration::from_millis(5));
        }
        0
    }

    fn reason_of(&self, _words: &str) -> HoldFailure {
        HoldFailure::Debugger
    }
}

fn refusal(failure: Failure) -> Refusal {
    let reason = match failure.kind {
        ErrorKind::Vanished => HoldFailure::Vanished,
        ErrorKind::Permission | ErrorKind::Seccomp => HoldFailure::NotAllowed,
        _ => HoldFailure::Debugger,
    };
    (reason, failure.message)
}
