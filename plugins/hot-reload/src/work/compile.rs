//! Builds, and what they are made of.

use crate::gather::Facts;
use crate::lane::{Binary, Origin};
use crate::session::Event;
use crate::sources;
use devloop_core::build::{self, BuildError};
use devloop_core::shutdown::Shutdown;
use devloop_core::symbols::{Stripped, Symbols, strip};
use devloop_core::{CommandError, project};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The processors belong to the program that is on its way first.
const SYMBOLS_LATER: Duration = Duration::from_millis(250);

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
    let (path, strips) = (built.path.clone(), symbols.is_some());
    let copied = tokio::task::spawn_blocking(move || keep_copy(&path, strips, &keep, &name)).await;
    let copied = copied.map_err(|error| could_not().caused_by(error))?.map_err(|error| could_not().caused_by(error))?;
    if let (Some(symbols), Stripped::TakenOut) = (symbols, copied.symbols) {
        // For debuggers: nothing waits for it.
        tokio::spawn(async move {
            tokio::time::sleep(SYMBOLS_LATER).await;
            let kept = tokio::task::spawn_blocking(move || keep_symbols(&symbols, &built.path));
            // It says itself what went wrong.
            let _ = kept.await;
        });
    }
    let Copied { hash, path, dep_info, .. } = copied;
    let binary = Binary { hash, path, compile, ready: Instant::now(), origin };
    Ok(Build { binary: Some(binary), dep_info, compile })
}

fn keep_symbols(symbols: &Symbols, program: &Path) {
    if let Err(error) = symbols.keep(program) {
        tracing::warn!(%error, program = %program.display(), "the program's symbols are not kept, a debugger will lack them");
    }
}

/// A binary's copy.
struct Copied {
    hash: blake3::Hash,
    path: PathBuf,
    /// The compiler's list beside the original.
    dep_info: Option<String>,
    symbols: Stripped,
}

/// Copies a binary under a name of its own. The copy is what is hashed: it is the
/// same whatever a later build does to the original meanwhile.
fn keep_copy(path: &Path, strips: bool, folder: &Path, name: &str) -> std::io::Result<Copied> {
    let mut original = File::open(path)?;
    let permissions = original.metadata()?.permissions();
    let mut temporary = tempfile::Builder::new().prefix("incoming-").permissions(permissions).tempfile_in(folder)?;
    let symbols = if strips {
        strip(&original, temporary.as_file_mut())?
    } else {
        std::io::copy(&mut original, temporary.as_file_mut())?;
        Stripped::Unknown
    };
    let hash = blake3::Hasher::new().update_reader(File::open(temporary.path())?)?.finalize();
    let copy = folder.join(format!("{name}-{}", &hash.to_hex()[..16]));
    temporary.persist(&copy).map_err(|error| error.error)?;
    Ok(Copied { hash, path: copy, dep_info: std::fs::read_to_string(path.with_extension("d")).ok(), symbols })
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
