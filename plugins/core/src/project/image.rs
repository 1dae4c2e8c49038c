//! `image`: what a service's image holds.

use super::Base;
use super::parse::{image_name, image_path, inside_path, optional_container_path, optional_image_path, optional_signal};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a service's image holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSpec {
    /// Its name without registry and tag; manifests refer to it by this name.
    #[serde(deserialize_with = "image_name")]
    pub name: String,
    /// What it is built upon; nothing when absent.
    #[serde(default)]
    pub base: Base,
    /// `uid`, `uid:gid` or a name; the base's, else root, when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Program and first arguments; when empty the binary, else the base's.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Default further arguments.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute; the base's, else `/`, when absent.
    #[serde(default, deserialize_with = "optional_image_path")]
    pub workdir: Option<String>,
    /// Where the built binary goes, absolute; absent in an image of files only.
    #[serde(default, deserialize_with = "optional_container_path")]
    pub binary: Option<String>,
    /// What else goes in.
    #[serde(default)]
    pub files: Vec<FileMapping>,
    /// TCP ports that it listens on; documentation only, as in any image.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Labels, beside the base's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The signal that ends it, such as `SIGINT`; the base's, else SIGTERM, when
    /// absent.
    #[serde(default, deserialize_with = "optional_signal")]
    pub stop_signal: Option<String>,
    /// Whether the binary goes without its symbols, which are kept on this machine;
    /// it does when absent.
    #[serde(default)]
    pub strip: Option<bool>,
    /// Whether the image says what it is made of, in annotations of the OCI image
    /// specification: then it is another one for each commit.
    #[serde(default)]
    pub annotations: bool,
}

/// A file or folder of the project that goes into the image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMapping {
    /// Relative to the root.
    #[serde(deserialize_with = "inside_path")]
    pub from: PathBuf,
    /// Absolute in the image: of the file, or of the folder whose content it is.
    #[serde(deserialize_with = "image_path")]
    pub to: String,
}
