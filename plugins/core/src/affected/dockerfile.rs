//! Which files the build of a Dockerfile is about: itself, and the context without
//! what is ignored.

use crate::dockerfile::Plan;
use crate::project::DockerfileBuild;
use crate::watch::WatchRoot;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub(super) struct Dockerfile {
    file: PathBuf,
    context: PathBuf,
    /// Absent when it could not be read: then everything counts.
    plan: Option<Plan>,
}

impl Dockerfile {
    pub(super) fn of(root: &Path, build: &DockerfileBuild) -> Self {
        let plain = |path: &Path| -> PathBuf { root.join(path).components().collect() };
        Self { file: plain(&build.file()), context: plain(&build.context), plan: Plan::read(root, build).ok() }
    }

    pub(super) fn via(&self, file: &Path) -> Option<Vec<String>> {
        let counts = match &self.plan {
            Some(plan) => plan.reads(file),
            None => file == self.file || file.starts_with(&self.context),
        };
        // A folder whose content is not known, such as a submodule.
        let holds = self.context.starts_with(file) || self.file.starts_with(file);
        (counts || holds).then(|| vec!["dockerfile".to_owned()])
    }

    /// Whether a file says which others count.
    pub(super) fn decides(&self, path: &Path) -> bool {
        path == self.file || Plan::ignore_files(&self.file, &self.context).iter().any(|file| file == path)
    }

    pub(super) fn roots(&self) -> Vec<WatchRoot> {
        let mut roots = vec![WatchRoot::content(&self.context)];
        for path in std::iter::once(self.file.clone()).chain(Plan::ignore_files(&self.file, &self.context)) {
            if !path.starts_with(&self.context) {
                roots.push(WatchRoot::sources(&path));
            }
        }
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_counts_without_what_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("web")).unwrap();
        let build = DockerfileBuild::of("web".into(), "web.Dockerfile".into());
        let missing = Dockerfile::of(root, &build);
        assert!(missing.via(&root.join("web/a.md")).is_some(), "what can't be told counts");
        std::fs::write(root.join("web.Dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(root.join("web/.dockerignore"), "*.md\n").unwrap();
        let read = Dockerfile::of(root, &build);
        for path in ["web/a", "web.Dockerfile", "web/.dockerignore", "web.Dockerfile.dockerignore", "web", ""] {
            assert!(read.via(&root.join(path)).is_some(), "{path}");
        }
        for path in ["web/a.md", "other/a", "Dockerfile"] {
            assert_eq!(read.via(&root.join(path)), None, "{path}");
        }
        assert!(read.decides(&root.join("web/.dockerignore")) && !read.decides(&root.join("web/a")));
        assert_eq!(read.roots().len(), 3);
    }
}
