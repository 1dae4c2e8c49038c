//! From planned services to their images: one arm for each way to make one.

use crate::dockerfile;
use crate::execute::timed;
use crate::gather::Gathered;
use crate::plan::PlannedService;
use devloop_core::build::{self, BuildError, BuiltBinary};
use devloop_core::dockerfile::{Built, Step};
use devloop_core::image::source::{self, Places};
use devloop_core::image::{self, BaseImage, Image, Ingredients};
use devloop_core::project::{Build, ImageSpec};
use devloop_core::{CommandError, Context, ErrorContext, ExitStatus, Result};
use futures::future::try_join_all;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often an image is begun again because files change under it.
const ATTEMPTS: u32 = 5;

/// A service's image, and how long it took, in milliseconds.
#[derive(Debug)]
pub(crate) struct Made<'a> {
    pub(crate) planned: &'a PlannedService,
    pub(crate) image: Image,
    pub(crate) compile: u64,
    pub(crate) assemble: u64,
    /// Of a Dockerfile's build.
    pub(crate) steps: Vec<Step>,
}

/// What a build has left, before the image is put together.
enum Prepared {
    /// A program, for an image that has one; its files are of the project.
    Parts { binary: Option<PathBuf> },
    /// All of it.
    Whole(Box<Built>),
}

/// Makes the images of all services.
pub(crate) async fn all<'a>(context: &Context, gathered: &'a Gathered) -> Result<Vec<Made<'a>>> {
    let keep = gathered.cache.join("builds");
    std::fs::create_dir_all(&keep).with_context(|| format!("could not make {}", keep.display()))?;
    let mut prepared = Vec::with_capacity(gathered.plan.services.len());
    for planned in &gathered.plan.services {
        let (parts, compile) = timed(prepare(context, gathered, &keep, planned)).await?;
        prepared.push((planned, parts, compile));
    }
    // Compilers use all of the machine by themselves; this does not.
    let images = prepared.into_iter().map(|(planned, parts, compile)| async move {
        let ((image, steps), assemble) = timed(finish(gathered, planned, parts)).await?;
        Ok(Made { planned, image, compile, assemble, steps })
    });
    context.shutdown.guard(try_join_all(images)).await
}

/// Runs the service's build.
async fn prepare(context: &Context, gathered: &Gathered, keep: &Path, planned: &PlannedService) -> Result<Prepared> {
    let name = &planned.service.name;
    let has_binary = spec(planned).binary.is_some();
    match &planned.service.build {
        Some(Build::Dockerfile(build)) => {
            Ok(Prepared::Whole(Box::new(dockerfile::build(context, gathered, planned, build).await?)))
        }
        Some(build) => {
            let binary = compile(context, &gathered.root, keep, name, build).await?;
            if has_binary && binary.is_none() {
                return Err(CommandError::usage(format!("the build of service {name:?} makes no binary for its image"))
                    .with_hint("name it in `build.command.output`"));
            }
            Ok(Prepared::Parts { binary: binary.map(|binary| binary.path) })
        }
        None if has_binary => Err(CommandError::usage(format!("service {name:?} has no build, which its image's binary is to come from"))),
        None => Ok(Prepared::Parts { binary: None }),
    }
}

/// Puts the image together.
async fn finish(gathered: &Gathered, planned: &PlannedService, prepared: Prepared) -> Result<(Image, Vec<Step>)> {
    match prepared {
        Prepared::Whole(built) => Ok((built.image, built.steps)),
        Prepared::Parts { binary } => {
            let spec = spec(planned);
            let places = Places {
                cache: &gathered.cache,
                root: &gathered.root,
                nodes: &gathered.cluster.nodes,
                access: gathered.destination.access(),
            };
            let base = source::find(&places, &spec.base, image::local_architecture()).await?;
            Ok((assemble(gathered, spec, binary, base).await?, Vec::new()))
        }
    }
}

/// What the image holds, with all that the service says about it.
fn spec(planned: &PlannedService) -> ImageSpec {
    let binary = planned.service.binary().map(str::to_owned);
    ImageSpec { binary, ..planned.image.clone() }
}

async fn compile(context: &Context, root: &Path, keep: &Path, name: &str, build: &Build) -> Result<Option<BuiltBinary>> {
    let step = context.ui.step(format!("compiling {name}"));
    match build::build_unless_fresh(root, build, keep, &context.shutdown).await {
        Ok(None) => {
            step.done(format!("built {name}"));
            Ok(None)
        }
        Ok(Some(binary)) => {
            if binary.fresh {
                step.done(format!("{name} is compiled already"));
            } else {
                step.done(format!("compiled {name}"));
                if !binary.warnings.is_empty() {
                    context.ui.say(&binary.warnings);
                }
            }
            Ok(Some(binary))
        }
        Err(BuildError::Compile { rendered, errors }) => {
            let count = if errors == 1 { "a compile error".to_owned() } else { format!("{errors} compile errors") };
            Err(CommandError::new(format!("{name} has {count}\n\n{rendered}\n"))
                .with_hint("nothing was changed in the cluster; correct the sources and run the command again"))
        }
        Err(BuildError::Tool(error)) if error.status() == ExitStatus::Interrupted => {
            Err(error.with_hint("nothing was changed in the cluster"))
        }
        Err(BuildError::Tool(error)) => Err(error).with_context(|| format!("could not build {name}")),
    }
}

async fn assemble(gathered: &Gathered, spec: ImageSpec, binary: Option<PathBuf>, base: Option<BaseImage>) -> Result<Image> {
    for attempt in 1.. {
        let (cache, spec, root, binary, base) = (gathered.cache.clone(), spec.clone(), gathered.root.clone(), binary.clone(), base.clone());
        let assembled = tokio::task::spawn_blocking(move || {
            image::assemble(&cache, &spec, &Ingredients { root: &root, binary: binary.as_deref(), base: base.as_ref() })
        });
        match assembled.await.context("could not make the image")? {
            // An editor is at work; it will be done in a moment.
            Err(error) if error.is_transient() && attempt < ATTEMPTS => tokio::time::sleep(Duration::from_millis(20 << attempt)).await,
            outcome => return Ok(outcome?),
        }
    }
    Err(CommandError::new("could not make the image"))
}
