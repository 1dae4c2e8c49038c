//! Apply, wait, and go back or clear up.

use crate::execute::{Work, timed};
use crate::gather::Gathered;
use crate::render::{self, PhasesMs, Report, ServiceReport};
use crate::request::{Leftovers, OnFailure, Request};
use devloop_core::cluster::Cluster;
use devloop_core::deploy::{self, Applied, AppliedObject, Orphan, Rollout, Trial, Undone};
use devloop_core::{CommandError, Context, ExitStatus, Result};
use futures::future::try_join_all;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long an apply in progress may go on after Ctrl-C, so that it is not left
/// half done.
const GRACE: Duration = Duration::from_secs(5);

/// Whether the cluster is being changed, so that the work must not be dropped.
#[derive(Debug, Default)]
pub(crate) struct Commit(AtomicBool);

impl Commit {
    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, begun: bool) {
        self.0.store(begun, Ordering::Relaxed);
    }
}

/// Applies what the server has accepted, and waits for the new pods.
pub(crate) async fn roll_out(
    context: &Context,
    request: &Request,
    gathered: &Gathered,
    mut trial: Trial,
    mut work: Vec<Work<'_>>,
    commit: &Commit,
) -> Result<Report> {
    let cluster = &gathered.cluster;
    let orphans = if gathered.is_whole { trial.orphans(&gathered.plan.others) } else { Vec::new() };
    commit.set(true);
    let applied = timed(apply(context, &mut trial)).await;
    let (applied, apply) = match applied {
        Ok(applied) => applied,
        Err(error) => return Err(give_up(context, request, cluster, trial.applied(), error).await),
    };
    for work in &mut work {
        work.phases.apply += apply;
    }
    render::applied(&context.ui, &applied);
    // What is waited for now can be overtaken by a newer rollout, but not while it
    // may have to be taken back.
    commit.set(request.on_failure == OnFailure::RollBack);
    let waited = async {
        let standing = context.shutdown.guard(standing(cluster, &applied, &work)).await?;
        let waits = work.into_iter().zip(standing).map(|(work, standing)| wait(context, request, cluster, &applied, work, standing));
        try_join_all(waits).await
    };
    let services = match waited.await {
        Ok(services) => services,
        Err(error) => return Err(give_up(context, request, cluster, &applied, error).await),
    };
    commit.set(true);
    let (pruned, leftovers) = clear_up(context, request, &trial, &orphans).await?;
    Ok(Report { dry_run: false, services, pruned, leftovers })
}

fn unchanged(error: CommandError, hint: &str) -> CommandError {
    if error.status() == ExitStatus::Interrupted { error.with_hint(hint) } else { error }
}

/// Applies; once it has begun, Ctrl-C waits for its end.
async fn apply(context: &Context, trial: &mut Trial) -> Result<Applied> {
    if context.shutdown.is_requested() {
        return Err(CommandError::interrupted().with_hint("no manifest was applied"));
    }
    let step = context.ui.step("applying the manifests");
    let work = trial.commit();
    tokio::pin!(work);
    let applied = tokio::select! {
        applied = &mut work => applied?,
        () = context.shutdown.requested() => match tokio::time::timeout(GRACE, work).await {
            Ok(applied) => {
                applied?;
                return Err(CommandError::interrupted().with_hint("the manifests were applied, and roll out now"));
            }
            Err(_) => return Err(CommandError::interrupted().with_hint("the API server did not answer; run the command again to apply what is missing")),
        },
    };
    step.clear();
    Ok(applied)
}

