//! `build.dockerfile.builder`: who builds, as one text.

use super::parse::text;
use serde::Deserialize;
use serde::de::Deserializer;
use std::fmt;
use std::path::PathBuf;

/// The address of a BuildKit daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builder {
    /// `tcp://HOST:PORT[?certificates=FOLDER][&serverName=NAME]`
    Tcp {
        /// `HOST:PORT`.
        address: String,
        /// The folder of `ca.pem` and, where the daemon wants to know who asks,
        /// `cert.pem` and `key.pem`; without one, nothing is encrypted. Relative to
        /// the root, and it may lie outside, as secrets better do.
        certificates: Option<PathBuf>,
        /// The name in the daemon's certificate; the host when absent.
        server_name: Option<String>,
    },
    /// `unix:///PATH`
    Unix(PathBuf),
    /// `ssh://[USER@]HOST[:PORT]`: on a machine that `ssh` gets to, with `buildctl` beside
    /// it.
    Ssh {
        /// `[USER@]HOST`.
        destination: String,
        /// What ssh's own settings say when absent.
        port: Option<u16>,
    },
    /// `docker-container://NAME`: in a container of the Docker engine.
    Container(String),
    /// `kube-pod://NAME[?namespace=NS][&container=NAME]`: in a pod of the cluster.
    Pod {
        /// The pod's name.
        name: String,
        /// Its namespace; the current one when absent.
        namespace: Option<String>,
        /// The container; its first when absent.
        container: Option<String>,
    },
    /// `buildx://NAME`: one that `docker buildx create` has made, with what Docker's
    /// configuration says of it.
    Buildx(String),
}

impl fmt::Display for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, certificates, server_name } => {
                write!(formatter, "tcp://{address}")?;
                let certificates = certificates.as_ref().map(|folder| folder.display().to_string());
                settings(formatter, &[("certificates", certificates.as_ref()), ("serverName", server_name.as_ref())])
            }
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Ssh { destination, port: Some(port) } => write!(formatter, "ssh://{destination}:{port}"),
            Self::Ssh { destination, port: None } => write!(formatter, "ssh://{destination}"),
            Self::Container(name) => write!(formatter, "docker-container://{name}"),
            Self::Pod { name, namespace, container } => {
                write!(formatter, "kube-pod://{name}")?;
                settings(formatter, &[("namespace", namespace.as_ref()), ("container", container.as_ref())])
            }
            Self::Buildx(name) => write!(formatter, "buildx://{name}"),
        }
    }
}

fn settings(formatter: &mut fmt::Formatter<'_>, all: &[(&str, Option<&String>)]) -> fmt::Result {
    let given = all.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    for (mark, (key, value)) in std::iter::once('?').chain(std::iter::repeat('&')).zip(given) {
        write!(formatter, "{mark}{key}={value}")?;
    }
    Ok(())
}

impl std::str::FromStr for Builder {
    type Err = String;
    fn from_str(address: &str) -> Result<Self, String> {
        const KNOWN: &str = "tcp://HOST:PORT[?certificates=FOLDER], unix:///PATH, ssh://[USER@]HOST[:PORT], docker-container://NAME, \
                             kube-pod://NAME[?namespace=NAMESPACE] or buildx://NAME";
        let unknown = || format!("{address:?} is no address of a BuildKit daemon: {KNOWN}");
        let (scheme, rest) = address.split_once("://").ok_or_else(unknown)?;
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let (place, given) = if scheme == "unix" { (rest, "") } else { rest.split_once('?').unwrap_or((rest, "")) };
        let given: Vec<(&str, &str)> = given
            .split('&')
            .filter(|setting| !setting.is_empty())
            .map(|setting| setting.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or_else(unknown))
            .collect::<Result<_, _>>()?;
        let only = |known: &[&str]| if given.iter().all(|(key, _)| known.contains(key)) { Ok(()) } else { Err(unknown()) };
        let setting = |key: &str| given.iter().find(|(known, _)| *known == key).map(|(_, value)| (*value).to_owned());
        match scheme {
            "tcp" => {
                only(&["certificates", "serverName"])?;
                let (host, port) = place.rsplit_once(':').ok_or_else(unknown)?;
                if host.is_empty() || host.contains(['/', '@', ' ']) || port.parse::<u16>().is_err() {
                    return Err(unknown());
                }
                let (certificates, server_name) = (setting("certificates").map(PathBuf::from), setting("serverName"));
                if server_name.is_some() && certificates.is_none() {
                    return Err(format!("{address:?} names a server without saying whom to trust; add certificates=FOLDER"));
                }
                Ok(Self::Tcp { address: place.to_owned(), certificates, server_name })
            }
            "unix" if place.starts_with('/') => Ok(Self::Unix(place.into())),
            "ssh" => {
                only(&[])?;
                let (destination, port) = match place.rsplit_once(':') {
                    Some((destination, port)) => (destination, Some(port.parse().map_err(|_| unknown())?)),
                    None => (place, None),
                };
                let (user, host) = destination.split_once('@').map_or((None, destination), |(user, host)| (Some(user), host));
                // What begins with a dash would be an option of ssh.
                if destination.starts_with('-') || !is_name(host) || !user.is_none_or(is_name) {
                    return Err(unknown());
                }
                Ok(Self::Ssh { destination: destination.to_owned(), port })
            }
            "docker-container" if is_name(place) => only(&[]).map(|()| Self::Container(place.to_owned())),
            "buildx" if is_name(place) => only(&[]).map(|()| Self::Buildx(place.to_owned())),
            "kube-pod" if is_name(place) && given.iter().all(|(_, value)| is_name(value)) => {
                only(&["namespace", "container"])?;
                Ok(Self::Pod { name: place.to_owned(), namespace: setting("namespace"), container: setting("container") })
            }
            _ => Err(unknown()),
        }
    }
}

impl<'de> Deserialize<'de> for Builder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |address| address.parse())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for address in [
            "tcp://bk.example:1234",
            "tcp://[::1]:1234",
            "tcp://bk.example:1234?certificates=/etc/bk/tls&serverName=bk",
            "tcp://bk.example:1234?certificates=../tls",
            "unix:///run/bk.sock",
            "ssh://me@bk.example:2222",
            "ssh://bk",
            "docker-container://buildx_0",
            "kube-pod://a?namespace=b&container=c",
            "buildx://far",
        ] {
            assert_eq!(address.parse::<Builder>().unwrap().to_string(), address);
        }
        for address in [
            "bk:1234",
            "tcp://bk",
            "tcp://a/b:1",
            "tcp://a:1?certificates=",
            "tcp://a:1?serverName=b",
            "tcp://a:1?cert=b",
            "unix://run",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a b",
            "ssh://me@host:port",
            "docker-container://",
            "docker-container://a?b=c",
            "kube-pod://a?x=y",
            "kube-pod://?namespace=b",
            "buildx://",
        ] {
            address.parse::<Builder>().unwrap_err();
        }
    }
}
