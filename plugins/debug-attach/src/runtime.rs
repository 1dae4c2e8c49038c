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
    /// LLDB here, gdbserver there.
    Lldb,
}

impl Debugger {
    /// That of a runtime, where there is one.
    pub(crate) fn of(runtime: &Runtime) -> Option<Self> {
        match runtime {
            Runtime::Go(_) => Some(Self::Delve),
            Runtime::Python { .. } => Some(Self::Debugpy),
            Runtime::Node => Some(Self::Inspector),
            Runtime::Jvm(_) => Some(Self::Jdwp),
            Runtime::Native { .. } => Some(Self::Lldb),
            _ => None,
        }
    }

    /// Whether the program itself has to have its debug information. Else it is looked
    /// for on this machine, too.
    pub(crate) fn needs_symbols_there(self) -> bool {
        match self {
            Self::Delve => true,
            Self::Debugpy | Self::Inspector | Self::Jdwp | Self::Lldb => false,
        }
    }

    /// Whether it takes the kernel's leave to trace the process (ptrace(2)).
    pub(crate) fn traces(self) -> bool {
        match self {
            Self::Delve | Self::Debugpy | Self::Lldb => true,
            Self::Inspector | Self::Jdwp => false,
        }
    }

    /// Whether the process stands still from when an editor comes until it has set its
    /// breakpoints, and not when the command begins.
    pub(crate) fn waits_for_clients(self) -> bool {
        match self {
            Self::Delve | Self::Debugpy | Self::Inspector | Self::Jdwp => false,
            Self::Lldb => true,
        }
    }

    /// How a program gets debug information.
    pub(crate) fn symbols_hint(self) -> &'static str {
        match self {
            Self::Delve => "build it without `-ldflags=-s -w`, or name the program before it was stripped with --symbols",
            Self::Debugpy | Self::Inspector | Self::Jdwp => "it needs none",
            Self::Lldb => {
                "name the program before it was stripped with --symbols; or build it with debug information (`-g`; for Rust `debug = true` in the profile) and a build id"
            }
        }
    }

    /// What is spoken on its port, for people.
    pub(crate) fn protocols(self) -> &'static str {
        match self {
            Self::Delve => "DAP, and `dlv connect`",
            Self::Debugpy => "DAP, one client at a time",
            Self::Inspector => "Node's inspector; also chrome://inspect and `node inspect`",
            Self::Jdwp => "JDWP, one client at a time; also `jdb -attach`",
            Self::Lldb => "DAP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_has_its_debugger() {
        assert_eq!(Debugger::of(&Runtime::Go(Default::default())), Some(Debugger::Delve));
        assert_eq!(Debugger::of(&Runtime::Native { compiler: None }), Some(Debugger::Lldb));
        assert_eq!(Debugger::of(&Runtime::Python { version: None }), Some(Debugger::Debugpy));
        assert_eq!(Debugger::of(&Runtime::Node), Some(Debugger::Inspector));
        assert_eq!(Debugger::of(&Runtime::Jvm(Default::default())), Some(Debugger::Jdwp));
        assert_eq!(Debugger::of(&Runtime::Dotnet), None);
    }
}
