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
//!    are followed by messages *with the id of the transfer* that make up these
//!    bytes in their order and get no answer of their own: [`Request::Data`],
//!    [`Request::Packed`] and, where the announcement named a `base`,
//!    [`Request::Copy`]. The transfer is answered when the last byte arrived,
//!    when it failed, or when [`Request::AbortFile`] (again with the id of the
//!    transfer) dropped it. What is still under way when a transfer ends is
//!    ignored, so a client need not stop. One transfer is open at a time; other
//!    requests may come between its bytes.
//! 4. A `base` is the BLAKE3 hash of what the client believes to lie at the
//!    place now. The agent agrees only if it wrote that itself and the file was
//!    not touched since; else it answers [`ErrorKind::BaseChanged`], and the
//!    client sends all of it. The hash in the answer is that of the whole file:
//!    the client compares it in any case.
//! 5. Requests for several processes are done in each one's container; one that
//!    fails is named in the answer and the others go on.
//! 6. Before the agent changes a container for the first time, it takes down
//!    what was there. [`Request::Undo`] puts that back, [`Request::Keep`] drops
//!    the record. When its stdin ends, or it is told to end by SIGTERM, the
//!    agent undoes by itself what was neither undone nor kept. (Beside a
//!    container SIGTERM says that the pod ends: then only the files are put
//!    back.) SIGINT and SIGHUP are the client's business. After an agent
//!    that was killed, [`Located::changed`] tells that there is something to
//!    undo, and the next agent on the node can.
//! 7. It closes the agent's stdin to end it. An open transfer is then dropped
//!    and its temporary files removed.
//!
//! # Bounds
//! A frame has at most [`MAX_FRAME`] bytes, a piece of a file [`MAX_CHUNK`], a
//! request [`MAX_PROCESSES`] processes. The agent holds a frame, a read and a
//! piece at a time; of each file that it wrote a line of numbers, for at most
//! [`MAX_BASES`] files; and of each container that it changed the paths that it
//! took down.

mod byte_string;
mod codec;
pub mod logs;
mod packed;
#[cfg(test)]
pub(crate) mod samples;
pub mod time;

pub use byte_string::ByteString;
pub use codec::{DecodeError, Decoder, EncodeError, encode};
pub use packed::{pack, unpack};

use serde::{Deserialize, Serialize};

/// The version of this protocol, compared in the first exchange.
pub const VERSION: u32 = 5;

/// The longest body of a frame, in bytes.
pub const MAX_FRAME: usize = 1 << 20;

/// The most bytes that one [`Request::Data`] may carry.
pub const MAX_CHUNK: usize = 256 * 1024;

/// The most processes that one request may name.
pub const MAX_PROCESSES: usize = 4096;

