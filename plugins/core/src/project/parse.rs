//! How single values of a project file are read: names, and paths that stay
//! inside the project or the image.

use super::FILE_NAME;
use crate::target::Target;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
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

pub(super) fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Target, D::Error> {
    text(deserializer, |text| text.parse().map_err(|error: crate::target::ParseTargetError| error.to_string()))
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
    if !path.starts_with('/') || parts.is_empty() || parts.contains(&"..") || path.contains('\0') {
        return Err(format!("{path:?} is not an absolute path in the image"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A program and its arguments.
pub(super) fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    if words.first().is_none_or(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
        return Err(serde::de::Error::custom("a command begins with the name of a program"));
    }
    Ok(words)
}
