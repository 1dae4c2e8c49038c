//! The Docker engine, over its API: found the way the `docker` program finds it.
//!
//! Everything that speaks to an engine goes through [`Engine`]; any engine that
//! serves Docker's API will do, podman's socket included.

mod endpoint;
mod exec;
mod survey;
mod upgrade;

pub use endpoint::{Endpoint, EndpointError};
pub use survey::{Survey, is_kind_node_image};
pub(crate) use upgrade::UpgradeError;

use crate::error::CommandError;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use std::time::Duration;

/// The oldest API that is spoken to: Docker 20.10 (December 2020).
pub const OLDEST_API: (usize, usize) = (1, 41);

/// How long an engine may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long any one request may take, in seconds. Pulling and loading images
/// answer at once and stream, so that this does not limit them.
const REQUEST_SECONDS: u64 = 120;

/// An engine that has answered.
#[derive(Clone)]
pub struct Engine {
    docker: Docker,
    endpoint: Endpoint,
    version: String,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("endpoint", &self.endpoint).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Why there is no engine to work with.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// What the user has configured can't be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Nobody listens.
    #[error("no Docker engine answers at {}", tried.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))]
    NoEngine {
        /// Where was asked.
        tried: Vec<Endpoint>,
        /// What the last of them said.
        source: Box<bollard::errors::Error>,
    },
    /// It speaks an API that is too old.
    #[error("the Docker engine at {endpoint} is too old: its API is {found}, 1.41 (Docker 20.10) is needed")]
    TooOld {
        /// Where it is.
        endpoint: Endpoint,
        /// Its API version.
        found: String,
    },
    /// A request failed.
    #[error("could not {doing}")]
    Request {
        /// What was asked for.
        doing: String,
        /// What came of it.
        source: Box<bollard::errors::Error>,
    },
}

impl DockerError {
    /// Wraps a failed request.
    pub fn request(doing: impl Into<String>) -> impl FnOnce(bollard::errors::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Request { doing, source: Box::new(source) }
    }

    /// The HTTP status that the engine refused with, if it did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
                _ => None,
            },
            _ => None,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Endpoint(_) => None,
            Self::NoEngine { .. } => Some("start Docker (`systemctl start docker`), or name another engine with DOCKER_HOST"),
            Self::TooOld { .. } => Some("install Docker 20.10 or newer"),
            Self::Request { .. } if self.status().is_none() => Some("did the engine stop? see `docker info`"),
            Self::Request { .. } => None,
        }
    }
}

impl From<DockerError> for CommandError {
    fn from(error: DockerError) -> Self {
        let hint = error.hint();
        let message = error.to_string();
        let command = match error {
            DockerError::Endpoint(_) | DockerError::TooOld { .. } => Self::new(message),
            DockerError::NoEngine { source, .. } => Self::new(message).caused_by(source),
            // The engine's own sentence, without the structure around it.
            DockerError::Request { source, .. } => match *source {
                bollard::errors::Error::DockerResponseServerError { message: reason, .. } => {
                    Self::new(message).caused_by(Self::new(reason))
                }
                other => Self::new(message).caused_by(other),
            },
        };
        match hint {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}

impl Engine {
    /// Connects to the engine that `docker` would use: `DOCKER_HOST`, else the
    /// Docker context (`DOCKER_CONTEXT`, else the one chosen in
    /// `~/.docker/config.json`), else the first of the usual sockets that
    /// answers: the system's, a rootless engine's, Docker Desktop's, podman's.
    ///
    /// # Errors
    /// [`DockerError`]; within seconds.
    pub async fn connect() -> Result<Self, DockerError> {
        let endpoints = endpoint::from_environment()?;
        let mut refused = None;
        for endpoint in &endpoints {
            match Self::at(endpoint.clone()).await {
                Ok(engine) => return Ok(engine),
                Err(DockerError::Request { source, .. }) => refused = Some(source),
                Err(error) => return Err(error),
            }
        }
        let source = refused.unwrap_or_else(|| Box::new(std::io::Error::from(std::io::ErrorKind::NotFound).into()));
        Err(DockerError::NoEngine { tried: endpoints, source })
    }

    async fn at(endpoint: Endpoint) -> Result<Self, DockerError> {
        let reach = || format!("reach the Docker engine at {endpoint}");
        let docker = open(&endpoint).map_err(DockerError::request(reach()))?;
        let asked = async {
            let docker = docker.negotiate_version().await?;
            let version = docker.version().await?;
            Ok::<_, bollard::errors::Error>((docker, version))
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(bollard::errors::Error::RequestTimeoutError));
        let (docker, version) = answer.map_err(DockerError::request(reach()))?;
        let ClientVersion { major_version, minor_version } = docker.client_version();
        if (major_version, minor_version) < OLDEST_API {
            return Err(DockerError::TooOld { endpoint, found: format!("{major_version}.{minor_version}") });
        }
        Ok(Self { docker, endpoint, version: version.version.unwrap_or_default() })
    }

    /// The library's client, its version negotiated.
    pub fn client(&self) -> &Docker {
        &self.docker
    }

    /// Where it was found.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its version, such as `20.10.24`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

fn open(endpoint: &Endpoint) -> Result<Docker, bollard::errors::Error> {
    match endpoint {
        Endpoint::Unix(path) => Docker::connect_with_unix(&path.display().to_string(), REQUEST_SECONDS, API_DEFAULT_VERSION),
        Endpoint::Http(address) => Docker::connect_with_http(address, REQUEST_SECONDS, API_DEFAULT_VERSION),
        Endpoint::Https { address, certificates } => Docker::connect_with_ssl(
            address,
            &certificates.join("key.pem"),
            &certificates.join("cert.pem"),
            &certificates.join("ca.pem"),
            REQUEST_SECONDS,
            API_DEFAULT_VERSION,
        ),
    }
}
