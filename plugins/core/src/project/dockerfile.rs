//! `build.dockerfile`: an image that a Dockerfile describes.

use super::ImageSpec;
use super::parse::{inside_path, optional_inside_path, text};
use serde::Deserialize;
use serde::de::Deserializer;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// How an image is made of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DockerfileBuild {
    /// The Dockerfile, relative to the root; the context's `Dockerfile` when absent.
    #[serde(default, deserialize_with = "optional_inside_path")]
    pub file: Option<PathBuf>,
    /// The folder whose files it may copy, relative to the root.
    #[serde(default = "root", deserialize_with = "inside_path")]
    pub context: PathBuf,
    /// The stage whose image is meant; the last one when absent.
    #[serde(default)]
    pub target: Option<String>,
    /// Values of `ARG`.
    #[serde(default)]
    pub args: BTreeMap<String, Value>,
    /// What `RUN --mount=type=secret` may read.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// What `RUN --mount=type=ssh` may use: ids, each of which is the SSH agent of
    /// `SSH_AUTH_SOCK`.
    #[serde(default)]
    pub ssh: Vec<String>,
    /// The platform to build for, such as `linux/arm64`; the engine's own when
    /// absent.
    #[serde(default, deserialize_with = "platform")]
    pub platform: Option<String>,
    /// Images whose layers may stand in for steps of the build.
    #[serde(default)]
    pub cache_from: Vec<String>,
    /// Who builds it; the Docker engine when absent.
    #[serde(default)]
    pub builder: Option<Builder>,
}

impl DockerfileBuild {
    /// One with nothing but a context and, in it, a Dockerfile.
    pub fn of(context: PathBuf, file: PathBuf) -> Self {
        Self {
            file: Some(file),
            context,
            target: None,
            args: BTreeMap::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            platform: None,
            cache_from: Vec::new(),
            builder: None,
        }
    }

    /// The Dockerfile, relative to the root.
    pub fn file(&self) -> PathBuf {
        self.file
            .clone()
            .unwrap_or_else(|| if self.context == Path::new(".") { "Dockerfile".into() } else { self.context.join("Dockerfile") })
    }
}

/// What a service says beside its Dockerfile.
pub(super) fn check(service: &str, image: Option<&ImageSpec>, binary: Option<&str>) -> Result<(), String> {
    let Some(image) = image else {
        return Err(format!(
            "service {service:?} is built of a Dockerfile, and it is not said what its image is called; add `image: {{ name: NAME }}`"
        ));
    };
    let only_named = ImageSpec { name: image.name.clone(), ..ImageSpec::default() };
    if *image != only_named || binary.is_some() {
        return Err(format!(
            "the Dockerfile of service {service:?} says what is in its image; of `image`, only `name` can stand beside it"
        ));
    }
    Ok(())
}

fn root() -> PathBuf {
    PathBuf::from(".")
}

/// A value of `ARG`: any scalar, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(pub String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl serde::de::Visitor<'_> for Scalar {
            type Value = Value;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string, a number or true or false")
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value(value.to_owned()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value(value.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

/// A secret of a build. It is no part of the image, and none of what decides
/// whether the build is begun.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenSecret")]
pub struct Secret {
    /// Its name in the Dockerfile.
    pub id: String,
    /// Where its content comes from.
    pub source: SecretSource,
}

/// See [`Secret`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, relative to the root; it may lie outside, for secrets better do.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSecret {
    id: String,
    #[serde(default)]
    src: Option<PathBuf>,
    #[serde(default)]
    env: Option<String>,
}

impl TryFrom<WrittenSecret> for Secret {
    type Error = String;
    fn try_from(written: WrittenSecret) -> Result<Self, String> {
        let source = match (written.src, written.env) {
            (Some(path), None) => SecretSource::File(path),
            (None, Some(variable)) => SecretSource::Variable(variable),
            _ => return Err(format!("the secret {:?} comes either from a file (`src`) or from a variable (`env`)", written.id)),
        };
        Ok(Self { id: written.id, source })
    }
}

fn platform<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Platform(String);
    impl<'de> Deserialize<'de> for Platform {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            text(deserializer, |platform| {
                let parts: Vec<&str> = platform.split('/').collect();
                let fits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if !(2..=3).contains(&parts.len()) || !parts.iter().all(fits) {
                    return Err(format!("{platform:?} is no platform; for example linux/amd64 or linux/arm/v7"));
                }
                Ok(Self(platform.to_owned()))
            })
        }
    }
    Ok(Option::<Platform>::deserialize(deserializer)?.map(|platform| platform.0))
}

/// The address of a BuildKit daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builder {
    /// `tcp://HOST:PORT`, without encryption.
    Tcp(String),
    /// `unix:///PATH`
    Unix(PathBuf),
    /// `docker-container://NAME`: in a container of the Docker engine, as
    /// `docker buildx create` makes them.
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
}

impl fmt::Display for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Container(name) => write!(formatter, "docker-container://{name}"),
            Self::Pod { name, namespace, container } => {
                let settings = [("namespace", namespace), ("container", container)];
                let settings: Vec<String> = settings.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?))).collect();
                let mark = if settings.is_empty() { "" } else { "?" };
                write!(formatter, "kube-pod://{name}{mark}{}", settings.join("&"))
            }
        }
    }
}

