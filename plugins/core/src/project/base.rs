//! What a service's image is built upon, as one text.

use super::parse::{normalize_inside, text};
use crate::image::reference;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// What an image is built upon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// `scratch`: nothing at all.
    #[default]
    Scratch,
    /// `oci:PATH`: an image in a file or folder of the project, as an OCI layout or
    /// by `docker save`; relative to the root.
    File(PathBuf),
    /// `docker:NAME`: an image of this machine's Docker engine.
    Docker(String),
    /// `cluster:NAME`: an image that a node of the cluster has; spelled out.
    Cluster(String),
    /// Any other name: an image of a registry; spelled out.
    Registry(String),
}

impl Base {
    fn parse(given: &str) -> Result<Self, String> {
        let named = |name: &str| reference::normalize(name).map_err(|reason| format!("{name:?} is not the name of an image: {reason}"));
        match given.split_once(':') {
            _ if given == "scratch" => Ok(Self::Scratch),
            Some(("oci", path)) if !path.is_empty() => normalize_inside(Path::new(path)).map(Self::File),
            Some(("docker", name)) => named(name).map(|_| Self::Docker(name.to_owned())),
            Some(("cluster", name)) => named(name).map(Self::Cluster),
            _ => named(given).map(Self::Registry),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scratch => formatter.write_str("scratch"),
            Self::File(path) => write!(formatter, "oci:{}", path.display()),
            Self::Docker(name) => write!(formatter, "docker:{name}"),
            Self::Cluster(name) => write!(formatter, "cluster:{name}"),
            Self::Registry(name) => formatter.write_str(name),
        }
    }
}

impl Serialize for Base {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Base {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, Self::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_one_text_that_reads_back() {
        for (text, base) in [
            ("scratch", Base::Scratch),
            ("oci:images/node.tar", Base::File("images/node.tar".into())),
            ("docker:node:22", Base::Docker("node:22".into())),
            ("cluster:docker.io/library/node:22", Base::Cluster("docker.io/library/node:22".into())),
            ("localhost:5001/node:22", Base::Registry("localhost:5001/node:22".into())),
            ("docker.io/library/debian:12", Base::Registry("docker.io/library/debian:12".into())),
        ] {
            assert_eq!(Base::parse(text).unwrap(), base, "{text}");
            assert_eq!(base.to_string(), text);
        }
        assert_eq!(Base::parse("debian").unwrap().to_string(), "docker.io/library/debian:latest");
        for bad in ["", "oci:", "oci:../x", "docker:", "cluster:A B", "Debian", "oci:/x"] {
            assert!(Base::parse(bad).is_err(), "{bad}");
        }
    }
}
