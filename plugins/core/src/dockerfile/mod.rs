//! Images of Dockerfiles, by the BuildKit of a Docker engine, by a BuildKit daemon,
//! or by an engine's classic builder.
//!
//! `plan` reads what there is, `ignore` decides what of it counts, `state` whether
//! anything changed since the last time; nothing is asked of anyone if not. `link`
//! opens a connection, `session` answers what BuildKit asks while it builds (files
//! of the `context`, secrets, credentials), `solve` follows the build and
//! `progress` makes steps of what it tells; `classic` does all that for an engine
//! without BuildKit. `builder` finds the one who builds, by its `address`.
//!
//! bollard's own driver of BuildKit is not used: it sends the whole context with
//! each build, out of memory, and keeps what the builder tells to itself. Its
//! definitions of the protocol are.

mod address;
mod builder;
mod classic;
mod context;
mod error;
pub mod ignore;
mod link;
mod plan;
mod progress;
mod record;
mod session;
mod solve;
mod state;

pub use context::ContextError;
pub use error::DockerfileError;
pub use plan::Plan;
pub use progress::{Event, Step};

use crate::error::Result;
use crate::image::{self, Image, source};
use crate::project::DockerfileBuild;
use builder::Builders;
use record::Record;
use std::path::{Path, PathBuf};

/// What is to be built, and with what.
#[derive(Clone)]
pub struct Request<'a> {
    /// What the project's paths are relative to.
    pub root: &'a Path,
    /// How it is built.
    pub build: &'a DockerfileBuild,
    /// The image's name.
    pub name: &'a str,
    /// Where layers and records are kept.
    pub cache: &'a Path,
    /// Docker's `config.json`, for credentials of registries.
    pub docker_config: Option<PathBuf>,
    /// The cluster and namespace of a builder that is a pod.
    pub cluster: Option<(kube::Client, String)>,
}

/// An image, and how it came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The image; its layers are in the cache.
    pub image: Image,
    /// The build's steps in the order of their ends; none for a build that was not
    /// begun.
    pub steps: Vec<Step>,
    /// Whether nothing had changed, so that no build was begun.
    pub fresh: bool,
}

/// Tells the one who waits what a builder does.
#[derive(Clone, Copy)]
struct Told<'a> {
    builder: &'a str,
    tell: &'a (dyn Fn(Event) + Send + Sync),
}

/// Builds the image, unless nothing has changed since it was built. The build ends
/// on the builder's side when the future is dropped.
///
/// # Errors
/// [`DockerfileError`], or what was wrong with the image that came of it.
pub async fn build(request: &Request<'_>, tell: &(dyn Fn(Event) + Send + Sync)) -> Result<Built> {
    let record_path = record::path(request);
    let (Prepared { plan, inputs }, known) = prepare(request, &record_path).await?;
    let architecture = architecture(request.build);
    if let Some(known) = &known
        && known.digest == inputs.digest
        && let Some(image) = source::recall(request.cache, request.name, &known.image, &architecture, &record_path)
    {
        // Files that have settled since are not read again the next time.
        if known.known != inputs.known {
            Record { known: inputs.known, ..known.clone() }.write(&record_path);
        }
        return Ok(Built { image, steps: Vec::new(), fresh: true });
    }
    let builders = Builders::find(request).await?;
    let tar = tempfile::Builder::new()
        .prefix(".dockerfile-")
        .tempfile_in(record::folder(request))
        .map_err(|source| DockerfileError::Read { path: record::folder(request), source })?;
    let made = builders.build(request, &plan, tar.path(), tell).await?;
    let image = source::import(request.cache, request.name, tar.path(), &architecture).await?;
    let previous = known.and_then(|known| known.engine_image);
    let record = Record {
        digest: inputs.digest,
        known: inputs.known,
        image: source::remember(request.cache, &image),
        engine_image: made.engine_image,
    };
    record.write(&record_path);
    if let Some(previous) = previous.filter(|previous| Some(previous) != record.engine_image.as_ref()) {
        builders.forget(&previous).await;
    }
    Ok(Built { image, steps: made.steps, fresh: false })
}

struct Prepared {
    plan: Plan,
    inputs: state::Inputs,
}

/// Reads the files; on a thread of its own, for a context may be large.
async fn prepare(request: &Request<'_>, record: &Path) -> Result<(Prepared, Option<Record>)> {
    let (root, build, record) = (request.root.to_owned(), request.build.clone(), record.to_owned());
    let work = tokio::task::spawn_blocking(move || {
        let plan = Plan::read(&root, &build)?;
        let known = Record::read(&record);
        let none = state::Known::default();
        let inputs = state::inputs(&plan, &build, known.as_ref().map_or(&none, |known| &known.known))?;
        Ok::<_, DockerfileError>((Prepared { plan, inputs }, known))
    });
    let prepared = work.await.map_err(|error| DockerfileError::Missing(error.to_string()))?;
    Ok(prepared?)
}

/// As Go names it: of the platform that is asked for, else of this machine.
fn architecture(build: &DockerfileBuild) -> String {
    let of_platform = build.platform.as_ref().and_then(|platform| platform.split('/').nth(1));
    of_platform.map_or_else(|| image::local_architecture().to_owned(), str::to_owned)
}
