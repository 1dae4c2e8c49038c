//! What the agent and a client say to each other about a process that is looked at
//! without a debugger: plain values, framed as those of [`crate::protocol`].
//!
//! Each tool is a program of its own that answers on stdout and ends. It begins with
//! a word on what it found; what goes on with the process meanwhile ends, too, as soon
//! as the client is gone or takes nothing any more.

#[cfg(target_os = "linux")]
mod arch;
#[cfg(target_os = "linux")]
pub(crate) mod command;
#[cfg(target_os = "linux")]
mod core_file;
#[cfg(target_os = "linux")]
mod core_image;
#[cfg(target_os = "linux")]
mod core_notes;
#[cfg(target_os = "linux")]
mod freeze;
#[cfg(target_os = "linux")]
mod mappings;
#[cfg(target_os = "linux")]
mod modules;
#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod perf;
#[cfg(target_os = "linux")]
mod profile;
#[cfg(target_os = "linux")]
mod registers;
#[cfg(target_os = "linux")]
mod shell;
#[cfg(target_os = "linux")]
mod snapshot;
#[cfg(target_os = "linux")]
mod target_memory;
#[cfg(target_os = "linux")]
mod toolbox;
#[cfg(target_os = "linux")]
mod unwind;

use serde::{Deserialize, Serialize};

use crate::protocol::{ByteString, ErrorKind, MAX_CHUNK, pack, unpack};

/// A part of a file; parts come in order, and what lies between them is zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u32,
    /// It, perhaps packed.
    bytes: ByteString,
    is_packed: bool,
}

impl Piece {
    /// Makes one of at most [`MAX_CHUNK`] bytes.
    pub fn new(offset: u64, bytes: &[u8]) -> Self {
        debug_assert!(bytes.len() <= MAX_CHUNK);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match pack(bytes) {
            Some(packed) => Self { offset, length, bytes: packed.into(), is_packed: true },
            None => Self { offset, length, bytes: bytes.to_vec().into(), is_packed: false },
        }
    }

    /// The bytes; `None` when it was not made by [`Piece::new`].
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        if self.is_packed {
            return unpack(&self.bytes.0, self.length);
        }
        (self.bytes.0.len() == self.length as usize).then_some(self.bytes.0)
    }
}

/// What a request for a core file answers: planned; then, once a byte came on stdin,
/// pieces, and done. Failed may come at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CoreAnswer {
    /// What it would be like, as far as can be told of a process that runs.
    Planned {
        /// How much is in the file, in bytes: what it takes on disk.
        content: u64,
        /// The threads of the process.
        threads: u32,
        /// Whether the process stands still until all of it was sent: there is not the
        /// memory for a copy.
        is_slow: bool,
    },
    /// A part of the file.
    Piece(Piece),
    /// All of it was sent.
    Done {
        /// How long the file is, its holes included, in bytes.
        size: u64,
        /// The threads in it.
        threads: u32,
        /// How long the process stood still, in microseconds.
        stopped_micros: u64,
    },
    /// There is no core file.
    Failed(Refusal),
}

/// Why a tool did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What to decide by.
    pub kind: ErrorKind,
    /// Why.
    pub message: String,
}

/// A file whose code a process runs, where it is in its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeFile {
    /// Where its code begins in the process.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Where that begins in the file.
    pub offset: u64,
    /// What an address in the process has more than the same in the file.
    pub bias: u64,
    /// Its path, as the process knows it; `[vdso]` for the kernel's own.
    pub path: ByteString,
    /// The note `NT_GNU_BUILD_ID`, in hexadecimal digits.
    pub build_id: Option<String>,
}

/// Where a thread was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// The thread's number in the container.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// R running, S sleeping, D waiting uninterruptibly, ... (proc_pid_stat(5)).
    pub state: char,
    /// Addresses of code, the innermost first. But for the first, each is one less than
    /// where its function returns to, so that it is in the call.
    pub addresses: Vec<u64>,
    /// Whether the outermost is the one where the thread began, as far as can be told.
    pub is_whole: bool,
    /// How often it was there.
    pub count: u32,
}

/// What a request for stacks or for a profile answers: began, stacks, code files, ended.
/// Failed may come at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StackAnswer {
    /// It goes on from here.
    Began {
        /// How.
        way: Way,
    },
    /// Some of the stacks.
    Stacks(Vec<Stack>),
    /// Some of the files that the addresses are in.
    CodeFiles(Vec<CodeFile>),
    /// All was said.
    Ended {
        /// How long the process stood still altogether, in microseconds.
        stopped_micros: u64,
        /// How long it was looked at, in microseconds.
        duration_micros: u64,
        /// How many samples are missing, as far as the kernel says.
        lost: u64,
    },
    /// There are none.
    Failed(Refusal),
}

/// How stacks were taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// All threads at once, which stood still for it.
    Frozen,
    /// By perf events, whenever a thread has used so much of a processor
    /// (perf_event_open(2)).
    PerfEvents {
        /// In nanoseconds of processor time.
        period: u64,
        /// Whether time in the kernel counts.
        with_kernel: bool,
    },
    /// By stopping the threads that run, so often.
    Stopping {
        /// In nanoseconds of time.
        period: u64,
        /// Why not by perf events.
        reason: String,
    },
}

/// What a request for a code file answers: pieces, and done; or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileAnswer {
    /// A part of it.
    Piece(Piece),
    /// All of it was sent.
    Done,
    /// It can't be had.
    Failed(Refusal),
}

/// What is told to a program in a toolbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShellInput {
    /// It is to read this.
    Bytes(ByteString),
    /// The size of its terminal.
    Size {
        /// In letters.
        columns: u16,
        /// In lines.
        rows: u16,
    },
    /// There is no more to read.
    End,
    /// The client is still there; said every [`crate::debug::HEARTBEAT`].
    Beat,
}

/// What comes of a program in a toolbox: started, what it says, and ended; or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShellOutput {
    /// It runs.
    Started,
    /// It said this.
    Bytes(ByteString),
    /// It said this on stderr.
    Complaint(ByteString),
    /// It ended.
    Ended {
        /// With this code; 128 and the number of the signal when it was killed.
        code: u8,
    },
    /// It could not be started.
    Failed(Refusal),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_as_they_were() {
        for bytes in [vec![7; MAX_CHUNK], (0..255).collect::<Vec<u8>>(), Vec::new()] {
            let piece = Piece::new(4096, &bytes);
            assert_eq!((piece.offset, piece.length as usize), (4096, bytes.len()));
            assert_eq!(piece.into_bytes(), Some(bytes));
        }
    }
}
