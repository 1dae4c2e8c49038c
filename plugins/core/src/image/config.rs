//! The two JSON documents of an image: configuration and manifest.

use super::base::{BaseImage, Process};
use super::blob::Layer;
use super::layer::digest;
use serde::Serialize;
use serde_json::{Value, json};
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
    pub(super) labels: BTreeMap<String, String>,
    pub(super) stop_signal: Option<String>,
    /// Of the manifest.
    pub(super) annotations: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(super) created: i64,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// `SOURCE_DATE_EPOCH` (<https://reproducible-builds.org/specs/source-date-epoch/>).
pub(super) fn source_date(variable: Option<&str>) -> Option<i64> {
    variable.and_then(|text| text.trim().parse().ok())
}

/// A time as the specification has it (RFC 3339).
pub(super) fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Configuration, manifest and the manifest's digest of an image whose lowest
/// layers are the base's. Pure.
pub(super) fn documents(architecture: &str, settings: &Settings, base: Option<&BaseImage>, layers: &[Layer]) -> (Vec<u8>, Vec<u8>, String) {
    let created = timestamp(settings.created);
    // A history tells of each layer, or it is none.
    let history = base.map(|base| base.config.history.clone()).filter(|history| !history.is_empty()).map(|mut history| {
        let own = layers.len() - base.map_or(0, |base| base.layers.len());
        history.extend((0..own).map(|_| json!({ "created": created, "created_by": "devloop" })));
        history
    });
    let config = Config {
        created,
        architecture,
        variant: base.and_then(|base| base.config.variant.as_deref()),
        os: "linux",
        config: process(settings, base),
        rootfs: RootFs { kind: "layers", diff_ids: layers.iter().map(|layer| layer.diff_id.as_str()).collect() },
        history,
    };
    let config = to_json(&config);
    let manifest = manifest(&config, described(layers), &settings.annotations);
    let manifest_digest = digest(&manifest);
    (config, manifest, manifest_digest)
}

/// What the image says, upon what its base says, as Docker joins them: variables,
/// labels, ports and volumes are added, an entry point of one's own resets the
/// arguments too (<https://docs.docker.com/reference/dockerfile/#entrypoint>).
fn process(settings: &Settings, base: Option<&BaseImage>) -> Process {
    let mut process = base.map(BaseImage::process).unwrap_or_default();
    let mut env = process.env.take().unwrap_or_default();
    for (name, value) in &settings.env {
        let entry = format!("{name}={value}");
        match env.iter_mut().find(|entry| entry.split('=').next() == Some(name)) {
            Some(inherited) => *inherited = entry,
            None => env.push(entry),
        }
    }
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if base.is_none() {
        env.sort();
    }
    process.env = Some(env);
    if !settings.entrypoint.is_empty() {
        process.entrypoint = Some(settings.entrypoint.clone());
        process.cmd = None;
    }
    if !settings.cmd.is_empty() {
        process.cmd = Some(settings.cmd.clone());
    }
    process.user = settings.user.clone().or(process.user);
    process.working_dir = settings.workdir.clone().or(process.working_dir);
    process.stop_signal = settings.stop_signal.clone().or(process.stop_signal);
    let ports = settings.ports.iter().map(|port| (format!("{port}/tcp"), json!({})));
    process.exposed_ports.get_or_insert_default().extend(ports);
    process.labels.get_or_insert_default().extend(settings.labels.clone());
    process
}

/// The manifest of a configuration and its layers: media type, digest and size
/// of each.
pub(crate) fn manifest_of<'a>(config: &[u8], layers: impl IntoIterator<Item = (&'a str, &'a str, u64)>) -> Vec<u8> {
    manifest(config, layers, &BTreeMap::new())
}

pub(super) fn described(layers: &[Layer]) -> impl Iterator<Item = (&str, &str, u64)> {
    layers.iter().map(|layer| (layer.media_type.as_str(), layer.digest.as_str(), layer.size))
}

