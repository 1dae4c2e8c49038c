//! Where the Docker engine is, by the rules of the `docker` program
//! (<https://docs.docker.com/reference/cli/docker/#environment-variables> and
//! <https://docs.docker.com/engine/manage-resources/contexts/>).

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// An address of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket on this machine.
    Unix(PathBuf),
    /// Plain HTTP, `HOST:PORT`.
    Http(String),
    /// HTTP over TLS.
    Https {
        /// `HOST:PORT`.
        address: String,
        /// The folder of `ca.pem`, `cert.pem` and `key.pem`.
        certificates: PathBuf,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Http(address) | Self::Https { address, .. } => write!(formatter, "tcp://{address}"),
        }
    }
}

/// Why the user's settings lead to no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A scheme that is not spoken.
    #[error("DOCKER_HOST or the Docker context says {host:?}; unix://, tcp://, http:// and https:// are understood")]
    Unsupported {
        /// The address as configured.
        host: String,
    },
    /// A context that is chosen and isn't there.
    #[error("Docker context {name:?} is chosen, but there is no such context (`docker context ls`)")]
    NoContext {
        /// Its name.
        name: String,
    },
}

/// What the rules look at.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    read: &'a dyn Fn(&Path) -> Option<Vec<u8>>,
    exists: &'a dyn Fn(&Path) -> bool,
}

/// The endpoints to try, in order: one, when the user has chosen; else the
/// usual sockets that are there.
pub(super) fn from_environment() -> Result<Vec<Endpoint>, EndpointError> {
    find(&Surroundings { variable: &|name| std::env::var_os(name), read: &|path| std::fs::read(path).ok(), exists: &|path| path.exists() })
}

fn find(surroundings: &Surroundings<'_>) -> Result<Vec<Endpoint>, EndpointError> {
    let text = |name: &str| (surroundings.variable)(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
    let path = |name: &str| text(name).map(PathBuf::from);
    let config = path("DOCKER_CONFIG").or_else(|| path("HOME").map(|home| home.join(".docker")));
    if let Some(host) = text("DOCKER_HOST") {
        let verify = text("DOCKER_TLS_VERIFY").is_some();
        let certificates = path("DOCKER_CERT_PATH").or_else(|| config.clone()).filter(|_| verify);
        return Ok(vec![parse(&host, certificates)?]);
    }
    if let Some(config) = &config {
        let chosen = text("DOCKER_CONTEXT").or_else(|| current_context(surroundings, config));
        if let Some(name) = chosen.filter(|name| name != "default") {
            return Ok(vec![of_context(surroundings, config, &name)?]);
        }
    }
    let runtime = path("XDG_RUNTIME_DIR");
    let home = path("HOME");
    let below = |folder: &Option<PathBuf>, name: &str| folder.as_ref().map(|folder| folder.join(name));
    let usual = [
        Some(PathBuf::from("/var/run/docker.sock")),
        below(&runtime, "docker.sock"),
        below(&home, ".docker/run/docker.sock"),
        below(&home, ".docker/desktop/docker.sock"),
        below(&runtime, "podman/podman.sock"),
        Some(PathBuf::from("/run/podman/podman.sock")),
    ];
    let there: Vec<Endpoint> = usual.iter().flatten().filter(|path| (surroundings.exists)(path)).cloned().map(Endpoint::Unix).collect();
    if there.is_empty() {
        return Ok(vec![Endpoint::Unix("/var/run/docker.sock".into())]);
    }
    Ok(there)
}

fn parse(host: &str, certificates: Option<PathBuf>) -> Result<Endpoint, EndpointError> {
    let (scheme, rest) = host.split_once("://").ok_or_else(|| EndpointError::Unsupported { host: host.to_owned() })?;
    let address = || rest.trim_end_matches('/').to_owned();
    match (scheme, certificates) {
        ("unix", _) if rest.starts_with('/') => Ok(Endpoint::Unix(rest.into())),
        ("tcp" | "https", Some(certificates)) => Ok(Endpoint::Https { address: address(), certificates }),
        ("tcp" | "http", _) => Ok(Endpoint::Http(address())),
        _ => Err(EndpointError::Unsupported { host: host.to_owned() }),
    }
}

fn current_context(surroundings: &Surroundings<'_>, config: &Path) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        current_context: Option<String>,
    }
    let content = (surroundings.read)(&config.join("config.json"))?;
    serde_json::from_slice::<Config>(&content).ok()?.current_context.filter(|name| !name.is_empty())
}

