//! From planned services to their images: one arm for each way to make one.

use crate::dockerfile;
use crate::execute::timed;
use crate::gather::Gathered;
use crate::plan::PlannedService;
use crate::provenance;
use devloop_core::build::{self, BuildError, BuiltBinary, Platform};
use devloop_core::dockerfile::{Built, Step};
use devloop_core::image::source::{self, Places};
use devloop_core::image::{self, BaseImage, Image, ImageSet, Ingredients, Layer};
use devloop_core::project::{Build, ImageSpec};
use devloop_core::symbols::Symbols;
use devloop_core::{CommandError, Context, ErrorContext, ExitStatus, Result};
use futures::future::try_join_all;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often an image is begun again because files change under it.
const ATTEMPTS: u32 = 5;

/// A service's image for all platforms, and how long it took, in milliseconds.
#[derive(Debug)]
pub(crate) struct Made<'a> {
    pub(crate) planned: &'a PlannedService,
    pub(crate) image: ImageSet,
    pub(crate) compile: u64,
    pub(crate) assemble: u64,
    /// Of a Dockerfile's build.
    pub(crate) steps: Vec<Step>,
}

/// What a build has left, before the image is put together.
enum Prepared {
    /// A program, for an image that has one, and what it needs; files are of the
    /// project.
    Parts { binary: Option<PathBuf>, dependencies: Vec<Layer> },
    /// All of it.
    Whole(Box<Built>),
}

/// What is the same for all services, for one platform.
struct Making<'a> {
    context: &'a Context,
    gathered: &'a Gathered,
    /// Whether it was asked for.
    asked: bool,
    platform: Platform,
    /// One of several.
    is_one_of_several: bool,
    /// For what builds make that have no place of their own.
    keep: PathBuf,
}

/// Makes the images of all services, for these platforms; for this machine's where
/// none is named.
pub(crate) async fn all<'a>(context: &Context, gathered: &'a Gathered, platforms: &[Platform]) -> Result<Vec<Made<'a>>> {
    let keep = gathered.cache.join("builds");
    std::fs::create_dir_all(&keep).with_context(|| format!("could not make {}", keep.display()))?;
    let asked = !platforms.is_empty();
    let wanted = if asked { platforms.to_vec() } else { vec![Platform::local()] };
    let is_one_of_several = wanted.len() > 1;
    let makings: Vec<Making<'_>> =
        wanted.into_iter().map(|platform| Making { context, gathered, asked, platform, is_one_of_several, keep: keep.clone() }).collect();
    let mut prepared = Vec::with_capacity(gathered.plan.services.len());
    for planned in &gathered.plan.services {
        let mut parts = Vec::with_capacity(makings.len());
        let build = async {
            for making in &makings {
                parts.push((making, making.prepare(planned).await?));
            }
            Ok(())
        };
        let ((), compile) = timed(build).await?;
        prepared.push((planned, parts, compile));
    }
    // Compilers use all of the machine by themselves; this does not.
    let images = prepared.into_iter().map(|(planned, parts, compile)| async move {
        let finish = parts.into_iter().map(|(making, parts)| making.finish(planned, parts));
        let (finished, assemble) = timed(try_join_all(finish)).await?;
        let (images, steps): (Vec<Image>, Vec<Vec<Step>>) = finished.into_iter().unzip();
        let image = ImageSet::of(&planned.image.name, images).ok_or_else(|| CommandError::new("there is no platform to build for"))?;
        Ok(Made { planned, image, compile, assemble, steps: steps.concat() })
    });
    context.shutdown.guard(try_join_all(images)).await
}