fn manifest<'a>(
    config: &[u8],
    layers: impl IntoIterator<Item = (&'a str, &'a str, u64)>,
    annotations: &BTreeMap<String, String>,
) -> Vec<u8> {
    let layer = |(media_type, digest, size): (&'a str, &str, u64)| Descriptor { media_type, digest: digest.to_owned(), size };
    to_json(&Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        config: Descriptor { media_type: CONFIG_TYPE, digest: digest(config), size: config.len() as u64 },
        layers: layers.into_iter().map(layer).collect(),
        annotations,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    os: &'a str,
    config: Process,
    rootfs: RootFs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Value>>,
}

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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> BaseImage {
        let config = json!({
            "architecture": "arm64", "variant": "v8", "os": "linux",
            "config": {
                "Hostname": "", "AttachStdin": false, "Image": "sha256:x", "OnBuild": ["RUN x"], "User": "web",
                "Env": ["PATH=/opt/bin", "LANG=C"], "Entrypoint": ["/entry"], "Cmd": ["serve"], "WorkingDir": "/srv",
                "Labels": {"a": "base", "b": "base"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGQUIT",
                "Healthcheck": {"Test": ["CMD", "x"]},
            },
            "history": [{"created_by": "x"}],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:l"]},
        });
        let layer = Layer::uncompressed("sha256:l".into(), 3, "/x".into());
        BaseImage::new("base", &serde_json::to_vec(&config).unwrap(), vec![layer]).unwrap()
    }

    #[test]
    fn a_base_hands_down_what_is_not_said_anew() {
        let base = base();
        let plain = process(&Settings::default(), Some(&base));
        assert_eq!((plain.entrypoint.unwrap(), plain.cmd.unwrap()), (vec!["/entry".to_owned()], vec!["serve".to_owned()]));
        assert_eq!(
            (plain.user.as_deref(), plain.working_dir.as_deref(), plain.stop_signal.as_deref()),
            (Some("web"), Some("/srv"), Some("SIGQUIT"))
        );
        let own = Settings {
            entrypoint: vec!["/own".into()],
            env: BTreeMap::from([("LANG".into(), "de".into()), ("A".into(), "1".into())]),
            labels: BTreeMap::from([("b".into(), "own".into())]),
            ports: vec![8080],
            user: Some("0".into()),
            ..Settings::default()
        };
        let layers = [base.layers[0].clone(), Layer::uncompressed("sha256:o".into(), 4, "/y".into())];
        let (config, manifest, _) = documents("arm64", &own, Some(&base), &layers);
        let config: Value = serde_json::from_slice(&config).unwrap();
        insta::assert_json_snapshot!(config, @r#"
        {
          "architecture": "arm64",
          "config": {
            "Entrypoint": [
              "/own"
            ],
            "Env": [
              "PATH=/opt/bin",
              "LANG=de",
              "A=1"
            ],
            "ExposedPorts": {
              "80/tcp": {},
              "8080/tcp": {}
            },
            "Healthcheck": {
              "Test": [
                "CMD",
                "x"
              ]
            },
            "Labels": {
              "a": "base",
              "b": "own"
            },
            "StopSignal": "SIGQUIT",
            "User": "0",
            "Volumes": {
              "/data": {}
            },
            "WorkingDir": "/srv"
          },
          "created": "1970-01-01T00:00:00Z",
          "history": [
            {
              "created_by": "x"
            },
            {
              "created": "1970-01-01T00:00:00Z",
              "created_by": "devloop"
            }
          ],
          "os": "linux",
          "rootfs": {
            "diff_ids": [
              "sha256:l",
              "sha256:o"
            ],
            "type": "layers"
          },
          "variant": "v8"
        }
        "#);
        assert!(!String::from_utf8(manifest).unwrap().contains("annotations"));
    }

    #[test]
    fn a_base_must_fit_its_layers_and_the_system() {
        let refused = |config: Value| BaseImage::new("x", &serde_json::to_vec(&config).unwrap(), vec![]).unwrap_err().to_string();
        insta::assert_snapshot!(refused(json!({"architecture": "amd64", "os": "windows", "rootfs": {}})), @"x can't be built upon: it is for windows, pods run Linux");
        insta::assert_snapshot!(refused(json!({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": ["a"]}})), @"x can't be built upon: its configuration names other layers than its manifest");
    }
}
