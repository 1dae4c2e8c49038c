//! Which of several Dockerfiles is the image's. Pure.

use super::local::{Local, shown};
use super::paths;
use super::{DetectError, Remote};
use crate::target::Target;
use std::path::{Path, PathBuf};

/// Whether a file is a Dockerfile by its name, and not too deep to be one of
/// the project's own.
pub(super) fn is_dockerfile(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    path.components().count() <= 4 && variant(name).is_some()
}

/// What tells a Dockerfile from others in its folder: `web` for
/// `Dockerfile.web` and `web.Dockerfile`, nothing for a plain one.
fn variant(name: &str) -> Option<&str> {
    let lower = name.to_ascii_lowercase();
    for plain in ["dockerfile", "containerfile"] {
        if lower == plain {
            return Some("");
        }
        if let Some(rest) = lower.strip_prefix(plain).filter(|rest| rest.starts_with('.') && *rest != ".dockerignore") {
            return Some(&name[name.len() - rest.len() + 1..]);
        }
        if let Some(front) = lower.strip_suffix(plain).and_then(|front| front.strip_suffix('.')) {
            return Some(&name[..front.len()]);
        }
    }
    None
}

/// A Dockerfile and why it is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// The Dockerfile of a container's image, if there is any.
pub(super) fn choose(local: &Local, remote: &Remote) -> Result<Option<Chosen>, DetectError> {
    let all: Vec<&PathBuf> = local.texts.keys().filter(|path| is_dockerfile(path)).collect();
    let chosen = |path: &PathBuf, why: String| Ok(Some(Chosen { path: path.clone(), why }));
    match all.as_slice() {
        [] => return Ok(None),
        [only] => return chosen(only, "it is the only Dockerfile".to_owned()),
        _ => {}
    }
    for name in names(remote) {
        let fitting: Vec<&&PathBuf> = all.iter().filter(|path| belongs_to(local, path, &name)).collect();
        if let [one] = fitting.as_slice() {
            return chosen(one, format!("of {} Dockerfiles, it is the one that is named like {name:?}", all.len()));
        }
    }
    let plain = |path: &&&PathBuf| path.file_name().and_then(|name| name.to_str()).and_then(variant) == Some("");
    let here: Vec<&&PathBuf> = all.iter().filter(plain).filter(|path| path.parent() == Some(&local.start)).collect();
    if let [one] = here.as_slice()
        && (!local.start.as_os_str().is_empty() || all.iter().filter(plain).count() == 1)
    {
        return chosen(one, format!("of {} Dockerfiles, it is the plain one of the folder {}", all.len(), shown(&local.start)));
    }
    Err(DetectError::Ambiguous {
        what: format!("which Dockerfile the image {} is built from", remote.image),
        choices: all.iter().map(|path| path.display().to_string()).collect(),
        advice: "go to the folder of the one that is meant and run the command there".to_owned(),
    })
}

/// What the image's Dockerfile may be named after, most certain first.
fn names(remote: &Remote) -> Vec<String> {
    let image = paths::name(remote.image.split('@').next().unwrap_or_default());
    let mut names = vec![image.split(':').next().unwrap_or(image).to_owned()];
    if let Target::Object { name, .. } = &remote.target {
        names.push(name.clone());
    }
    names.push(remote.container.clone());
    names.retain(|name| !name.is_empty());
    names
}

pub(super) fn belongs_to(local: &Local, path: &Path, name: &str) -> bool {
    let variant = path.file_name().and_then(|name| name.to_str()).and_then(variant).unwrap_or_default();
    if !variant.is_empty() {
        return variant == name;
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // docker/web/Dockerfile, web/docker/Dockerfile, web/Dockerfile.
        Some(folder) => folder.iter().rev().take(2).any(|part| part == name),
        None => local.root.file_name().is_some_and(|own| own == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(files: &[&str], start: &str, image: &str) -> String {
        let files: Vec<(&str, &str)> = files.iter().map(|path| (*path, "")).collect();
        let mut local = Local::of(&files);
        local.start = start.into();
        match choose(&local, &Remote::of(image, "deploy/front")) {
            Ok(Some(chosen)) => format!("{}: {}", chosen.path.display(), chosen.why),
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_decide_then_the_folder() {
        let many = ["web/Dockerfile", "api/Dockerfile", "Dockerfile.worker", "Dockerfile.worker.dockerignore", "README.md"];
        let picked = [
            pick(&["README.md"], "", "me/shop:1"),
            pick(&["sub/Containerfile", ".dockerignore"], "", "me/shop:1"),
            pick(&many, "", "localhost:5001/me/web:1@sha256:0"),
            pick(&many, "", "me/worker"),
            pick(&many, "api", "me/shop"),
            pick(&many, "", "me/shop"),
            pick(&["Dockerfile", "Dockerfile.dev"], "", "me/shop"),
            pick(&["front/Dockerfile", "back/Dockerfile"], "", "me/shop"),
            pick(&["Dockerfile", "web.Dockerfile"], "", "web"),
            pick(&["a/b/c/d/Dockerfile"], "", "web"),
        ];
        insta::assert_snapshot!(picked.join("\n"));
    }
}
