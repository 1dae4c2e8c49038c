//! What a build is given: the Dockerfile, the context, and what of it is ignored.

use super::DockerfileError;
use super::context::Selection;
use super::ignore::{self, Matcher};
use crate::project::DockerfileBuild;
use std::io;
use std::path::{Path, PathBuf};

/// A Dockerfile and its context, as they are now.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The Dockerfile, absolute.
    pub file: PathBuf,
    /// How it is called in the project.
    pub shown: PathBuf,
    /// Its text.
    pub text: String,
    /// The context's folder, absolute.
    pub context: PathBuf,
    /// The file of patterns that counts, if there is any: the Dockerfile's own,
    /// else the context's.
    pub ignore_file: Option<PathBuf>,
    /// Its patterns.
    pub patterns: Vec<String>,
    pub(super) matcher: Matcher,
}

impl Plan {
    /// Reads what there is.
    ///
    /// # Errors
    /// When there is no Dockerfile or no context, or a pattern can't be read.
    pub fn read(root: &Path, build: &DockerfileBuild) -> Result<Self, DockerfileError> {
        let shown = build.file();
        let file: PathBuf = root.join(&shown).components().collect();
        let context: PathBuf = root.join(&build.context).components().collect();
        let bytes = std::fs::read(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DockerfileError::NoDockerfile { path: file.clone() },
            _ => DockerfileError::Read { path: file.clone(), source },
        })?;
        if !context.is_dir() {
            return Err(DockerfileError::NoContext { path: context });
        }
        let ignore_file = Self::ignore_files(&file, &context).into_iter().find(|path| path.is_file());
        let patterns = match &ignore_file {
            Some(path) => {
                let text = std::fs::read(path).map_err(|source| DockerfileError::Read { path: path.clone(), source })?;
                ignore::read(&String::from_utf8_lossy(&text))
            }
            None => Vec::new(),
        };
        let matcher = Matcher::new(patterns.iter().map(String::as_str))
            .map_err(|source| DockerfileError::Ignore { path: ignore_file.clone().unwrap_or_default(), source })?;
        Ok(Self { file, shown, text: String::from_utf8_lossy(&bytes).into_owned(), context, ignore_file, patterns, matcher })
    }

    /// Whether a file, absolute, is one that the build may read.
    pub fn reads(&self, path: &Path) -> bool {
        if path == self.file || Self::ignore_files(&self.file, &self.context).iter().any(|file| file == path) {
            return true;
        }
        match path.strip_prefix(&self.context) {
            // Where it can't be told, it may be.
            Ok(relative) => relative.to_str().is_none_or(|relative| relative.is_empty() || !self.matcher.fits(relative)),
            Err(_) => false,
        }
    }

    /// Where patterns are looked for; the first file that is there counts
    /// (<https://docs.docker.com/build/concepts/context/#filename-and-location>).
    pub fn ignore_files(file: &Path, context: &Path) -> [PathBuf; 2] {
        let mut own = file.as_os_str().to_owned();
        own.push(".dockerignore");
        [own.into(), context.join(".dockerignore")]
    }

    /// The context without what is ignored.
    pub(super) fn selection(&self) -> Selection {
        Selection { exclude: self.matcher.clone(), include: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfiles_own_patterns_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("web")).unwrap();
        let build = DockerfileBuild::of("web".into(), "docker/web.Dockerfile".into());
        assert!(matches!(Plan::read(root, &build).unwrap_err(), DockerfileError::NoDockerfile { .. }));
        std::fs::create_dir(root.join("docker")).unwrap();
        std::fs::write(root.join("docker/web.Dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(root.join("web/.dockerignore"), "*.md\n").unwrap();
        let plan = Plan::read(root, &build).unwrap();
        assert_eq!(plan.patterns, ["*.md"]);
        assert!(plan.reads(&root.join("web/a.txt")) && plan.reads(&root.join("docker/web.Dockerfile")));
        assert!(!plan.reads(&root.join("web/a.md")) && !plan.reads(&root.join("other/a.txt")));
        std::fs::write(root.join("docker/web.Dockerfile.dockerignore"), "*.txt\n").unwrap();
        let plan = Plan::read(root, &build).unwrap();
        assert!(plan.reads(&root.join("web/a.md")) && !plan.reads(&root.join("web/a.txt")));
        assert!(plan.reads(&root.join("web/.dockerignore")), "it may come to count");
        std::fs::write(root.join("docker/web.Dockerfile.dockerignore"), "a[\n").unwrap();
        let error = Plan::read(root, &build).unwrap_err().to_string();
        assert!(error.contains("web.Dockerfile.dockerignore"), "{error}");
    }
}
