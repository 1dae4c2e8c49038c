//! The two JSON documents of an image: configuration and manifest.

use super::Layer;
use super::layer::digest;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a process in the image gets unless the pod says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) user: Option<String>,
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) workdir: Option<String>,
    pub(super) ports: Vec<u16>,
    /// Seconds since 1970.
    pub(super) created: i64,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// `SOURCE_DATE_EPOCH` (<https://reproducible-builds.org/specs/source-date-epoch/>).
pub(super) fn source_date(variable: Option<&str>) -> i64 {
    variable.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Configuration, manifest and the manifest's digest. Pure.
pub(super) fn documents(architecture: &str, settings: &Settings, layers: &[Layer]) -> (Vec<u8>, Vec<u8>, String) {
    let mut env = settings.env.clone();
    env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    let created = jiff::Timestamp::from_second(settings.created).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
    let config = Config {
        architecture,
        os: "linux",
        created,
        config: Process {
            user: settings.user.as_deref(),
            env: env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint: &settings.entrypoint,
            cmd: &settings.cmd,
            working_dir: settings.workdir.as_deref(),
            exposed_ports: settings.ports.iter().map(|port| (format!("{port}/tcp"), Empty {})).collect(),
        },
        rootfs: RootFs { kind: "layers", diff_ids: layers.iter().map(|layer| layer.digest.as_str()).collect() },
    };
    let config = to_json(&config);
    let manifest = manifest_of(&config, layers.iter().map(|layer| (LAYER_TYPE, layer.digest.as_str(), layer.size)));
    let manifest_digest = digest(&manifest);
    (config, manifest, manifest_digest)
}

/// The manifest of a configuration and its layers: media type, digest and size
/// of each.
pub(crate) fn manifest_of<'a>(config: &[u8], layers: impl IntoIterator<Item = (&'a str, &'a str, u64)>) -> Vec<u8> {
    let layer = |(media_type, digest, size): (&'a str, &str, u64)| Descriptor { media_type, digest: digest.to_owned(), size };
    to_json(&Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        config: Descriptor { media_type: CONFIG_TYPE, digest: digest(config), size: config.len() as u64 },
        layers: layers.into_iter().map(layer).collect(),
    })
}

/// Structs of strings and numbers are always JSON.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[derive(Serialize)]
struct Config<'a> {
    created: String,
    architecture: &'a str,
    os: &'a str,
    config: Process<'a>,
    rootfs: RootFs<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Process<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Empty>,
    env: Vec<String>,
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    diff_ids: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u8,
    media_type: &'a str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
}
