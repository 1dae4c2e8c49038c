//! Signals, sent to the very process that is meant.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};

/// Sends one of the signals that have a name.
pub(crate) fn send_signal(proc: &Proc, process: ProcessId, number: i32) -> Result<(), Failure> {
    let signal =
        Signal::from_named_raw(number).ok_or_else(|| Failure::new(ErrorKind::Unsupported, format!("there is no signal {number}")))?;
    let handle = open(proc, process)?;
    pidfd_send_signal(handle, signal).map_err(Failure::errno(format_args!("send signal {number} to process {}", process.pid)))
}

/// A descriptor that stands for the process for as long as it is open; it can be
/// read once the process has ended.
pub(crate) fn open(proc: &Proc, process: ProcessId) -> Result<OwnedFd, Failure> {
    let pid = Pid::from_raw(process.pid.cast_signed()).ok_or_else(|| Failure::vanished(process.pid))?;
    let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(Failure::errno(format_args!("take hold of process {}", process.pid)))?;
    // After it was opened, not before: from here on it is no other's.
    proc.check(process)?;
    Ok(handle)
}
