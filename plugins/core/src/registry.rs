//! Image registries: finding the one that a cluster has (KEP-1755), and pushing
//! images to it (<https://github.com/opencontainers/distribution-spec>).

mod endpoint;
mod exchange;
mod hosting;
mod push;
mod retry;

pub use hosting::{HOSTING_NAME, HOSTING_NAMESPACE, Hosting, hosting, publish};
pub use push::{Pushed, missing_bytes, push, wait_until_serving};

use crate::error::CommandError;
use std::io;
use std::path::PathBuf;

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Not `HOST` or `HOST:PORT`.
    #[error("{registry:?} is not the address of a registry")]
    Address {
        /// What was given.
        registry: String,
    },
    /// Nobody answers, or the connection broke, several times in a row.
    #[error("could not {doing} at {registry} ({attempts} attempts)")]
    Unreachable {
        /// The registry.
        registry: String,
        /// What was being done.
        doing: String,
        /// How often it was tried.
        attempts: usize,
        /// What came of it the last time.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It refuses, or keeps failing.
    #[error("registry {registry} refused to {doing}: {status}{}", said(message))]
    Refused {
        /// The registry.
        registry: String,
        /// What was being done.
        doing: String,
        /// The HTTP status.
        status: u16,
        /// Its own words, which may be none.
        message: String,
    },
    /// It answers something that a registry doesn't.
    #[error("{registry} does not answer like a registry: {reason}")]
    NotARegistry {
        /// The registry.
        registry: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A layer's file can't be read.
    #[error("could not read layer {}", path.display())]
    Layer {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

impl From<RegistryError> for CommandError {
    fn from(error: RegistryError) -> Self {
        let hint = match &error {
            RegistryError::Address { .. } => "name a registry as HOST or HOST:PORT, such as localhost:5001",
            RegistryError::Unreachable { .. } => "is the registry running? see `kubectl devenv doctor`",
            RegistryError::Refused { status: 401 | 403, .. } => "registries that ask for credentials are not supported yet",
            RegistryError::Refused { .. } => "see the registry's log, then run the command again",
            RegistryError::NotARegistry { .. } => "check the host and port",
            RegistryError::Layer { .. } => "run the command again; the layer is made anew",
        };
        let message = error.to_string();
        let command = match error {
            RegistryError::Unreachable { source, .. } => Self::new(message).caused_by(source),
            RegistryError::Layer { source, .. } => Self::new(message).caused_by(source),
            _ => Self::new(message),
        };
        command.with_hint(hint)
    }
}

#[cfg(test)]
mod tests;
