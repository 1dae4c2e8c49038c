//! What the agent and a client say to each other about debugging: plain values,
//! framed as those of [`crate::protocol`].
//!
//! Debugging has programs of its own, each with one purpose and its answer on
//! stdout, for their ends mean something: `inspect`, `sources` and `fetch` look and end;
//! `hold` keeps a debugger attached for as long as its stdin is open and says so
//! once every few seconds ([`HEARTBEAT`]); `connect` is one connection to the
//! debugger; `idle` is the first process of a container that only waits for them.

#[cfg(target_os = "linux")]
pub(crate) mod binary;
#[cfg(target_os = "linux")]
pub(crate) mod connect;
pub(crate) mod go;
#[cfg(target_os = "linux")]
pub(crate) mod hold;
#[cfg(target_os = "linux")]
pub(crate) mod idle;
#[cfg(target_os = "linux")]
pub(crate) mod inspect;
#[cfg(target_os = "linux")]
pub(crate) mod jdwp;
#[cfg(target_os = "linux")]
pub(crate) mod network;
#[cfg(target_os = "linux")]
pub(crate) mod process_lock;
#[cfg(target_os = "linux")]
pub(crate) mod repair;
#[cfg(target_os = "linux")]
pub(crate) mod scripts;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::{ByteString, ErrorKind, ProcessId};

/// How often a client writes a byte to the stdin of `hold`.
pub const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long `hold` goes without one before it takes the connection for lost: a
/// network that is cut says nothing.
pub const SILENCE: Duration = Duration::from_secs(20);

/// What a process is made by, as the process itself shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// Go, by the build information that the linker leaves in every program.
    Go(GoProgram),
    /// Machine code of another compiler.
    Native {
        /// What the compiler calls itself in the section `.comment`.
        compiler: Option<String>,
    },
    /// `CPython`.
    Python {
        /// Such as `3.11`, where the name of the program or its library tells.
        version: Option<String>,
    },
    /// Node.
    Node,
    /// A Java virtual machine.
    Jvm(JavaMachine),
    /// .NET.
    Dotnet,
    /// A shell or an init that only starts others.
    Wrapper,
}

/// What a Go program says of its build (`go version -m`, package
/// `debug/buildinfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoProgram {
    /// Such as `go1.26.8`.
    pub version: String,
    /// The import path of its main package.
    pub package: String,
    /// The path of its main module.
    pub module: String,
    /// The modules that it is built with, with their versions; what replaces one is
    /// named in its stead.
    pub dependencies: Vec<(String, String)>,
    /// The build's settings, such as `-trimpath` or `vcs.revision`.
    pub settings: Vec<(String, String)>,
}

impl GoProgram {
    /// A setting of the build.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A Java virtual machine, as its files and its options say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JavaMachine {
    /// Such as `17.0.15`.
    pub version: Option<String>,
    /// Whether it was started with its debug agent, listening for a debugger.
    pub takes_debugger: bool,
    /// What its variable `JAVA_TOOL_OPTIONS` is.
    pub tool_options: Option<String>,
}

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// It.
    pub process: ProcessId,
    /// Its number as the container sees it.
    pub container_pid: u32,
    /// Whether it is the app: the first process, or what a wrapper started.
    pub is_app: bool,
    /// Its arguments, the program's name first.
    pub argv: Vec<ByteString>,
    /// The path of its program.
    pub executable: ByteString,
    /// Its effective user.
    pub uid: u32,
    /// The processor that its program is for, such as `x86_64`.
    pub machine: String,
    /// What it is made by.
    pub runtime: Runtime,
    /// The note `NT_GNU_BUILD_ID` of its program, in hexadecimal digits.
    pub build_id: Option<String>,
    /// Whether its program has debug information (DWARF).
    pub has_symbols: bool,
    /// What traces it already: pid and name.
    pub tracer: Option<(u32, String)>,
    /// 0 none, 1 strict, 2 filter (proc_pid_status(5)).
    pub seccomp: u32,
    /// When it started, in seconds since 1970.
    pub started: u64,
}

/// What `inspect` answers: one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inspected {
    /// The processes of the container.
    Found {
        /// They, the app first.
        candidates: Vec<Candidate>,
        /// What the agent may do where it runs.
        powers: Powers,
    },
    /// There are none to be seen.
    Failed {
        /// What to decide by.
        kind: ErrorKind,
        /// Why.
        message: String,
    },
}

/// What tracing depends on, beside the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Powers {
    /// `kernel.yama.ptrace_scope`; 0 where there is no yama (ptrace(2)).
    pub yama: u8,
    /// Whether the agent has `CAP_SYS_PTRACE`.
    pub may_trace: bool,
    /// The agent's own user.
    pub uid: u32,
}

/// A piece of what `sources` answers: the paths of the files that a program is
/// compiled from, as its compiler wrote them. It ends with the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sources {
    /// Some of them.
    Files(Vec<String>),
    /// They can't be read.
    Failed(String),
}

/// What `hold` says, in this order: attached or failed; after attached, any number of
/// joined, then ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// The debugger is attached, the process runs on and connections are accepted.
    Attached {
        /// How long the process stood still for it, in microseconds, as sampled
        /// every millisecond.
        stopped_micros: u64,
    },
    /// A client came for which the process stood still, and lets it run now.
    Joined {
        /// How long it stood still, in microseconds.
        stopped_micros: u64,
    },
    /// The debugger could not be attached; the process runs on without.
    Failed {
        /// Why, to decide by.
        reason: HoldFailure,
        /// The debugger's words, or the agent's.
        message: String,
    },
    /// The debugger is gone.
    Ended {
        /// Why.
        end: HoldEnd,
        /// How many breakpoints were left in the process's code and taken out.
        repaired: u32,
    },
}

/// Why a debugger could not be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldFailure {
    /// The process is gone.
    Vanished,
    /// Another debugger is attached.
    Traced,
    /// The kernel does not allow it.
    NotAllowed,
    /// The program has no debug information.
    NoSymbols,
    /// The debugger can't be started there.
    Debugger,
    /// Something else, which the message says.
    Other,
}

/// Why a debugger is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldEnd {
    /// It was asked to detach, or nobody was there any more; the process runs on.
    Detached,
    /// The process ended.
    Exited,
    /// The process runs another program, by execve(2) or a swap that the debugger made
    /// way for.
    Replaced,
    /// The debugger ended by itself; the process runs on.
    DebuggerDied(String),
}
