//! From sources to what runs in a container: a binary by cargo, by the go command
//! or by any program, or the packages that sources in Node or Python need.

mod cargo;
mod command;
mod dep_info;
pub mod dependencies;
mod flags;
mod fresh;
mod go;
mod platform;
mod process;
mod ship;

pub use dep_info::parse_dep_info;
pub use platform::Platform;
pub use ship::{Shipped, ship};

use crate::error::CommandError;
use crate::project::Build;
use crate::shutdown::Shutdown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A binary that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltBinary {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Whether there was nothing to do for it, where that is known.
    pub fresh: bool,
    /// How long it took.
    pub duration: Duration,
    /// The compiler's warnings, each once; empty when there are none. Cargo
    /// repeats them for a fresh binary.
    pub warnings: String,
}

/// Why there is no binary.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The sources don't compile.
    #[error("{errors} compile error{}", if *errors == 1 { "" } else { "s" })]
    Compile {
        /// The compiler's messages, each once, coloured when stderr is.
        rendered: String,
        /// How many of them are errors, at least 1.
        errors: usize,
    },
    /// The tool could not do its work, or the user ended it.
    #[error(transparent)]
    Tool(#[from] CommandError),
}

/// Builds a service's binary for this machine, in `root`; `keep` is a folder for
/// what has no place of its own. `None` for a build that makes files instead. The
/// tool and all it started end when the returned future is dropped.
///
/// # Errors
/// [`BuildError::Compile`] for mistakes in the sources; [`BuildError::Tool`] when
/// the tool is missing, refuses the request, or `shutdown` was asked for.
pub async fn build(root: &Path, build: &Build, keep: &Path, shutdown: &Shutdown) -> Result<Option<BuiltBinary>, BuildError> {
    build_for(root, build, keep, &Platform::local(), shutdown).await
}

async fn build_for(
    root: &Path,
    build: &Build,
    keep: &Path,
    platform: &Platform,
    shutdown: &Shutdown,
) -> Result<Option<BuiltBinary>, BuildError> {
    match build {
        Build::Cargo(build) => cargo::cargo(root, build, platform, shutdown).await.map(Some),
        Build::Go(build) => go::go(root, build, keep, platform, shutdown).await.map(Some),
        Build::Command(build) => command::command(root, build, shutdown).await,
        // It makes an image, by `crate::dockerfile`.
        Build::Dockerfile(_) => Ok(None),
        // Their sources run as they are; see `dependencies`.
        Build::Node(_) | Build::Python(_) => Ok(None),
    }
}

/// The same for a platform, but a cargo build that would find nothing to do is not begun, as the
/// files and the environment tell.
///
/// # Errors
/// As [`build`].
pub async fn build_unless_fresh(
    root: &Path,
    build: &Build,
    keep: &Path,
    platform: &Platform,
    shutdown: &Shutdown,
) -> Result<Option<BuiltBinary>, BuildError> {
    let Build::Cargo(cargo) = build else { return build_for(root, build, keep, platform, shutdown).await };
    let (began, started) = (SystemTime::now(), Instant::now());
    let record = fresh::record_path(keep, root, cargo, platform);
    if let Some(path) = fresh::binary(&record) {
        return Ok(Some(BuiltBinary { path, fresh: true, duration: started.elapsed(), warnings: String::new() }));
    }
    let built = cargo::cargo(root, cargo, platform, shutdown).await?;
    fresh::note(&record, root, cargo, &built.path, began);
    Ok(Some(built))
}
