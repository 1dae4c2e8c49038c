//! Which debugger goes with which runtime, and what it needs. Pure.

use devloop_core::agent::debug::Runtime;

/// What a process is debugged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Debugger {
    /// <https://github.com/go-delve/delve>
    Delve,
}

impl Debugger {
    /// That of a runtime, where there is one.
    pub(crate) fn of(runtime: &Runtime) -> Option<Self> {
        match runtime {
            Runtime::Go(_) => Some(Self::Delve),
            _ => None,
        }
    }

    /// Whether it is of no use without the debug information of the program.
    pub(crate) fn needs_symbols(self) -> bool {
        match self {
            Self::Delve => true,
        }
    }

    /// How a program gets debug information.
    pub(crate) fn symbols_hint(self) -> &'static str {
        match self {
            Self::Delve => "build it without `-ldflags=-s -w`, or name the program before it was stripped with --symbols",
        }
    }

    /// What is spoken on its port, for people.
    pub(crate) fn protocols(self) -> &'static str {
        match self {
            Self::Delve => "DAP, and `dlv connect`",
        }
    }
}
