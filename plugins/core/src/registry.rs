//! Image registries: finding the one that a cluster has (KEP-1755), pushing images
//! to it and pulling bases (<https://github.com/opencontainers/distribution-spec>).
//!
//! `push` sends an image by way of `upload` (one blob), both by `exchange` (one
//! question, in several attempts as `retry` has it), which asks `auth` for what
//! goes along and `transport` for a connection. The code is devloop's own and no
//! library's because layers are files that are streamed, in parts where an
//! upload was cut, whatever their size.

mod access;
mod auth;
mod credentials;
mod endpoint;
mod exchange;
mod hosting;
mod pull;
mod push;
mod retry;
mod tls;
mod transport;
mod upload;

pub use access::Access;
pub use hosting::{HOSTING_NAME, HOSTING_NAMESPACE, Hosting, hosting, publish};
pub(crate) use pull::Repository;
pub use push::{PushOptions, Pushed, missing_bytes, push, push_with, wait_until_serving};
pub(crate) use tls::client_config;

use crate::error::CommandError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why an image could not be pushed or pulled.
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
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// What it stored, or what it was sent, is not what was meant.
    #[error("{what} is {found} instead of {expected} at registry {registry}")]
    DigestMismatch {
        /// The registry.
        registry: String,
        /// What was sent.
        what: String,
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// Docker's configuration or a credential helper fails.
    #[error("could not get the credentials for registry {registry}: {reason}")]
    Credentials {
        /// The registry.
        registry: String,
        /// What is wrong; no secret is in it.
        reason: String,
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

/// What a builder of images is told about who pulls base images.
pub(crate) struct Login {
    /// Empty for a token.
    pub(crate) username: String,
    pub(crate) secret: String,
}

/// The credentials for a registry that `docker login` has left, if there are any.
///
/// # Errors
/// When Docker's configuration can't be read or a credential helper fails.
pub(crate) async fn login(docker_config: Option<&Path>, host: &str) -> Result<Option<Login>, RegistryError> {
    use credentials::Credential;
    Ok(credentials::find(docker_config, host).await?.and_then(|credential| match credential {
        Credential::Password { username, secret } => Some(Login { username, secret }),
        Credential::Identity(secret) => Some(Login { username: String::new(), secret }),
        // It is for the registry alone, and no builder can be given it.
        Credential::Registry(_) => None,
    }))
}

/// The registry that an image is pulled from: Docker Hub where its name has none.
pub(crate) fn host_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => endpoint::DOCKER_HUB,
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

impl From<RegistryError> for CommandError {
    fn from(error: RegistryError) -> Self {
        let hint: &str = match &error {
            RegistryError::Address { .. } => "name a registry as HOST or HOST:PORT, such as localhost:5001",
            // Certificates are mentioned where there may be some.
            RegistryError::Unreachable { source, registry, .. } if format!("{source:?}").contains("InvalidCertificate") => {
                &format!("put its authority into /etc/docker/certs.d/{registry}/ca.crt")
            }
            RegistryError::Unreachable { source, registry, .. } if format!("{source:?}").contains("InvalidContentType") => {
                &format!("it speaks without encryption; allow that with --insecure-registry {registry}")
            }
            RegistryError::Unreachable { .. } => "is the registry running? see `kubectl devenv doctor`",
            RegistryError::Refused { status: 401 | 403, registry, .. } => {
                &format!("log in with `docker login {registry}`, as somebody who may push there")
            }
            RegistryError::Refused { status: 429, .. } => "it is asked too often; run the command again later",
            RegistryError::Refused { .. } => "see the registry's log, then run the command again",
            RegistryError::DigestMismatch { .. } => "run the command again; if it happens again, the disk or the registry is damaged",
            RegistryError::Credentials { registry, .. } => &format!("try `docker login {registry}`"),
            RegistryError::NotARegistry { .. } => "check the host and port",
            RegistryError::Layer { .. } => "run the command again; the layer is made anew",
        };
        let (message, hint) = (error.to_string(), hint.to_owned());
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
