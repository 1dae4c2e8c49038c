//! `--watch`: builds and rolls out again what a saved file is about.
//!
//! One loop: a newer save ends a build in flight and what it was about is built
//! again; once the cluster is being changed, that is finished first. Ctrl-C leaves
//! the last rollout as it is.

use crate::execute;
use crate::gather;
use crate::project;
use crate::render::{self, Outcome};
use crate::request::Request;
use crate::rollout::Commit;
use devloop_core::affected::{Affected, Before, Inputs, Shapes};
use devloop_core::project::{ProjectFile, Service};
use devloop_core::ui::human_duration;
use devloop_core::watch::{Generation, Watcher};
use devloop_core::{CommandError, Context, ExitStatus, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::mpsc;

pub(crate) async fn run(context: &Context, request: &Request) -> Result<ExitStatus> {
    // Not dropped by Ctrl-C as a whole: an apply that has begun comes to its end.
    match watch(context, request).await {
        // That is how it ends.
        Err(error) if error.status() == ExitStatus::Interrupted => Ok(ExitStatus::Success),
        Err(error) => Err(error),
        Ok(()) => Ok(ExitStatus::Success),
    }
}

/// What is watched, and what it is about.
struct Watched {
    inputs: Inputs,
    watcher: Watcher,
    generation_rx: mpsc::Receiver<Generation>,
}

async fn watch(context: &Context, request: &Request) -> Result<()> {
    let found = context.shutdown.guard(project::find(request)).await?;
    found.worked_out.iter().for_each(|line| context.ui.say(line));
    let mut names: BTreeSet<String> = selected(&found.project, request)?.iter().map(|service| service.name.clone()).collect();
    // Watched before the first build, so that no save in the meantime is missed.
    let mut watched = context.shutdown.guard(start(context, request, &found.project)).await?;
    context.ui.say(format!("watching {}; Ctrl-C ends", names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")));
    loop {
        let outcome = if names.is_empty() { None } else { Some(attempt(context, request, &names, &mut watched).await?) };
        let saved = match outcome {
            // What it was about is still to be done.
            Some(Attempt::Overtaken(saved)) => saved,
            Some(Attempt::Done(Some(saved))) => {
                names.clear();
                saved
            }
            Some(Attempt::Done(None)) | None => {
                names.clear();
                match context.shutdown.guard(next(context, &mut watched)).await? {
                    Some(saved) => saved,
                    None => continue,
                }
            }
        };
        names.extend(saved.affected.iter().map(|affected| affected.service.clone()));
        if saved.shapes == Shapes::Nothing {
            continue;
        }
        match context.shutdown.guard(look_again(context, request, saved.shapes, &mut watched)).await {
            // What was saved between two watches is not told: all is looked at.
            Ok(Some(all)) => names = all,
            Ok(None) => {}
            Err(error) if error.status() == ExitStatus::Interrupted => return Err(error),
            Err(error) => {
                // Half a save, or a mistake: the next one tells.
                context.ui.error(&error);
                names.clear();
            }
        }
    }
}

/// Asks anew what the services are made of. Answers all of them where they are
/// watched anew.
async fn look_again(context: &Context, request: &Request, shapes: Shapes, watched: &mut Watched) -> Result<Option<BTreeSet<String>>> {
    let found = project::find(request).await?;
    let services = selected(&found.project, request)?;
    if shapes == Shapes::Packages {
        watched.inputs = Inputs::of(&found.project, &services).await?;
        return Ok(None);
    }
    *watched = start(context, request, &found.project).await?;
    Ok(Some(services.iter().map(|service| service.name.clone()).collect()))
}

/// Files that were saved and the services that they are about.
struct Saved {
    affected: Vec<Affected>,
    shapes: Shapes,
}

enum Attempt {
    /// It came to its end; this was saved meanwhile.
    Done(Option<Saved>),
    /// It was given up for this.
    Overtaken(Saved),
}

/// Builds and rolls out, unless something is saved while nothing is changed yet.
/// What goes wrong is said, and is no reason to end.
async fn attempt(context: &Context, request: &Request, names: &BTreeSet<String>, watched: &mut Watched) -> Result<Attempt> {
    let started = Instant::now();
    let request = Request { services: names.iter().cloned().collect(), ..request.clone() };
    let commit = Commit::default();
    let work = rebuild(context, &request, &commit);
    tokio::pin!(work);
    let mut later: Option<Saved> = None;
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            generation = watched.generation_rx.recv() => {
                let Some(saved) = saved(context, watched, generation)? else { continue };
                if commit.has_begun() {
                    // It is soon over; then what was saved has its turn.
                    later = Some(match later {
                        Some(earlier) => earlier.joined(saved),
                        None => saved,
                    });
                    continue;
                }
                context.ui.say("begun anew");
                return Ok(Attempt::Overtaken(saved));
            }
        }
    };
    match outcome {
        Ok(()) => context.ui.say(format!("done in {}", human_duration(started.elapsed()))),
        Err(error) if error.status() == ExitStatus::Interrupted => return Err(error),
        Err(error) => context.ui.error(&error),
    }
    Ok(Attempt::Done(later))
}

impl Saved {
    fn joined(mut self, later: Self) -> Self {
        self.affected.extend(later.affected);
        self.shapes = self.shapes.max(later.shapes);
        self
    }
}

async fn rebuild(context: &Context, request: &Request, commit: &Commit) -> Result<()> {
    let gathering = async { gather::gather(request, &project::find(request).await?).await };
    let gathered = context.shutdown.guard(gathering).await?;
    match execute::execute(context, request, &gathered, commit).await? {
        Outcome::Report(report) => render::event(&context.ui, request, &report),
        Outcome::Ended(_) => Ok(()),
    }
}

/// Waits for a save that a service is about.
async fn next(context: &Context, watched: &mut Watched) -> Result<Option<Saved>> {
    let generation = watched.generation_rx.recv().await;
    saved(context, watched, generation)
}

fn saved(context: &Context, watched: &Watched, generation: Option<Generation>) -> Result<Option<Saved>> {
    let Some(generation) = generation else {
        let why = watched.watcher.failure().map_or_else(|| "the watch ended".to_owned(), ToString::to_string);
        return Err(CommandError::new("could not watch for changes").caused_by(why));
    };
    watched.watcher.take_warnings().iter().for_each(|warning| context.ui.warn(warning.to_string()));
    let changed: Vec<PathBuf> = generation.changes.iter().map(|change| change.path.clone()).collect();
    let affected = watched.inputs.affected(&changed, &Before::default());
    if affected.is_empty() {
        return Ok(None);
    }
    context.ui.say(line(&affected));
    Ok(Some(Saved { affected, shapes: watched.inputs.shapes(&changed) }))
}

/// `shop, cart: src/main.rs changed, and 2 more`
fn line(affected: &[Affected]) -> String {
    let names: Vec<&str> = affected.iter().map(|affected| affected.service.as_str()).collect();
    let files: BTreeSet<&Path> = affected.iter().flat_map(|affected| &affected.reasons).map(|reason| reason.file.as_path()).collect();
    let first = files.first().map(|file| file.display().to_string()).unwrap_or_default();
    let more = if files.len() > 1 { format!(", and {} more", files.len() - 1) } else { String::new() };
    format!("{}: {first} changed{more}", names.join(", "))
}

async fn start(context: &Context, request: &Request, project: &ProjectFile) -> Result<Watched> {
    let inputs = Inputs::of(project, &selected(project, request)?).await?;
    let (watcher, generation_rx) = Watcher::start(inputs.roots())?;
    watcher.take_warnings().iter().for_each(|warning| context.ui.warn(warning.to_string()));
    Ok(Watched { inputs, watcher, generation_rx })
}

/// The services that are asked for and whose images are made here.
fn selected<'a>(project: &'a ProjectFile, request: &Request) -> Result<Vec<&'a Service>> {
    let selected = project.select(&request.services)?;
    Ok(if request.services.is_empty() { selected.into_iter().filter(|service| service.image.is_some()).collect() } else { selected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::affected::Reason;

    #[test]
    fn a_save_is_told_in_a_line() {
        let affected = |service: &str, files: &[&str]| Affected {
            service: service.into(),
            reasons: files.iter().map(|file| Reason { file: file.into(), via: vec![] }).collect(),
        };
        assert_eq!(line(&[affected("shop", &["src/main.rs"])]), "shop: src/main.rs changed");
        assert_eq!(line(&[affected("shop", &["a", "b"]), affected("cart", &["b", "c"])]), "shop, cart: a changed, and 2 more");
    }
}
