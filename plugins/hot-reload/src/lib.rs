//! `kubectl hot-reload`: what is saved runs in the pod.
//!
//! Code map: `args` (the command line) -> `request` (what it means) -> `gather`
//! (cluster; `services`: of devloop.yaml, or worked out; `sources`: what builds
//! read) -> `plan` and `reload` (pure: which change asks for what) -> `session`
//! (the loop; `lane` is its state per service, `place` where its agents work,
//! `work` what it starts) -> `report` and `screen` (what is said about it).
//! `workloads` patches what has to be for a session, `recover` puts back what a
//! killed one left, `status`, `explain` and `init` tell and write.
//!
//! Architecture invariant: no local file is written, but for copies of the last
//! good binaries in a temporary folder of the session.

mod args;
mod explain;
mod gather;
mod init;
mod keep;
mod keys;
mod lane;
mod place;
mod plan;
mod pods;
mod probe;
mod recover;
mod reload;
mod report;
mod request;
mod screen;
mod services;
mod session;
mod sources;
mod status;
mod work;
mod workloads;

pub use args::Args;

use args::Command;
use devloop_core::changes::{self, Meta};
use devloop_core::cluster::Cluster;
use devloop_core::environment::Directories;
use devloop_core::{Context, ExitStatus, Result, cluster, output};
use gather::Gathered;
use init::Destination;
use place::Routes;
use request::Request;
use status::SessionStatus;

/// Runs until the user ends it.
///
/// # Errors
/// When the project, the cluster or the files can't be used.
pub async fn run(context: Context, args: Args) -> Result<ExitStatus> {
    let command = args.command.clone();
    let mut request = Request::new(args)?;
    match command {
        Some(Command::Init { schema: true, .. }) => init::schema(),
        Some(Command::Init { target, force, stdout, .. }) => {
            request.services = target.into_iter().collect();
            let destination = if stdout {
                Destination::Print
            } else if force {
                Destination::Replace
            } else {
                Destination::New
            };
            init::run(&context, &request, destination).await
        }
        Some(Command::Status { output: form }) => {
            let sessions = SessionStatus::of_all(changes::live(&Directories::from_env()?));
            output::print(form.output, &sessions, || SessionStatus::text_of(&sessions))?;
            Ok(ExitStatus::Success)
        }
        Some(Command::Undo) => undo(&context, &request).await,
        None => hot_reload(context, request).await,
    }
}

async fn undo(context: &Context, request: &Request) -> Result<ExitStatus> {
    let cluster = cluster::connect(&request.cluster).await?;
    let lines = context.shutdown.guard(recover::recover(&cluster)).await?;
    context.ui.say(if lines.is_empty() { "nothing was left to put back".to_owned() } else { lines.join("\n") });
    Ok(ExitStatus::Success)
}

async fn hot_reload(context: Context, request: Request) -> Result<ExitStatus> {
    let shutdown = context.shutdown.clone();
    let begun = async {
        let gathered = gather::gather(&context, &request).await?;
        if request.explain || request.dry_run {
            return explain_all(&request, &gathered).await.map(|()| None);
        }
        match recover::recover(&gathered.cluster).await {
            Ok(lines) => lines.iter().for_each(|line| context.ui.say(line)),
            // What can't be put back now is no reason not to work.
            Err(error) => context.ui.error(&error),
        }
        Ok(Some(gathered))
    };
    let gathered = match shutdown.guard(begun).await {
        Ok(Some(gathered)) => gathered,
        Ok(None) => return Ok(ExitStatus::Success),
        // Nothing was begun, so nothing needs saying.
        Err(error) if error.status() == ExitStatus::Interrupted => return Ok(ExitStatus::Success),
        Err(error) => return Err(error),
    };
    for found in gathered.found.iter().filter(|found| found.is_worked_out) {
        context.ui.say(explain::summary(found));
    }
    let mut journal = changes::Session::begin(&Directories::from_env()?, &meta(&gathered))?;
    if let Err(error) = workloads::apply(&context, &request, &gathered, &mut journal).await {
        let lines = workloads::restore(&gathered.cluster, &mut journal).await?;
        lines.iter().for_each(|line| context.ui.say(line));
        journal.end()?;
        return if error.status() == ExitStatus::Interrupted { Ok(ExitStatus::Success) } else { Err(error) };
    }
    session::run(context, request, gathered, journal).await
}

fn meta(gathered: &Gathered) -> Meta {
    Meta {
        context: gathered.cluster.context.clone(),
        services: gathered.found.iter().map(|found| found.service.name.clone()).collect(),
        pid: std::process::id(),
        started: k8s_openapi::jiff::Timestamp::now().to_string(),
    }
}

/// Says what was worked out, or what would be changed.
async fn explain_all(request: &Request, gathered: &Gathered) -> Result<()> {
    let Cluster { client, namespace, nodes, .. } = &gathered.cluster;
    let routes = Routes { via: request.via, reachable: nodes.iter().map(|node| node.name().to_owned()).collect() };
    for found in &gathered.found {
        let pods = found.selection.pods(client, namespace).await?;
        let lines = if request.explain { explain::lines(found, &pods, &routes) } else { explain::changes(found, &pods, &routes)? };
        output::line(&lines.join("\n"))?;
    }
    if request.dry_run {
        for line in workloads::preview(request, gathered).await? {
            output::line(&line)?;
        }
    }
    Ok(())
}
