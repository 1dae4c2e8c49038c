//! A Java virtual machine that was started with its debug agent: clients are passed
//! on to where that listens (JDWP,
//! <https://docs.oracle.com/en/java/javase/21/docs/specs/jpda/conninv.html>). When one
//! leaves, the machine takes its breakpoints out and lets all threads run.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::relay::{Relay, Speech};
use super::{Debugger, Refusal, Target};
use crate::debug::HoldFailure;
use crate::debug::jdwp::{Jdwp, jdwp};
use crate::debug::network::{Address, Network, has, reachable, sockets};

pub(super) struct Jvm {
    relay: Relay,
}

impl Jvm {
    pub(super) fn start(target: &Target<'_>) -> Result<Self, Refusal> {
        let (proc, pid) = (target.proc, target.process.pid);
        let arguments = proc.arguments(pid).map_err(|failure| (HoldFailure::Vanished, failure.message))?;
        let variables = proc.environment(pid).unwrap_or_default();
        let port = match jdwp(&arguments, &variables) {
            Some(Jdwp::Port(port)) => port,
            Some(Jdwp::Any) => {
                let message = "its debug agent took a port that nobody named; name one (address=*:5005)";
                return Err((HoldFailure::Debugger, message.to_owned()));
            }
            None => {
                let message = "a Java virtual machine takes a debugger only if it was started for it (-agentlib:jdwp)";
                return Err((HoldFailure::Debugger, message.to_owned()));
            }
        };
        let all = sockets(proc, pid);
        let at_port = || all.iter().filter(|socket| socket.local.port() == port && has(proc, pid, socket.inode));
        let Some(listening) = at_port().find(|socket| socket.listens()) else {
            return Err(if at_port().any(|socket| socket.is_connected()) {
                (HoldFailure::Traced, format!("a debugger is connected to port {port} of the process, and it takes one at a time"))
            } else {
                (HoldFailure::Debugger, format!("its debug agent does not listen on port {port} (is it server=y?)"))
            });
        };
        let relay = Network::of(proc, pid)
            .and_then(|network| Relay::start(target.socket, network, Address::Port(reachable(listening.local)), Speech::Jdwp))
            .map_err(|error| (HoldFailure::Other, error.to_string()))?;
        Ok(Self { relay })
    }
}

impl Debugger for Jvm {
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.relay.file()]
    }

    fn look(&mut self, _target: &Target<'_>) -> Option<String> {
        self.relay.accept();
        None
    }

    fn attached(&mut self, _target: &Target<'_>) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn let_go(&mut self, _target: &Target<'_>, _is_asked: bool) -> u32 {
        self.relay.close();
        0
    }

    fn reason_of(&self, _words: &str) -> HoldFailure {
        HoldFailure::Debugger
    }
}
