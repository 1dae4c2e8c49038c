//! Starting a node's first process, detached, in namespaces of its own.

use devloop_core::error::{CommandError, ErrorContext, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, fork, setsid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};

/// The first of the inherited descriptors: listening sockets, in order.
pub(crate) const FIRST_LISTENER_FD: i32 = 3;

/// What the first process is told once its network is linked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) name: String,
    pub(crate) index: u8,
    pub(crate) name_servers: Vec<IpAddr>,
    pub(crate) can_raise_limits: bool,
    /// The registry's port on the host; its listener is the second then.
    pub(crate) registry_port: Option<u16>,
    /// The environment's folder on the host.
    pub(crate) environment: PathBuf,
    /// The folder of the node's programs on the host.
    pub(crate) binaries: PathBuf,
    /// The first process's number on the host, which it can't see itself.
    pub(crate) host_pid: i32,
}

/// A first process that waits for its orders; without them it ends.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its number on the host.
    pub(crate) pid: i32,
    orders_tx: ChildStdin,
}

impl Launched {
    /// Lets it begin.
    ///
    /// # Errors
    /// When it has ended meanwhile.
    pub(crate) fn begin(mut self, orders: &Orders) -> Result<()> {
        let text = serde_json::to_vec(orders).context("could not write the node's orders")?;
        self.orders_tx.write_all(&text).context("the node's first process ended before it began")
    }
}

/// Starts this program as process 1 of new pid, mount, network, UTS and IPC
/// namespaces, in a session of its own, with `log` as stderr.
///
/// # Errors
/// When the kernel refuses a namespace or the program can't be started.
pub(crate) fn start(listeners: Vec<TcpListener>, log: File) -> Result<Launched> {
    let program = std::env::current_exe().context("could not find this program's own file")?;
    let (mut pid_rx, pid_tx) = std::io::pipe().context("could not make a pipe")?;
    let pid_fd = OwnedFd::from(pid_tx);
    // Copies far above the places that they are to take, so that no one is
    // closed by another's arrival.
    let copies = listeners.iter().map(copy_above).collect::<std::io::Result<Vec<OwnedFd>>>().context("could not copy a socket")?;
    let numbers: Vec<i32> = copies.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new(program);
    command.arg(super::NODE_INIT).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    let report_fd = pid_fd.as_raw_fd();
    // SAFETY: between fork and exec only system calls that are async-signal-safe
    // run, on memory that was made ready before; the child is single-threaded.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            let spaces = CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC;
            unshare(spaces)?;
            // A pid namespace holds only children that come after it.
            match fork()? {
                ForkResult::Parent { child } => {
                    let number = child.as_raw().to_ne_bytes();
                    let written = nix::libc::write(report_fd, number.as_ptr().cast(), number.len());
                    nix::libc::_exit(i32::from(written != 4));
                }
                ForkResult::Child => inherit(&numbers),
            }
        });
    }
    let mut child = command.spawn().context("could not start the node's first process in namespaces of its own")?;
    drop(pid_fd);
    drop((listeners, copies));
    let mut number = [0; 4];
    pid_rx.read_exact(&mut number).context("the node's first process did not start")?;
    let orders_tx = child.stdin.take().ok_or_else(|| CommandError::new("the node's first process has no stdin"))?;
    // The process in between has ended; the first process belongs to nobody.
    child.wait().context("could not wait for the launcher")?;
    Ok(Launched { pid: i32::from_ne_bytes(number), orders_tx })
}

/// A copy of the socket with a number that no inherited one will have.
fn copy_above(listener: &TcpListener) -> std::io::Result<OwnedFd> {
    let copy = nix::fcntl::fcntl(listener, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(64))?;
    // SAFETY: the descriptor was made by the call and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Puts the sockets where the new program looks for them, without close-on-exec.
fn inherit(listeners: &[i32]) -> std::io::Result<()> {
    for (place, listener) in (FIRST_LISTENER_FD..).zip(listeners) {
        // SAFETY: a plain system call on a descriptor that this process owns.
        if unsafe { nix::libc::dup2(*listener, place) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
