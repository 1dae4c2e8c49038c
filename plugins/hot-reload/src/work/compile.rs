//! Builds, and what they are made of.

use crate::gather::Facts;
use crate::lane::{Binary, Origin};
use crate::session::Event;
use crate::sources;
use devloop_core::build::{self, BuildError};
use devloop_core::shutdown::Shutdown;
use devloop_core::symbols::Symbols;
use devloop_core::{CommandError, project};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A build that went well.
#[derive(Debug)]
pub(crate) struct Build {
    /// Absent where it makes files, which the watcher sees.
    pub(crate) binary: Option<Binary>,
    /// The compiler's list of what it read.
    pub(crate) dep_info: Option<String>,
    pub(crate) compile: Duration,
}

/// Builds a service and takes a copy of its binary, which a later build can't
/// change while it is on its way.
pub(crate) async fn compile(
    lane: usize,
    number: u64,
    facts: Arc<Facts>,
    origin: Option<Origin>,
    keep: PathBuf,
    shutdown: Shutdown,
) -> Event {
    let outcome = match &facts.build {
        Some(recipe) => run(&facts, recipe, origin, keep, &shutdown).await,
        None => Err(CommandError::new("there is nothing to build").into()),
    };
    Event::Built { lane, number, outcome: Box::new(outcome) }
}

async fn run(
    facts: &Facts,
    recipe: &project::Build,
    origin: Option<Origin>,
    keep: PathBuf,
    shutdown: &Shutdown,
) -> Result<Build, BuildError> {
    let started = Instant::now();
    let Some(built) = build::build(&facts.root, recipe, &keep, shutdown).await? else {
        return Ok(Build { binary: None, dep_info: None, compile: started.elapsed() });
    };
    let compile = built.duration;
    let name = facts.name.clone();
    let could_not = || CommandError::new("could not copy the binary");
    // Of Go's programs a debugger in the pod wants the symbols.
    let symbols = matches!(recipe, project::Build::Cargo(_)).then(Symbols::from_env).transpose()?;
    let copied = tokio::task::spawn_blocking(move || keep_copy(&built.path, symbols.as_ref(), &keep, &name)).await;
    let (hash, path, dep_info) = copied.map_err(|error| could_not().caused_by(error))?.map_err(|error| could_not().caused_by(error))?;
    let binary = Binary { hash, path, compile, ready: Instant::now(), origin };
    Ok(Build { binary: Some(binary), dep_info, compile })
}

/// Copies a binary under a name of its own, without its symbols where these are to
/// be kept here; answers its hash, the copy, and the compiler's list beside it. The
/// copy is what is hashed: it is the same whatever a later build does to the
/// original meanwhile.
fn keep_copy(
    path: &Path,
    symbols: Option<&Symbols>,
    folder: &Path,
    name: &str,
) -> std::io::Result<(blake3::Hash, PathBuf, Option<String>)> {
    let temporary = tempfile::Builder::new().prefix("incoming-").tempfile_in(folder)?;
    match symbols {
        Some(symbols) => {
            let shipped = build::ship(folder, path, symbols)?;
            // A session builds often: one copy of each is enough.
            std::fs::copy(&shipped.path, temporary.path()).and_then(|_| std::fs::remove_file(&shipped.path))?;
        }
        None => {
            std::fs::copy(path, temporary.path())?;
        }
    }
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut std::fs::File::open(temporary.path())?, &mut hasher)?;
    let hash = hasher.finalize();
    let copy = folder.join(format!("{name}-{}", &hash.to_hex()[..16]));
    temporary.persist(&copy).map_err(|error| error.error)?;
    Ok((hash, copy, std::fs::read_to_string(path.with_extension("d")).ok()))
}

/// Asks the build's tool again what it reads.
pub(crate) async fn reshape(lane: usize, facts: Arc<Facts>) -> Event {
    let outcome = match &facts.build {
        Some(recipe) => sources::of_build(&facts.root, recipe).await,
        None => Err(CommandError::new("there is nothing to build")),
    };
    Event::Reshaped { lane, outcome }
}

/// Whether a build ended because the user wanted the session to end.
pub(crate) fn is_interrupted(error: &BuildError) -> bool {
    matches!(error, BuildError::Tool(error) if error.status() == devloop_core::ExitStatus::Interrupted)
}
