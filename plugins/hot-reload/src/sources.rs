//! Which files a service's build is made of.

mod cargo;
mod go;

use cargo::CargoSources;
use devloop_core::Result;
use devloop_core::project::Build;
use devloop_core::watch::WatchRoot;
use go::GoSources;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a build reads, as well as its tool can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    /// Packages of cargo.
    Cargo(CargoSources),
    /// Packages of Go.
    Go(GoSources),
    /// What the project file lists.
    Listed(BTreeSet<PathBuf>),
}

impl Sources {
    /// Whether a change of `path` may change what is built.
    pub(crate) fn contains(&self, path: &Path) -> bool {
        match self {
            Self::Cargo(sources) => sources.contains(path),
            Self::Go(sources) => sources.contains(path),
            Self::Listed(paths) => paths.iter().any(|listed| path.starts_with(listed)),
        }
    }

    /// Whether a change of `path` may change which files count.
    pub(crate) fn shapes(&self, path: &Path) -> bool {
        match self {
            Self::Cargo(sources) => sources.shapes(path),
            Self::Go(sources) => sources.shapes(path),
            Self::Listed(_) => false,
        }
    }

    /// What to watch.
    pub(crate) fn roots(&self) -> Vec<WatchRoot> {
        match self {
            Self::Cargo(sources) => sources.roots(),
            Self::Go(sources) => sources.roots(),
            Self::Listed(paths) => paths.iter().map(WatchRoot::sources).collect(),
        }
    }

    /// Adds what a compiler read, from the `.d` file beside its output.
    pub(crate) fn learn(&mut self, dep_info: &str) {
        if let Self::Cargo(sources) = self {
            sources.learn(dep_info);
        }
    }
}

/// Asks the build's tool what it reads.
///
/// # Errors
/// When the tool can't be run or refuses.
pub(crate) async fn of_build(root: &Path, build: &Build) -> Result<Sources> {
    match build {
        Build::Cargo(build) => cargo::of_build(root, build).await.map(Sources::Cargo),
        Build::Go(build) => go::of_build(root, build).await.map(Sources::Go),
        Build::Command(build) => {
            let absolute = |path: &PathBuf| root.join(path).components().collect();
            Ok(Sources::Listed(build.watch.iter().map(absolute).collect()))
        }
        // An image is made by `kubectl rebuild`; here, nothing asks for it.
        Build::Dockerfile(_) => Ok(Sources::Listed(BTreeSet::new())),
        // Nothing is built of sources that run as they are.
        Build::Node(_) | Build::Python(_) => Ok(Sources::Listed(BTreeSet::new())),
    }
}