/// A context's metadata is in a folder named by the SHA-256 of its name.
fn of_context(surroundings: &Surroundings<'_>, config: &Path, name: &str) -> Result<Endpoint, EndpointError> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "Endpoints")]
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Docker,
    }
    #[derive(Deserialize)]
    struct Docker {
        #[serde(rename = "Host")]
        host: String,
    }
    let id = format!("{:x}", Sha256::digest(name.as_bytes()));
    let missing = || EndpointError::NoContext { name: name.to_owned() };
    let content = (surroundings.read)(&config.join("contexts/meta").join(&id).join("meta.json")).ok_or_else(missing)?;
    let meta: Meta = serde_json::from_slice(&content).map_err(|_| missing())?;
    let certificates = config.join("contexts/tls").join(&id).join("docker");
    let certificates = (surroundings.exists)(&certificates.join("key.pem")).then_some(certificates);
    parse(&meta.endpoints.docker.host, certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://192.0.2.1:2376","SkipTLSVerify":false}}}"#;

    /// Finds with these variables, and files by the end of their path.
    fn found(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Vec<Endpoint>, EndpointError> {
        let content = |path: &Path| files.iter().find(|(end, _)| path.ends_with(end)).map(|(_, content)| content.as_bytes().to_vec());
        find(&Surroundings {
            variable: &|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()),
            read: &content,
            exists: &|path| content(path).is_some(),
        })
    }

    #[test]
    fn docker_host_comes_first_and_names_its_scheme() {
        let of = |host: &str| found(&[("DOCKER_HOST", host), ("HOME", "/home/dev")], &[("docker.sock", "")]);
        assert_eq!(of("unix:///run/x.sock").unwrap(), [Endpoint::Unix("/run/x.sock".into())]);
        assert_eq!(of("tcp://127.0.0.1:2375/").unwrap(), [Endpoint::Http("127.0.0.1:2375".into())]);
        for bad in ["ssh://host", "unix://", "host:2375", "npipe:////./pipe/docker"] {
            assert_eq!(of(bad), Err(EndpointError::Unsupported { host: bad.into() }));
        }
        let verified = found(&[("DOCKER_HOST", "tcp://h:2376"), ("DOCKER_TLS_VERIFY", "1"), ("HOME", "/home/dev")], &[]).unwrap();
        assert_eq!(verified, [Endpoint::Https { address: "h:2376".into(), certificates: "/home/dev/.docker".into() }]);
    }

    #[test]
    fn a_context_is_found_by_the_hash_of_its_name() {
        let hash = format!("{:x}", Sha256::digest(b"far"));
        let meta = format!("meta/{hash}/meta.json");
        let chosen = [("config.json", r#"{"currentContext":"far"}"#), (meta.as_str(), META)];
        assert_eq!(found(&[("HOME", "/h")], &chosen).unwrap(), [Endpoint::Http("192.0.2.1:2376".into())]);
        let missing = found(&[("HOME", "/h"), ("DOCKER_CONTEXT", "near")], &chosen);
        assert_eq!(missing, Err(EndpointError::NoContext { name: "near".into() }));
        let default = found(&[("HOME", "/h"), ("DOCKER_CONTEXT", "default")], &chosen).unwrap();
        assert_eq!(default, [Endpoint::Unix("/var/run/docker.sock".into())]);
    }

    #[test]
    fn without_a_choice_the_usual_sockets_that_are_there_are_tried() {
        let home = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/1")];
        let sockets = [("run/docker.sock", ""), ("podman/podman.sock", "")];
        let found = found(&home, &sockets).unwrap();
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "unix:///var/run/docker.sock",
                "unix:///h/.docker/run/docker.sock",
                "unix:///run/user/1/podman/podman.sock",
                "unix:///run/podman/podman.sock"
            ]
        );
    }
}