impl std::str::FromStr for Builder {
    type Err = String;
    fn from_str(address: &str) -> Result<Self, String> {
        const KNOWN: &str = "tcp://HOST:PORT, unix:///PATH, docker-container://NAME or kube-pod://NAME?namespace=NAMESPACE";
        let unknown = || format!("{address:?} is no address of a BuildKit daemon: {KNOWN}");
        let (scheme, rest) = address.split_once("://").ok_or_else(unknown)?;
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        match scheme {
            "tcp" => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(unknown)?;
                if host.is_empty() || host.contains(['/', '@', ' ']) || port.parse::<u16>().is_err() {
                    return Err(unknown());
                }
                Ok(Self::Tcp(rest.to_owned()))
            }
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "docker-container" if is_name(rest) => Ok(Self::Container(rest.to_owned())),
            "kube-pod" => {
                let (name, settings) = rest.split_once('?').unwrap_or((rest, ""));
                let (mut namespace, mut container) = (None, None);
                for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
                    match setting.split_once('=') {
                        Some(("namespace", value)) if is_name(value) => namespace = Some(value.to_owned()),
                        Some(("container", value)) if is_name(value) => container = Some(value.to_owned()),
                        _ => return Err(unknown()),
                    }
                }
                if is_name(name) { Ok(Self::Pod { name: name.to_owned(), namespace, container }) } else { Err(unknown()) }
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
    use crate::project::{Build, parse_text};

    fn read(build: &str) -> Result<DockerfileBuild, String> {
        let text = format!(
            "apiVersion: devloop/v1\nservices:\n  - name: web\n    deploy: {{ target: web }}\n    build: {{ dockerfile: {build} }}\n    image: {{ name: web }}\n"
        );
        match parse_text(&text).map_err(|error| error.to_string())?.remove(0).build {
            Some(Build::Dockerfile(build)) => Ok(build),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_dockerfile_needs_no_word_and_takes_many() {
        let plain = read("{}").unwrap();
        assert_eq!((plain.file(), plain.context.as_path()), ("Dockerfile".into(), Path::new(".")));
        assert_eq!(read("{ context: web }").unwrap().file(), Path::new("web/Dockerfile"));
        let full = read(
            "{ file: docker/web, context: ./src/, target: run, args: { A: b, PORT: 8080, DEBUG: true }, ssh: [default], platform: linux/arm/v7, \
             secrets: [{ id: a, src: ../a }, { id: b, env: B }], cacheFrom: [reg/x:cache], builder: 'kube-pod://bk?namespace=ci' }",
        )
        .unwrap();
        assert_eq!(full.args.values().map(|value| value.0.as_str()).collect::<Vec<_>>(), ["b", "true", "8080"]);
        assert_eq!(full.secrets[0].source, SecretSource::File("../a".into()));
        assert_eq!(full.builder.unwrap().to_string(), "kube-pod://bk?namespace=ci");
    }

    #[test]
    fn mistakes_have_a_place() {
        insta::assert_snapshot!(read("{ context: ../x }").unwrap_err(), @r#"devloop.yaml:5:37: services[0].build.dockerfile.context: path "../x" leads outside the folder of devloop.yaml"#);
        insta::assert_snapshot!(read("{ platform: arm64 }").unwrap_err(), @r#"devloop.yaml:5:38: services[0].build.dockerfile.platform: "arm64" is no platform; for example linux/amd64 or linux/arm/v7"#);
        insta::assert_snapshot!(read("{ builder: 'ssh://x' }").unwrap_err(), @r#"devloop.yaml:5:37: services[0].build.dockerfile.builder: "ssh://x" is no address of a BuildKit daemon: tcp://HOST:PORT, unix:///PATH, docker-container://NAME or kube-pod://NAME?namespace=NAMESPACE"#);
        insta::assert_snapshot!(read("{ secrets: [{ id: a }] }").unwrap_err(), @r#"devloop.yaml:5:37: services[0].build.dockerfile.secrets: the secret "a" comes either from a file (`src`) or from a variable (`env`)"#);
        insta::assert_snapshot!(read("{ arguments: {} }").unwrap_err(), @"devloop.yaml:5:28: services[0].build.dockerfile: unknown field `arguments`, expected one of `file`, `context`, `target`, `args`, `secrets`, `ssh`, `platform`, `cacheFrom`, `builder`");
    }

    #[test]
    fn the_image_has_a_name_and_no_more() {
        let read = |rest: &str| {
            let text = format!(
                "apiVersion: devloop/v1\nservices:\n  - name: web\n    deploy: {{ target: web }}\n    build: {{ dockerfile: {{}} }}\n{rest}"
            );
            parse_text(&text).map_err(|error| error.to_string())
        };
        insta::assert_snapshot!(read("").unwrap_err(), @r#"devloop.yaml:3:5: services[0]: service "web" is built of a Dockerfile, and it is not said what its image is called; add `image: { name: NAME }`"#);
        insta::assert_snapshot!(read("    image: { name: web, user: '1' }\n").unwrap_err(), @r#"devloop.yaml:3:5: services[0]: the Dockerfile of service "web" says what is in its image; of `image`, only `name` can stand beside it"#);
        insta::assert_snapshot!(read("    image: { name: web }\n    binary: /web\n").unwrap_err(), @r#"devloop.yaml:3:5: services[0]: the Dockerfile of service "web" says what is in its image; of `image`, only `name` can stand beside it"#);
    }

    #[test]
    fn addresses_are_read_and_written() {
        for address in [
            "tcp://bk.example:1234",
            "tcp://[::1]:1234",
            "unix:///run/bk.sock",
            "docker-container://buildx_0",
            "kube-pod://a?namespace=b&container=c",
        ] {
            assert_eq!(address.parse::<Builder>().unwrap().to_string(), address);
        }
        for address in
            ["bk:1234", "tcp://bk", "tcp://a/b:1", "unix://run", "docker-container://", "kube-pod://a?x=y", "kube-pod://?namespace=b"]
        {
            address.parse::<Builder>().unwrap_err();
        }
    }
}