/// What stands as it did needs no watch.
async fn standing(cluster: &Cluster, applied: &Applied, work: &[Work<'_>]) -> Result<Vec<Option<Rollout>>> {
    let object = |work: &Work<'_>| applied.find(&work.planned.service.deploy.target).filter(|object| !object.new_generation);
    let found: Vec<&AppliedObject> = work.iter().filter_map(object).collect();
    let mut standing = deploy::standing(cluster, &found).await?.into_iter();
    Ok(work.iter().map(|work| object(work).and_then(|_| standing.next().flatten())).collect())
}

async fn wait(
    context: &Context,
    request: &Request,
    cluster: &Cluster,
    applied: &Applied,
    work: Work<'_>,
    standing: Option<Rollout>,
) -> Result<ServiceReport> {
    let service = &work.planned.service;
    let target = &service.deploy.target;
    let cluster = Cluster { namespace: work.planned.namespace.clone().unwrap_or_else(|| cluster.namespace.clone()), ..cluster.clone() };
    // Not ours to know for a target that the manifests don't have.
    let rolled_out = applied.find(target).is_none_or(|object| object.new_generation);
    let step = context.ui.step(format!("waiting for {target}"));
    let waiting = async {
        match standing {
            Some(rollout) => Ok(rollout),
            None => deploy::wait_ready(&cluster, target, request.timeout, &context.shutdown).await,
        }
    };
    let (Rollout { pods }, ready) = timed(waiting).await.map_err(|error| {
        unchanged(error, &format!("the rollout goes on; see `kubectl rollout status {target} -n {}`", cluster.namespace))
    })?;
    let phases = PhasesMs { ready, ..work.phases };
    if rolled_out {
        step.done(format!("{target} is ready: {}", pods.join(", ")));
    } else {
        step.done(format!("{target} runs {} already, no rollout", work.image.reference));
    }
    Ok(ServiceReport::new(service, &work.image, work.sent_bytes, phases, pods, rolled_out).with_steps(work.steps))
}

/// What is said of a rollout that failed, after it was taken back if that was
/// asked for. What the user ended is left as it is.
async fn give_up(context: &Context, request: &Request, cluster: &Cluster, applied: &Applied, error: CommandError) -> CommandError {
    if request.on_failure == OnFailure::Leave || error.status() == ExitStatus::Interrupted {
        return error;
    }
    let step = context.ui.step("rolling back");
    let undone = match deploy::undo(cluster, &applied.objects).await {
        Ok(undone) => undone,
        Err(undo) => {
            let chain = undo.chain().join(": ");
            return error.with_hint(format!("it could not be rolled back: {chain}"));
        }
    };
    step.clear();
    let (message, hints) = rolled_back(&undone);
    let mut told = CommandError::new(message).caused_by(without_hints(&error));
    for hint in error.hints().into_iter().filter(|hint| !hint.contains("rollout undo")).map(str::to_owned).chain(hints) {
        told = told.with_hint(hint);
    }
    told
}

fn rolled_back(undone: &[Undone]) -> (String, Vec<String>) {
    let mut back = Vec::new();
    let mut hints = Vec::new();
    for undone in undone {
        match undone {
            Undone::PutBack(name) => back.push(name.as_str()),
            Undone::Nearly(name) => {
                back.push(name);
                hints.push(format!("others changed {name} meanwhile; what they changed was left as it is"));
            }
            Undone::New(name) => hints.push(format!("{name} is new: there is nothing to go back to, and it was left to be looked at")),
        }
    }
    let message = match back.as_slice() {
        [] => "the rollout failed, and there was nothing to roll back".to_owned(),
        [one] => format!("the rollout failed and was rolled back: {one} is as before"),
        more => format!("the rollout failed and was rolled back: {} are as before", more.join(", ")),
    };
    (message, hints)
}

/// The same messages; what to do is said anew.
fn without_hints(error: &CommandError) -> CommandError {
    let mut inner: Option<CommandError> = None;
    for message in error.chain().into_iter().rev() {
        let outer = CommandError::new(message);
        inner = Some(match inner {
            Some(inner) => outer.caused_by(inner),
            None => outer,
        });
    }
    inner.unwrap_or_else(|| CommandError::new("the rollout failed"))
}

/// Removes, or tells of, what the project no longer has. Answers which are gone
/// and which are left.
async fn clear_up(context: &Context, request: &Request, trial: &Trial, orphans: &[Orphan]) -> Result<(Vec<String>, Vec<String>)> {
    let mut pruned = Vec::new();
    if request.leftovers == Leftovers::Prune && orphans.iter().any(|orphan| orphan.kept.is_none()) {
        let gone = context.shutdown.guard(trial.prune(orphans)).await.map_err(|error| error.with_hint("the rollout itself went well"))?;
        pruned = gone.iter().map(ToString::to_string).collect();
        context.ui.say(format!("removed {}", pruned.join(", ")));
    }
    let left: Vec<&Orphan> = orphans.iter().filter(|orphan| !pruned.contains(&orphan.id.to_string())).collect();
    left.iter().for_each(|orphan| context.ui.say(render::leftover(orphan)));
    Ok((pruned, left.iter().map(|orphan| orphan.id.to_string()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::ui::render_error;

    #[test]
    fn a_rollback_says_what_is_as_before_and_what_is_not() {
        let all = [Undone::PutBack("deployment/shop".into()), Undone::Nearly("configmap/a".into()), Undone::New("service/b".into())];
        let (message, hints) = rolled_back(&all);
        insta::assert_snapshot!(format!("{message}\n{}", hints.join("\n")), @r"
        the rollout failed and was rolled back: deployment/shop, configmap/a are as before
        others changed configmap/a meanwhile; what they changed was left as it is
        service/b is new: there is nothing to go back to, and it was left to be looked at
        ");
        assert_eq!(rolled_back(&all[..1]).0, "the rollout failed and was rolled back: deployment/shop is as before");
    }

    #[test]
    fn causes_stay_and_hints_go() {
        let error = CommandError::new("a").caused_by(CommandError::new("b").with_hint("c")).with_hint("d");
        insta::assert_snapshot!(render_error(&without_hints(&error)), @r"
        Error: a
        Caused by: b
        ");
    }
}