/// Of so many written files the agent remembers what it takes to accept them as
/// a base; the oldest are forgotten.
pub const MAX_BASES: usize = 4096;

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
        /// A process of each container that is to get it.
        processes: Vec<ProcessId>,
        /// The absolute path in the containers; without `..`.
        path: ByteString,
        /// Permission bits (`0o777`: no file is made to run as its owner);
        /// without, an existing file's are kept and a new one gets `0o644`.
        mode: Option<u32>,
        /// How many bytes follow.
        size: u64,
        /// The modification time as seconds and nanoseconds since the epoch;
        /// without, it is the time of writing.
        modified: Option<(i64, u32)>,
        /// The hash of the file there that [`Request::Copy`] copies from.
        base: Option<[u8; 32]>,
    },
    /// The next bytes of the open transfer; not answered.
    Data {
        /// At most [`MAX_CHUNK`] bytes.
        bytes: ByteString,
    },
    /// The source vanished or changed while it was read: drop the transfer.
    AbortFile,
    /// Removes a file or a tree; answered by [`Response::Done`]. That there is
    /// nothing to remove is no failure.
    Remove {
        /// A process of each container.
        processes: Vec<ProcessId>,
        /// The absolute path in the containers; without `..`. A symlink is
        /// removed itself, not what it points to.
        path: ByteString,
        /// So many of the folders above are removed as well if that leaves them
        /// empty.
        empty_parents: u32,
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
        /// The hash of the program there that [`Request::Copy`] copies from.
        base: Option<[u8; 32]>,
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
    /// The next bytes of the open transfer, compressed; not answered.
    Packed {
        /// How many bytes they are; at most [`MAX_CHUNK`].
        length: u32,
        /// As [`pack`] makes them.
        bytes: ByteString,
    },
    /// The next bytes of the open transfer are these of its base; not answered.
    Copy {
        /// Where in the base.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Makes a symlink, in place of a file or link; answered by [`Response::Done`].
    PutLink {
        /// A process of each container.
        processes: Vec<ProcessId>,
        /// What the link says; not looked at.
        target: ByteString,
        /// The absolute path in the containers; without `..`.
        path: ByteString,
    },
    /// Compares files with what they should be; answered by [`Response::Differing`].
    Check {
        /// A process of the container.
        process: ProcessId,
        /// The files.
        entries: Vec<Expected>,
    },
    /// Sends a signal; answered by [`Response::Done`].
    Signal {
        /// To this process.
        process: ProcessId,
        /// Its number.
        signal: i32,
    },
    /// Executes the program that a process runs once more, in place, with its
    /// arguments; answered by [`Response::Swapped`], which names the process
    /// that was restarted: of the given one and its parents up to the
    /// container's main process the outermost that has one of the changed paths
    /// among its arguments, else the given one.
    Restart {
        /// The process.
        process: ProcessId,
        /// Paths in the container.
        changed: Vec<ByteString>,
    },
    /// Puts back all that was changed in a container and in the volumes that it
    /// sees, even for a container that was there before, or that shares them;
    /// answered by [`Response::Undone`].
    Undo {
        /// A process of the container.
        process: ProcessId,
    },
    /// Leaves a container as it is from now on: what it was is forgotten.
    /// Answered by [`Response::Done`].
    Keep {
        /// A process of the container.
        process: ProcessId,
    },
}

/// What a file is expected to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The absolute path in the container; without `..`.
    pub path: ByteString,
    /// The size in bytes; not of a link.
    pub size: u64,
    /// The hash of the content; without, it is not looked at.
    pub blake3: Option<[u8; 32]>,
    /// The permission bits (`0o777`); without, they are not looked at.
    pub mode: Option<u32>,
    /// What a symlink says, where one is expected.
    pub link: Option<ByteString>,
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
        /// The BLAKE3 hash of what was written; absent when every process
        /// failed, which may be before the last byte.
        blake3: Option<[u8; 32]>,
        /// The processes whose containers don't have it.
        failed: Vec<Failed>,
    },
    /// To [`Request::AbortFile`], under the id of the transfer.
    Aborted,
    /// To [`Request::Remove`], [`Request::PutLink`], [`Request::Signal`] and
    /// [`Request::Keep`].
    Done {
        /// The processes whose containers were not changed, or not wholly.
        failed: Vec<Failed>,
    },
    /// To [`Request::Swap`], [`Request::Restart`] and [`Request::Rollback`].
    Swapped(Swapped),
    /// To [`Request::Alive`].
    Alive {
        /// False for a process that ended, was replaced by another under the
        /// same pid, or is a zombie.
        running: bool,
    },
    /// To [`Request::Check`].
    Differing {
        /// The entries, counted from 0, that are missing or otherwise than
        /// expected, in order.
        indices: Vec<u32>,
    },
    /// To [`Request::Undo`].
    Undone(Undone),
    /// To any request that failed.
    Error {
        /// What to decide by.
        kind: ErrorKind,
        /// What failed and why: a fragment without a final period.
        message: String,
    },
}

/// A process for which a request failed that was for several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The process.
    pub process: ProcessId,
    /// What to decide by.
    pub kind: ErrorKind,
    /// What failed and why: a fragment without a final period.
    pub message: String,
}

/// What was put back in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// How many files, links and folders are again what they were.
    pub restored: u32,
    /// Whether a process runs its original program again.
    pub restarted: bool,
    /// The process that was asked about, or the one that was restarted.
    pub process: ProcessId,
}

/// A container's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The process to swap: the main one, or its only child where the main one
    /// is a shell or an init such as tini.
    pub process: ProcessId,
    /// Its arguments, from `/proc/<pid>/cmdline`.
    pub argv: Vec<ByteString>,
    /// Its working directory, as the container sees it.
    pub cwd: ByteString,
    /// The container's first process.
    pub main: ProcessId,
    /// The first process's arguments.
    pub main_argv: Vec<ByteString>,
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
    /// The seccomp mode of the process: 0 none, 1 strict, 2 a filter, which may
    /// forbid a swap.
    pub seccomp: u32,
    /// Where folders are mounted that can be written to and are no part of the
    /// container's own file system, such as volumes: what is changed below these
    /// outlives the container. An agent on a node undoes it nevertheless, one
    /// beside a container only if the container doesn't end before.
    pub volumes: Vec<ByteString>,
    /// Whether there is a record of what an earlier session changed in this
    /// container, or in a volume that it sees, and did not undo.
    pub changed: bool,
}

/// A process that now runs another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swapped {
    /// The process; the same as before. Its child processes are gone.
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
    /// What the client takes for the base of a transfer is not there (any more).
    BaseChanged,
    /// Another session changes this container.
    InUse,
    /// The client broke the rules; the agent ends.
    Protocol,
    /// Any other failure of the operating system.
    Io,
    /// The process stands still for its debugger, as at a breakpoint.
    Halted,
}
