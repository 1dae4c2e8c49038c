//! `build.dockerfile`: an image that a Dockerfile describes.

use super::ImageSpec;
use super::builder::Builder;
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
        insta::assert_snapshot!(read("{ builder: 'http://x' }").unwrap_err(), @r#"devloop.yaml:5:37: services[0].build.dockerfile.builder: "http://x" is no address of a BuildKit daemon: tcp://HOST:PORT[?certificates=FOLDER], unix:///PATH, ssh://[USER@]HOST[:PORT], docker-container://NAME, kube-pod://NAME[?namespace=NAMESPACE] or buildx://NAME"#);
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
}
