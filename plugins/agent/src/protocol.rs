//! What a client and the agent say to each other: plain messages and their framing.
//!
//! Nothing here does IO. The client side (devloop-core) and the agent's own
//! loop both use these types, so the two cannot drift apart unnoticed.
//!
//! # How a client behaves
//! 1. It starts the agent with its stdin and stdout as the two directions of
//!    one connection, and sends [`Request::Hello`] first. Anything else first,
//!    or another [`VERSION`], is answered by an [`ErrorKind::Protocol`] error
//!    and the end of the agent.
//! 2. Every message carries an `id` that the client chooses. Each request is
//!    answered exactly once, under its id and in the order in which requests
//!    were completed. A client may send many requests before it reads, as long
//!    as it reads while it writes: the agent stops reading while its answers
//!    are not taken.
//! 3. [`Request::PutFile`] and [`Request::Swap`] announce `size` bytes. They
//!    are followed by [`Request::Data`] messages *with the id of the transfer*,
//!    which get no answer of their own. The transfer is answered when the last
//!    byte arrived, when it failed, or when [`Request::AbortFile`] (again with
//!    the id of the transfer) dropped it. Data and AbortFile that are still
//!    under way when a transfer ends are ignored, so a client need not stop.
//!    One transfer is open at a time; other requests may come between its Data.
//! 4. It closes the agent's stdin to end it. An open transfer is then dropped
//!    and its temporary file removed.

mod byte_string;
mod codec;
#[cfg(test)]
pub(crate) mod samples;

pub use byte_string::ByteString;
pub use codec::{DecodeError, Decoder, EncodeError, encode};

use serde::{Deserialize, Serialize};

/// The version of this protocol, compared in the first exchange.
pub const VERSION: u32 = 2;

/// The longest body of a frame, in bytes.
pub const MAX_FRAME: usize = 1 << 20;

/// The most bytes that one [`Request::Data`] may carry.
pub const MAX_CHUNK: usize = 256 * 1024;

/// A request or response under the id that ties the two together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<T> {
    /// Chosen by the client, echoed by the agent; 0 in the answer to a frame
    /// that could not be decoded.
    pub id: u32,
    /// What is said.
    pub body: T,
}

