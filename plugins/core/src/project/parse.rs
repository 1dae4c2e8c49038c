//! How single values of a project file are read: names, and paths that stay
//! inside the project or the image.

use super::FILE_NAME;
use crate::patterns::Patterns;
use crate::target::Target;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::path::{Component, Path, PathBuf};

/// Reads a string and what it stands for. A refusal carries the string's own
/// line and column: it happens inside the visit, where the parser still knows.
pub(super) fn text<'de, D: Deserializer<'de>, T>(deserializer: D, parse: fn(&str) -> Result<T, String>) -> Result<T, D::Error> {
    struct Text<T>(fn(&str) -> Result<T, String>);
    impl<T> Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a string")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            self.0(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(parse))
}

pub(super) fn service_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |name| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('-') || !name.bytes().all(fits) {
            return Err(format!("service name {name:?} is not made of letters, digits, '-', '_' and '.'"));
        }
        Ok(name.to_owned())
    })
}

/// A repository's path (OCI distribution specification, "Pulling manifests").
pub(super) fn image_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |name| {
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let part_fits = |part: &str| {
            let bytes = part.as_bytes();
            let inner = bytes.iter().all(|byte| edge(Some(byte)) || b"-_.".contains(byte));
            edge(bytes.first()) && edge(bytes.last()) && inner && !part.contains("..") && !part.contains("___")
        };
        if name.len() > 200 || !name.split('/').all(part_fits) {
            return Err(format!(
                "image name {name:?} is not a name without registry and tag: lower-case letters, digits, '-', '_', '.' and '/'"
            ));
        }
        Ok(name.to_owned())
    })
}

/// `deploy/web`, or `{selector: app=web}`.
pub(super) fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Target, D::Error> {
    struct Form;
    impl<'de> Visitor<'de> for Form {
        type Value = Target;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a target such as deploy/web, or {selector: app=web}")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Target, E> {
            text.parse().map_err(E::custom)
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Target, A::Error> {
            let Some(key) = map.next_key::<String>()? else { return Err(A::Error::custom("the target is missing")) };
            if key != "selector" {
                return Err(A::Error::unknown_field(&key, &["selector"]));
            }
            let selector = map.next_value::<Selector>()?;
            match map.next_key::<String>()? {
                Some(other) => Err(A::Error::unknown_field(&other, &["selector"])),
                None => Ok(Target::Selector(selector.0)),
            }
        }
    }
    deserializer.deserialize_any(Form)
}

/// A label selector; the API server knows its syntax in full.
struct Selector(String);

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |selector| {
            if selector.trim().is_empty() || selector.chars().any(char::is_control) {
                return Err(format!("{selector:?} is no label selector; for example app=web,tier!=db"));
            }
            Ok(Self(selector.to_owned()))
        })
    }
}

/// A path of the project.
struct InsidePath(PathBuf);

impl<'de> Deserialize<'de> for InsidePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |path| normalize_inside(Path::new(path)).map(Self))
    }
}

pub(super) fn inside_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    InsidePath::deserialize(deserializer).map(|path| path.0)
}

pub(super) fn optional_inside_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(Option::<InsidePath>::deserialize(deserializer)?.map(|path| path.0))
}

pub(super) fn inside_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    Ok(Vec::<InsidePath>::deserialize(deserializer)?.into_iter().map(|path| path.0).collect())
}

/// A path in the image.
struct ImagePath(String);

impl<'de> Deserialize<'de> for ImagePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |path| if path == "/" { Ok(Self(path.to_owned())) } else { normalize_image_path(path).map(Self) })
    }
}

pub(super) fn image_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, normalize_image_path)
}

pub(super) fn optional_image_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<ImagePath>::deserialize(deserializer)?.map(|path| path.0))
}

/// A path of a file or folder in the image, where there is one.
pub(super) fn optional_container_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct ContainerPath(String);
    impl<'de> Deserialize<'de> for ContainerPath {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            image_path(deserializer).map(Self)
        }
    }
    Ok(Option::<ContainerPath>::deserialize(deserializer)?.map(|path| path.0))
}

/// A signal as an image's configuration has it: `SIGINT`, or a number.
pub(super) fn optional_signal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Signal(String);
    impl<'de> Deserialize<'de> for Signal {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            text(deserializer, |name| {
                let number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
                let known =
                    name.starts_with("SIG") && name.bytes().all(|byte| byte.is_ascii_uppercase() || b"+-0123456789".contains(&byte));
                if number || known { Ok(Self(name.to_owned())) } else { Err(format!("{name:?} is not a signal such as SIGINT")) }
            })
        }
    }
    Ok(Option::<Signal>::deserialize(deserializer)?.map(|signal| signal.0))
}

/// Takes `.` and `..` out of a relative path; refuses one that leads outside.
pub(super) fn normalize_inside(path: &Path) -> Result<PathBuf, String> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir if inside.pop() => {}
            _ => return Err(format!("path {path:?} leads outside the folder of {FILE_NAME}")),
        }
    }
    if inside.as_os_str().is_empty() { Ok(PathBuf::from(".")) } else { Ok(inside) }
}

/// An absolute path in an image, without a slash at the end.
pub(super) fn normalize_image_path(path: &str) -> Result<String, String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if path.starts_with('/') && parts.is_empty() {
        return Err(format!("{path:?} is the root of the container; name a file or folder in it"));
    }
    if !path.starts_with('/') || parts.is_empty() || parts.contains(&"..") || path.contains('\0') {
        return Err(format!("{path:?} is not an absolute path in the image"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A program and its arguments.
pub(super) fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "a list of a program and its arguments", |words| {
        if words.first().is_none_or(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
            return Err("a command begins with the name of a program".to_owned());
        }
        Ok(())
    })
}

/// Patterns of paths, in the syntax of `.gitignore`.
pub(super) fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "a list of patterns", |patterns| Patterns::new(Path::new("/"), patterns.iter().map(String::as_str)).map(drop))
}

/// Reads a list of strings. As with [`text`], it is checked inside the visit.
fn list<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    check: fn(&[String]) -> Result<(), String>,
) -> Result<Vec<String>, D::Error> {
    struct List(&'static str, fn(&[String]) -> Result<(), String>);
    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str(self.0)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                items.push(item);
            }
            (self.1)(&items).map_err(A::Error::custom)?;
            Ok(items)
        }
    }
    deserializer.deserialize_seq(List(expected, check))
}