impl Making<'_> {
    /// Runs the service's build.
    async fn prepare(&self, planned: &PlannedService) -> Result<Prepared> {
        let name = &planned.service.name;
        let has_binary = spec(planned).binary.is_some();
        match &planned.service.build {
            Some(Build::Dockerfile(build)) => {
                let platform = Some(&self.platform).filter(|_| self.asked);
                let built = dockerfile::build(self.context, self.gathered, planned, build, platform).await?;
                Ok(Prepared::Whole(Box::new(built)))
            }
            Some(build @ (Build::Node(_) | Build::Python(_))) => {
                Ok(Prepared::Parts { binary: None, dependencies: vec![self.install(name, build).await?] })
            }
            Some(build) => {
                let binary = self.compile(name, build).await?;
                if has_binary && binary.is_none() {
                    return Err(CommandError::usage(format!("the build of service {name:?} makes no binary for its image"))
                        .with_hint("name it in `build.command.output`"));
                }
                let binary = match binary {
                    Some(binary) if strips(planned) => Some(self.ship(name, &binary.path).await?),
                    binary => binary.map(|binary| binary.path),
                };
                Ok(Prepared::Parts { binary, dependencies: Vec::new() })
            }
            None if has_binary => {
                Err(CommandError::usage(format!("service {name:?} has no build, which its image's binary is to come from")))
            }
            None => Ok(Prepared::Parts { binary: None, dependencies: Vec::new() }),
        }
    }

    /// Puts the image together.
    async fn finish(&self, planned: &PlannedService, prepared: Prepared) -> Result<(Image, Vec<Step>)> {
        match prepared {
            Prepared::Whole(built) => Ok((built.image, built.steps)),
            Prepared::Parts { binary, dependencies } => {
                let mut spec = spec(planned);
                if let Some(Build::Python(build)) = &planned.service.build {
                    spec.env.entry("PYTHONPATH".to_owned()).or_insert_with(|| build.to.clone());
                }
                let places = Places {
                    cache: &self.gathered.cache,
                    root: &self.gathered.root,
                    nodes: &self.gathered.cluster.nodes,
                    access: self.gathered.destination.access(),
                };
                let base = source::find(&places, &spec.base, self.platform.architecture()).await?;
                let annotations = if spec.annotations { Some(provenance::annotations(&self.gathered.root).await) } else { None };
                Ok((self.assemble(Parts { spec, binary, base, dependencies, annotations }).await?, Vec::new()))
            }
        }
    }

    /// A service's name for messages, with the platform where there are several.
    fn shown(&self, name: &str) -> String {
        if self.is_one_of_several { format!("{name} for {}", self.platform.architecture()) } else { name.to_owned() }
    }

    /// Takes the symbols out of a program, and keeps them here.
    async fn ship(&self, name: &str, program: &Path) -> Result<PathBuf> {
        let (keep, program, symbols) = (self.keep.clone(), program.to_owned(), Symbols::at(&self.gathered.cache));
        let shipped = tokio::task::spawn_blocking(move || build::ship(&keep, &program, &symbols)).await;
        let shipped = shipped.context("could not strip the program")?.with_context(|| format!("could not strip {name}"))?;
        if shipped.whole {
            tracing::info!(name, "may have symbols still: it is no program in a format that is known here");
        }
        Ok(shipped.path)
    }

    /// Installs what a service's sources need.
    async fn install(&self, name: &str, build: &Build) -> Result<Layer> {
        let Gathered { cache, root, .. } = self.gathered;
        let (shutdown, architecture) = (&self.context.shutdown, self.platform.architecture());
        let step = self.context.ui.step(format!("installing what {name} needs"));
        let installed = match build {
            Build::Node(build) => build::dependencies::node(cache, root, build, architecture, shutdown).await,
            Build::Python(build) => build::dependencies::python(cache, root, build, architecture, shutdown).await,
            Build::Cargo(_) | Build::Go(_) | Build::Command(_) | Build::Dockerfile(_) => {
                Err(CommandError::new("nothing is to be installed").into())
            }
        };
        let layer = explained(name, installed)?;
        step.done(format!("what {name} needs is there"));
        Ok(layer)
    }

    async fn compile(&self, name: &str, build: &Build) -> Result<Option<BuiltBinary>> {
        let name = &self.shown(name);
        let step = self.context.ui.step(format!("compiling {name}"));
        let built = build::build_unless_fresh(&self.gathered.root, build, &self.keep, &self.platform, &self.context.shutdown).await;
        match explained(name, built)? {
            None => {
                step.done(format!("built {name}"));
                Ok(None)
            }
            Some(binary) => {
                if binary.fresh {
                    step.done(format!("{name} is compiled already"));
                } else {
                    step.done(format!("compiled {name}"));
                    if !binary.warnings.is_empty() {
                        self.context.ui.say(&binary.warnings);
                    }
                }
                Ok(Some(binary))
            }
        }
    }

    async fn assemble(&self, parts: Parts) -> Result<Image> {
        for attempt in 1.. {
            let (cache, root, parts) = (self.gathered.cache.clone(), self.gathered.root.clone(), parts.clone());
            let architecture = self.platform.architecture().to_owned();
            let assembled = tokio::task::spawn_blocking(move || {
                let ingredients = Ingredients {
                    root: &root,
                    binary: parts.binary.as_deref(),
                    base: parts.base.as_ref(),
                    dependencies: &parts.dependencies,
                    annotations: parts.annotations.as_ref(),
                    architecture: Some(&architecture),
                };
                image::assemble(&cache, &parts.spec, &ingredients)
            });
            match assembled.await.context("could not make the image")? {
                // An editor is at work; it will be done in a moment.
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
                }
                outcome => return Ok(outcome?),
            }
        }
        Err(CommandError::new("could not make the image"))
    }
}

/// What an image is put together of.
#[derive(Clone)]
struct Parts {
    spec: ImageSpec,
    binary: Option<PathBuf>,
    base: Option<BaseImage>,
    dependencies: Vec<Layer>,
    annotations: Option<BTreeMap<String, String>>,
}

/// What the image holds, with all that the service says about it.
fn spec(planned: &PlannedService) -> ImageSpec {
    let binary = planned.service.binary().map(str::to_owned);
    ImageSpec { binary, ..planned.image.clone() }
}

/// Whether the program goes without its symbols. Go's debugger reads them from the
/// program that it is attached to: there they stay unless it is said otherwise.
fn strips(planned: &PlannedService) -> bool {
    planned.image.strip.unwrap_or(!matches!(planned.service.build, Some(Build::Go(_))))
}

/// The outcome of a service's build, in the user's terms.
fn explained<T>(name: &str, outcome: Result<T, BuildError>) -> Result<T> {
    match outcome {
        Ok(made) => Ok(made),
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
