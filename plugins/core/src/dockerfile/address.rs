//! Where a builder is reached, and what Docker's configuration says of those that
//! `docker buildx create` has made.

use super::link::Trust;
use crate::project::Builder;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The place of a BuildKit daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `HOST:PORT`.
    Tcp(String),
    Tls(String, Trust),
    Unix(PathBuf),
    /// A machine, by the user's own ssh.
    Ssh {
        destination: String,
        port: Option<u16>,
    },
    /// A container of the Docker engine.
    Container(String),
    Pod {
        name: String,
        namespace: Option<String>,
        container: Option<String>,
    },
}

impl Address {
    /// `root` is what paths are relative to, `instances` where buildx describes its
    /// builders.
    ///
    /// # Errors
    /// Why there is no such place.
    pub(super) fn of(builder: &Builder, root: &Path, instances: &Path) -> Result<Self, String> {
        Ok(match builder.clone() {
            Builder::Tcp { address, certificates: None, .. } => Self::Tcp(address),
            Builder::Tcp { address, certificates: Some(folder), server_name } => {
                Self::Tls(address, Trust::in_folder(&root.join(folder), server_name))
            }
            Builder::Unix(path) => Self::Unix(path),
            Builder::Ssh { destination, port } => Self::Ssh { destination, port },
            Builder::Container(name) => Self::Container(name),
            Builder::Pod { name, namespace, container } => Self::Pod { name, namespace, container },
            Builder::Buildx(name) => {
                let text = std::fs::read_to_string(instances.join(&name))
                    .map_err(|error| format!("buildx has no builder {name:?} (`docker buildx ls`): {error}"))?;
                of_instance(&name, &text)?
            }
        })
    }
}

/// As buildx writes it (`~/.docker/buildx/instances/NAME`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(default)]
    driver: String,
    #[serde(default)]
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    name: String,
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    driver_opts: Option<BTreeMap<String, String>>,
}

/// The first of an instance's nodes. Pure.
fn of_instance(name: &str, text: &str) -> Result<Address, String> {
    let instance: Instance = serde_json::from_str(text).map_err(|error| format!("what buildx says of {name:?} can't be read: {error}"))?;
    let node = instance.nodes.into_iter().next().ok_or_else(|| format!("the buildx builder {name:?} has no node"))?;
    let options = node.driver_opts.unwrap_or_default();
    match instance.driver.as_str() {
        "docker-container" => Ok(Address::Container(format!("buildx_buildkit_{}", node.name))),
        "remote" => {
            let option = |key: &str| options.get(key).filter(|value| !value.is_empty());
            let own = option("cert").zip(option("key")).map(|(certificate, key)| (certificate.into(), key.into()));
            let trust =
                option("cacert").map(|authority| Trust { authority: authority.into(), own, server_name: option("servername").cloned() });
            match (node.endpoint.parse::<Builder>()?, trust) {
                (Builder::Tcp { address, .. }, Some(trust)) => Ok(Address::Tls(address, trust)),
                (Builder::Buildx(_), _) => Err(format!("the buildx builder {name:?} is at {}", node.endpoint)),
                (builder, _) => Address::of(&builder, Path::new("/"), Path::new("/")),
            }
        }
        other => Err(format!(
            "the buildx builder {name:?} has the driver {other:?}; those of docker-container and remote can be used, a pod by kube-pod://NAME"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_buildx_has_made_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            std::fs::write(folder.path().join("far"), text).unwrap();
            Address::of(&"buildx://far".parse().unwrap(), Path::new("/work"), folder.path())
        };
        let container = r#"{"Name":"far","Driver":"docker-container","Nodes":[{"Name":"far0","Endpoint":"unix:///var/run/docker.sock","Platforms":null,"DriverOpts":null,"Flags":null,"Files":null}],"Dynamic":false}"#;
        assert_eq!(of(container).unwrap(), Address::Container("buildx_buildkit_far0".into()));
        let remote = |options: &str| {
            format!(r#"{{"Driver":"remote","Nodes":[{{"Name":"far0","Endpoint":"tcp://bk.example:1234","DriverOpts":{options}}}]}}"#)
        };
        assert_eq!(of(&remote("{}")).unwrap(), Address::Tcp("bk.example:1234".into()));
        let trust = Trust { authority: "/c/ca.pem".into(), own: Some(("/c/a".into(), "/c/b".into())), server_name: Some("bk".into()) };
        let options = r#"{"cacert":"/c/ca.pem","cert":"/c/a","key":"/c/b","servername":"bk"}"#;
        assert_eq!(of(&remote(options)).unwrap(), Address::Tls("bk.example:1234".into(), trust));
        for bad in ["{", r#"{"Driver":"remote"}"#, r#"{"Driver":"kubernetes","Nodes":[{"Name":"a"}]}"#] {
            assert!(of(bad).unwrap_err().contains("far"), "{bad}");
        }
        let missing = Address::of(&"buildx://near".parse().unwrap(), Path::new("/work"), folder.path()).unwrap_err();
        assert!(missing.starts_with("buildx has no builder \"near\""), "{missing}");
    }

    #[test]
    fn certificates_are_found_from_the_project() {
        let root = tempfile::tempdir().unwrap();
        let found = || match Address::of(&"tcp://bk:1?certificates=tls".parse().unwrap(), root.path(), Path::new("/")).unwrap() {
            Address::Tls(_, trust) => trust,
            other => panic!("{other:?}"),
        };
        let folder = root.path().join("tls");
        assert_eq!(found(), Trust { authority: folder.join("ca.pem"), own: None, server_name: None });
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("cert.pem"), "").unwrap();
        assert_eq!(found().own, Some((folder.join("cert.pem"), folder.join("key.pem"))));
    }
}
