//! The small program that devloop runs on a node, as root, beside the
//! containers: it receives files into them and swaps their processes in place.
//!
//! It is synchronous and speaks [`protocol`] over stdin and stdout, so that any
//! way to run a program on a node (`docker exec`, a local process) is a
//! connection to it. It can also be an ephemeral container beside one container
//! of a pod (`serve --beside`): then it sees the processes of that one only.
//!
//! Code map: [`protocol`] (messages and framing, no IO; all that a client
//! needs), [`server`] (the loop), `session` (the requests), `locate`, `process` and
//! `mounts` (`/proc`), `root` (paths
//! that stay inside a container), `transfer`, `bases` and `incoming` (files that
//! are received), `fan_out` (to several containers at once), `link`, `remove` and `check` (other work on files), `elf` (is
//! it a program), `trace` (ptrace), `swap` (another program in a process), `restart` and `signal` (processes), `undo`
//! (what was there before); and beside all that [`supervise`] (a container's
//! first process) with `copy` (how it comes into the container), [`logs`] (the log
//! files of a node's containers), [`debug`] (a debugger for a process, which
//! goes with its client) and [`tools`] (what can be known of a process without one).
//!
//! Architecture invariant: a path in a container is resolved by
//! `root::ContainerRoot` and nowhere else.
//!
//! Architecture invariant: nothing in a container is changed before
//! `undo::Recorder` took down what was there.
//!
//! Architecture invariant: a process is named by pid and start time, never by
//! its pid alone.
//!
//! Linux 5.6 or newer; x86_64, and aarch64 untested.

pub mod debug;
pub mod protocol;
pub mod tools;

#[cfg(target_os = "linux")]
mod bases;
#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod copy;
#[cfg(target_os = "linux")]
mod elf;
#[cfg(target_os = "linux")]
mod failure;
#[cfg(target_os = "linux")]
mod fan_out;
#[cfg(target_os = "linux")]
mod incoming;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod locate;
#[cfg(target_os = "linux")]
pub mod logs;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod remove;
#[cfg(target_os = "linux")]
mod restart;
#[cfg(target_os = "linux")]
mod root;
#[cfg(target_os = "linux")]
pub mod server;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod signal;
#[cfg(target_os = "linux")]
mod spare;
#[cfg(target_os = "linux")]
pub mod supervise;
#[cfg(target_os = "linux")]
mod swap;
#[cfg(target_os = "linux")]
mod trace;
#[cfg(target_os = "linux")]
mod transfer;
#[cfg(target_os = "linux")]
mod undo;

#[cfg(target_os = "linux")]
mod command;
#[cfg(target_os = "linux")]
pub use command::run;
