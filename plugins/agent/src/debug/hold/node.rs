//! Node's inspector: opened by SIGUSR1 and closed again
//! (<https://nodejs.org/en/learn/getting-started/debugging>).

mod inspector;
mod options;

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use self::options::endpoint;
use super::relay::{Relay, Speech};
use super::{Debugger, Refusal, Target};
use crate::debug::HoldFailure;
use crate::debug::network::{Address, Network, Socket, has, reachable, sockets};
use crate::signal::send_signal;

/// How long it may take to open: its own thread does that, whatever the program does.
const PATIENCE: Duration = Duration::from_secs(5);
/// The variable that holds options, too.
const VARIABLE: &[u8] = b"NODE_OPTIONS=";

pub(super) struct Node {
    port: u16,
    /// Whether it was opened for us.
    is_ours: bool,
    started: Instant,
    /// Once it is open.
    open: Option<(SocketAddr, Relay)>,
    failure: Option<String>,
}

impl Node {
    pub(super) fn start(target: &Target<'_>) -> Result<Self, Refusal> {
        let (proc, pid) = (target.proc, target.process.pid);
        let vanished = |failure: crate::failure::Failure| (HoldFailure::Vanished, failure.message);
        let arguments = proc.arguments(pid).map_err(vanished)?;
        let variables = proc.environment(pid).unwrap_or_default();
        let variable = variables.iter().find_map(|variable| variable.strip_prefix(VARIABLE)).unwrap_or_default();
        let port = endpoint(&arguments, variable);
        let started = Instant::now();
        if listening(target, port).is_some() {
            return Ok(Self { port, is_ours: false, started, open: None, failure: None });
        }
        if sockets(proc, pid).iter().any(|socket| socket.listens() && socket.local.port() == port) {
            let message = format!(
                "another process of the pod listens on port {port}, where this one would open its inspector; start it with --inspect-port of its own"
            );
            return Err((HoldFailure::Debugger, message));
        }
        let status = String::from_utf8_lossy(&proc.read(pid, "status").map_err(vanished)?).into_owned();
        if !catches(&status, Signal::SIGUSR1) {
            let message =
                format!("process {pid} does not handle SIGUSR1, which opens the inspector, and would be ended by it (--disable-sigusr1?)");
            return Err((HoldFailure::Debugger, message));
        }
        send_signal(proc, target.process, Signal::SIGUSR1 as i32).map_err(|failure| (HoldFailure::NotAllowed, failure.message))?;
        Ok(Self { port, is_ours: true, started, open: None, failure: None })
    }

    fn open(&mut self, target: &Target<'_>) -> std::io::Result<bool> {
        let Some(address) = listening(target, self.port) else { return Ok(false) };
        let network = Network::of(target.proc, target.process.pid)?;
        self.open = Some((address, Relay::start(target.socket, network, Address::Port(address), Speech::Inspector)?));
        Ok(true)
    }
}

impl Debugger for Node {
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        self.open.iter().map(|(_, relay)| relay.file()).collect()
    }

    fn look(&mut self, _target: &Target<'_>) -> Option<String> {
        match &mut self.open {
            Some((_, relay)) => relay.accept(),
            None if self.failure.is_some() => return self.failure.take(),
            None if self.started.elapsed() > PATIENCE => {
                return Some(format!(
                    "it did not open its inspector on port {} within {} s of SIGUSR1; does the program handle that signal itself?",
                    self.port,
                    PATIENCE.as_secs()
                ));
            }
            None => {}
        }
        None
    }

    fn attached(&mut self, target: &Target<'_>) -> Option<Duration> {
        match self.open(target) {
            // A thread of its own opens it: the program does not stand still.
            Ok(is_open) => is_open.then_some(Duration::ZERO),
            Err(error) => {
                self.failure = Some(error.to_string());
                None
            }
        }
    }

    fn let_go(&mut self, target: &Target<'_>, _is_asked: bool) -> u32 {
        let Some((address, mut relay)) = self.open.take() else { return 0 };
        relay.close();
        if self.is_ours && target.is_running() {
            let is_other = |socket: &Socket| socket.is_connected() && socket.local.port() == address.port();
            let others = || sockets(target.proc, target.process.pid).iter().any(is_other);
            let _ = Network::of(target.proc, target.process.pid).and_then(|network| inspector::close(network, address, others));
        }
        0
    }

    fn reason_of(&self, _words: &str) -> HoldFailure {
        HoldFailure::Debugger
    }
}

/// Where the process itself listens on a port.
fn listening(target: &Target<'_>, port: u16) -> Option<SocketAddr> {
    let (proc, pid) = (target.proc, target.process.pid);
    let own = |socket: &Socket| socket.listens() && socket.local.port() == port && has(proc, pid, socket.inode);
    sockets(proc, pid).into_iter().find(own).map(|socket| reachable(socket.local))
}

/// Whether a process handles a signal, by its `/proc/<pid>/status`
/// (proc_pid_status(5)).
fn catches(status: &str, signal: Signal) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    set & (1 << (signal as i32 - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_would_end_it_is_known() {
        assert!(catches("Name:\tnode\nSigCgt:\t0000000000000200\n", Signal::SIGUSR1));
        assert!(!catches("SigCgt:\t0000000000000400\n", Signal::SIGUSR1) && !catches("", Signal::SIGUSR1));
    }
}
