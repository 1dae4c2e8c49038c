//! Why a request failed: what the client is told, in one type.

use std::fmt::Display;
use std::io;

use rustix::io::Errno;

use crate::protocol::ErrorKind;

/// A failed request; it never ends the agent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// For `map_err`: `cannot WHAT: REASON`.
    pub(crate) fn errno(what: impl Display) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { kind: kind_of(errno), message: format!("cannot {what}: {}", describe(errno)) }
    }

    /// The same for what the standard library reports.
    pub(crate) fn io(what: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |error| match Errno::from_io_error(&error) {
            Some(errno) => Self::errno(what)(errno),
            None => Self::new(ErrorKind::Io, format!("cannot {what}: {error}")),
        }
    }

    /// A process that is gone, or whose pid is another's now.
    pub(crate) fn vanished(pid: u32) -> Self {
        Self::new(ErrorKind::Vanished, format!("process {pid} is gone"))
    }

    /// Adds what happened on the way out, after the actual reason.
    pub(crate) fn and(mut self, more: impl Display) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }
}

fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::ROFS => ErrorKind::ReadOnly,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::NoSpace,
        Errno::ACCESS | Errno::PERM => ErrorKind::Permission,
        Errno::SRCH => ErrorKind::Vanished,
        Errno::NOSYS | Errno::OPNOTSUPP => ErrorKind::Unsupported,
        Errno::NOEXEC | Errno::LIBBAD => ErrorKind::NotExecutable,
        Errno::LOOP => ErrorKind::InvalidPath,
        _ => ErrorKind::Io,
    }
}

fn describe(errno: Errno) -> String {
    match errno {
        // What ELOOP means under RESOLVE_NO_MAGICLINKS, which strerror can't know.
        Errno::LOOP => "too many symbolic links, or one of /proc that leads out of the container".into(),
        _ => io::Error::from(errno).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_fragment_with_the_reason() {
        let failure = Failure::errno("write /app/x")(Errno::ROFS);
        assert_eq!(failure.kind, ErrorKind::ReadOnly);
        assert_eq!(failure.to_string(), "cannot write /app/x: Read-only file system (os error 30)");
    }
}