/// A process that can't be mistaken for a later one with the same pid.
///
/// A container that restarts frees its pid; the next process to get it may be
/// the node's own, and `/proc/<pid>/root` would then be the node's root. So no
/// request names a process by its pid alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid in the agent's pid namespace: the node's, or the container's for
    /// an agent that runs beside it in its pod.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of
    /// `/proc/<pid>/stat`, see proc_pid_stat(5). An exec does not change it.
    pub start_time: u64,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The first message. Stays the first variant for ever, so that any two
    /// versions can tell each other that they differ.
    Hello {
        /// The client's [`VERSION`].
        version: u32,
    },
    /// Finds the main process of a container; answered by [`Response::Located`].
    Locate {
        /// The runtime's id; a scheme such as `containerd://` is tolerated.
        container_id: String,
    },
    /// Announces a file; answered by [`Response::Written`] after its last byte.
    PutFile {
        /// A process of the container.
        process: ProcessId,
        /// The absolute path in the container; without `..`.
        path: ByteString,
        /// Permission bits (`0o7777`); without, an existing file's are kept and
        /// a new one gets `0o644`.
        mode: Option<u32>,
        /// How many bytes follow.
        size: u64,
        /// The modification time as seconds and nanoseconds since the epoch;
        /// without, it is the time of writing.
        modified: Option<(i64, u32)>,
    },
    /// The next bytes of the open transfer; not answered.
    Data {
        /// At most [`MAX_CHUNK`] bytes.
        bytes: ByteString,
    },
    /// The source vanished or changed while it was read: drop the transfer.
    AbortFile,
    /// Removes a file or a tree; answered by [`Response::Removed`].
    Remove {
        /// A process of the container.
        process: ProcessId,
        /// The absolute path in the container; without `..`. A symlink is
        /// removed itself, not what it points to.
        path: ByteString,
    },
    /// Announces a program that is to replace the process in place; answered
    /// by [`Response::Swapped`].
    Swap {
        /// The process to replace.
        process: ProcessId,
        /// Where in the container to install the program.
        executable: ByteString,
        /// The arguments, the name of the program first; without, the current ones.
        argv: Option<Vec<ByteString>>,
        /// How many bytes follow.
        size: u64,
    },
    /// Brings back the program that the last swap of this process replaced;
    /// answered by [`Response::Swapped`]. A second one goes forward again.
    Rollback {
        /// The process that was swapped by this agent.
        process: ProcessId,
    },
    /// Whether a process still runs; answered by [`Response::Alive`].
    Alive {
        /// The process.
        process: ProcessId,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Hello`]. Stays the first variant.
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
        /// The version of the agent's package.
        build: String,
        /// The architecture that the agent was built for, as in
        /// [`Located::machine`].
        arch: String,
    },
    /// To [`Request::Locate`].
    Located(Located),
    /// To [`Request::PutFile`].
    Written {
        /// The BLAKE3 hash of what was written.
        blake3: [u8; 32],
    },
    /// To [`Request::AbortFile`], under the id of the transfer.
    Aborted,
    /// To [`Request::Remove`].
    Removed {
        /// Whether there was anything to remove.
        existed: bool,
    },
    /// To [`Request::Swap`] and [`Request::Rollback`].
    Swapped(Swapped),
    /// To [`Request::Alive`].
    Alive {
        /// False for a process that ended, was replaced by another under the
        /// same pid, or is a zombie.
        running: bool,
    },
    /// To any request that failed.
    Error {
        /// What to decide by.
        kind: ErrorKind,
        /// What failed and why: a fragment without a final period.
        message: String,
    },
}

/// A container's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The process to swap: the main one, or its only child where the main one
    /// is a shell or an init such as tini.
    pub process: ProcessId,
    /// The container's first process.
    pub main_pid: u32,
    /// Its arguments, from `/proc/<pid>/cmdline`.
    pub argv: Vec<ByteString>,
    /// The program's path as the container sees it. For a process that was
    /// swapped in memory: the path that it would have been installed to.
    pub executable: ByteString,
    /// Whether the program runs from memory only (see [`Swapped::in_memory`]).
    pub in_memory: bool,
    /// The effective user id, as the node sees it.
    pub uid: u32,
    /// The effective group id, as the node sees it.
    pub gid: u32,
    /// The program's architecture: `x86_64`, `aarch64`, `x86`, `arm`,
    /// `riscv64`, or `elf-<e_machine>`.
    pub machine: String,
    /// The BLAKE3 hash of the program that it runs, whatever lies at its path by
    /// now; absent where the program can't be read.
    pub blake3: Option<[u8; 32]>,
}

/// A process that now runs another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swapped {
    /// The process; the same as before.
    pub process: ProcessId,
    /// When each step was done.
    pub phases: Phases,
    /// Whether the program runs from memory because the place to install it to
    /// is on a read-only file system. It is gone when the container restarts.
    pub in_memory: bool,
    /// Whether the agent holds the previous program for [`Request::Rollback`].
    /// It holds it until it ends, or the process does.
    pub previous_kept: bool,
}

/// Microseconds from the arrival of the request until each step was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// The last byte of the program arrived.
    pub received_us: u64,
    /// It was installed (renamed into place).
    pub written_us: u64,
    /// The process stood still.
    pub stopped_us: u64,
    /// The kernel reported that it runs the new program.
    pub executed_us: u64,
}

/// Why a request failed, to decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// No such container, process, file, or nothing to roll back to.
    NotFound,
    /// The place to write to is on a read-only file system.
    ReadOnly,
    /// The file system or a quota is full.
    NoSpace,
    /// The kernel refused; also when the process is traced by a debugger.
    Permission,
    /// The program is for another architecture than the process's.
    WrongArchitecture,
    /// Not a complete ELF program, or its loader is not in the container.
    NotExecutable,
    /// The process ended, or another has its pid now.
    Vanished,
    /// A seccomp filter of the container stopped the swap.
    Seccomp,
    /// This kernel, agent or place cannot do what was asked.
    Unsupported,
    /// A path that is not absolute, has `..`, or leads through a link that
    /// can't be followed.
    InvalidPath,
    /// The process did not come to a stop, or did not take the new program, in
    /// time.
    TimedOut,
    /// The client broke the rules; the agent ends.
    Protocol,
    /// Any other failure of the operating system.
    Io,
}
