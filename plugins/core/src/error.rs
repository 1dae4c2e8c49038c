//! The one error type that a command ends with, and how it is printed.
//!
//! Modules define their own typed errors; a command turns them into a
//! [`CommandError`] with what it was doing ([`ErrorContext::context`]) and what
//! the user can do next ([`ErrorHint::hint`]).

use std::error::Error;
use std::fmt;

/// What a command returns.
pub type Result<T, E = CommandError> = std::result::Result<T, E>;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Exit code 0.
    Success,
    /// Exit code 1: the work failed.
    Failure,
    /// Exit code 2: the request itself was wrong.
    Usage,
    /// The exit code of a remote command, passed through.
    Code(u8),
    /// Ended by SIGINT: the process raises it again, so that a shell sees 130.
    Interrupted,
}

impl ExitStatus {
    /// The number a shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Code(code) => code,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command failed: a message, its causes, and what to do about it.
///
/// Messages are fragments without a final period; hints are whole actions.
#[derive(Debug)]
pub struct CommandError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync + 'static>>,
    hints: Vec<String>,
    status: ExitStatus,
}

impl CommandError {
    /// A failure (exit code 1) that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, hints: Vec::new(), status: ExitStatus::Failure }
    }

    /// A request that can't be carried out as it was made (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { status: ExitStatus::Usage, ..Self::new(message) }
    }

    /// The user ended the command with Ctrl-C.
    pub fn interrupted() -> Self {
        Self { status: ExitStatus::Interrupted, ..Self::new("interrupted") }
    }

    /// Adds the error behind this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync + 'static>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what the user can do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// How the process should end.
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// What the user can do, this error's own first, then those of its causes.
    pub fn hints(&self) -> Vec<&str> {
        let mut hints: Vec<&str> = Vec::new();
        let mut current: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = current {
            if let Some(command) = error.downcast_ref::<CommandError>() {
                for hint in &command.hints {
                    if !hints.contains(&hint.as_str()) {
                        hints.push(hint);
                    }
                }
            }
            current = error.source();
        }
        hints
    }

    /// The messages from the outermost to the root cause, without a message
    /// that the one before it already ends with.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.message.clone()];
        let mut current = self.source();
        while let Some(error) = current {
            let message = error.to_string();
            if !chain.last().is_some_and(|last| last.ends_with(&message)) {
                chain.push(message);
            }
            current = error.source();
        }
        chain
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Error for CommandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// Turns any error into a [`CommandError`] with what was being done.
pub trait ErrorContext<T> {
    /// Says what failed; the error becomes the cause.
    fn context(self, message: impl Into<String>) -> Result<T>;
    /// Like [`ErrorContext::context`], with a message made only on failure.
    fn with_context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync + 'static>>> ErrorContext<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|source| promote(message.into(), source.into()))
    }

    fn with_context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| promote(message(), source.into()))
    }
}

/// Keeps the status of a wrapped command error: context around Ctrl-C is still
/// Ctrl-C, and context around a usage error still exits with 2.
fn promote(message: String, source: Box<dyn Error + Send + Sync>) -> CommandError {
    let status = source.downcast_ref::<CommandError>().map_or(ExitStatus::Failure, |inner| inner.status);
    CommandError { message, source: Some(source), hints: Vec::new(), status }
}

/// Adds a hint to a failed result.
pub trait ErrorHint<T> {
    /// Says what the user can do about the failure.
    fn hint(self, hint: impl Into<String>) -> Result<T>;
}

impl<T> ErrorHint<T> for Result<T> {
    fn hint(self, hint: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.with_hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_lists_causes_once_and_hints_from_every_level() {
        let root = CommandError::new("port 6443 is in use").with_hint("choose another with --api-port");
        let error = Err::<(), _>(root).context("could not start the API proxy").unwrap_err().with_hint("run `kubectl devenv status`");
        assert_eq!(error.chain(), ["could not start the API proxy", "port 6443 is in use"]);
        assert_eq!(error.hints(), ["run `kubectl devenv status`", "choose another with --api-port"]);
    }

    #[test]
    fn context_keeps_the_status() {
        let error = Err::<(), _>(CommandError::interrupted()).context("waiting").unwrap_err();
        assert_eq!(error.status().code(), 130);
        let error = Err::<(), _>(std::io::Error::other("x")).context("reading").unwrap_err();
        assert_eq!(error.status().code(), 1);
    }
}
