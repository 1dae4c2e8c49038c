//! Signals, sent to the very process that is meant.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};

/// Real-time signals that a program can use: those before are the C library's
/// (signal(7)).
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Sends a signal.
pub(crate) fn send_signal(proc: &Proc, process: ProcessId, number: i32) -> Result<(), Failure> {
    let signal = signal(number).ok_or_else(|| Failure::new(ErrorKind::Unsupported, format!("there is no signal {number}")))?;
    let handle = open(proc, process)?;
    pidfd_send_signal(handle, signal).map_err(Failure::errno(format_args!("send signal {number} to process {}", process.pid)))
}

fn signal(number: i32) -> Option<Signal> {
    if REAL_TIME.contains(&number) {
        // SAFETY: what is excluded are the signals that a C library reserves for
        // itself; these are not.
        return Some(unsafe { Signal::from_raw_unchecked(number) });
    }
    Signal::from_named_raw(number)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_and_real_time_signals_can_be_sent() {
        for number in [1, 15, 34, 39, 64] {
            assert!(signal(number).is_some(), "{number}");
        }
        for number in [-1, 0, 32, 33, 65, 1000] {
            assert!(signal(number).is_none(), "{number}");
        }
    }
}
