//! Which debugger goes with which runtime, and what it needs. Pure.

use devloop_core::agent::debug::Runtime;

/// What a process is debugged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Debugger {
    /// <https://github.com/go-delve/delve>
    Delve,
    /// <https://github.com/microsoft/debugpy>
    Debugpy,
    /// That of Node: <https://nodejs.org/en/learn/getting-started/debugging>
    Inspector,
    /// That of Java virtual machines:
    /// <https://docs.oracle.com/en/java/javase/21/docs/specs/jdwp/jdwp-spec.html>
    Jdwp,
}

impl Debugger {
    /// That of a runtime, where there is one.
    pub(crate) fn of(runtime: &Runtime) -> Option<Self> {
        match runtime {
            Runtime::Go(_) => Some(Self::Delve),
            Runtime::Python { .. } => Some(Self::Debugpy),
            Runtime::Node => Some(Self::Inspector),
            Runtime::Jvm(_) => Some(Self::Jdwp),
            _ => None,
        }
    }

    /// Whether it is of no use without the debug information of the program.
    pub(crate) fn needs_symbols(self) -> bool {
        match self {
            Self::Delve => true,
            Self::Debugpy | Self::Inspector | Self::Jdwp => false,
        }
    }

    /// Whether it takes the kernel's leave to trace the process (ptrace(2)).
    pub(crate) fn traces(self) -> bool {
        match self {
            Self::Delve | Self::Debugpy => true,
            Self::Inspector | Self::Jdwp => false,
        }
    }

    /// How a program gets debug information.
    pub(crate) fn symbols_hint(self) -> &'static str {
        match self {
            Self::Delve => "build it without `-ldflags=-s -w`, or name the program before it was stripped with --symbols",
            Self::Debugpy | Self::Inspector | Self::Jdwp => "it needs none",
        }
    }

    /// What is spoken on its port, for people.
    pub(crate) fn protocols(self) -> &'static str {
        match self {
            Self::Delve => "DAP, and `dlv connect`",
            Self::Debugpy => "DAP, one client at a time",
            Self::Inspector => "Node's inspector; also chrome://inspect and `node inspect`",
            Self::Jdwp => "JDWP, one client at a time; also `jdb -attach`",
        }
    }
}
