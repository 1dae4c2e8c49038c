//! `kubectl rebuild image`: what devloop delivered, and removing what nothing
//! uses. `usage` asks the API what is in use, `plan` (pure) decides, `render`
//! says it.

mod plan;
mod render;
mod usage;

use crate::args::{ImageArgs, ImageCommand, ListForm};
use crate::request::duration;
use devloop_core::args::ClusterArgs;
use devloop_core::cluster::{self, Cluster};
use devloop_core::deliver::{inventory, ledger};
use devloop_core::environment::Directories;
use devloop_core::ui::human_bytes;
use devloop_core::{CommandError, Context, ExitStatus, Result};
use plan::{Fate, Row};
use std::time::Duration;
use usage::Usage;

/// Lists or removes images.
pub(crate) async fn run(context: &Context, cluster: &ClusterArgs, args: &ImageArgs) -> Result<ExitStatus> {
    match &args.command {
        ImageCommand::Ls { output } => list(context, cluster, *output).await,
        ImageCommand::Gc { dry_run, older_than, output } => {
            let older_than = duration("--older-than", older_than)?;
            collect(context, cluster, older_than, *dry_run, *output).await
        }
    }
}

async fn list(context: &Context, args: &ClusterArgs, form: ListForm) -> Result<ExitStatus> {
    let found = context.shutdown.guard(gather(args)).await?;
    // Who uses what is worth a column, not an error.
    let usage = found.usage.unwrap_or_else(|error| {
        context.ui.say(format!("it is not known what is in use: {}", error.chain().join(": ")));
        Usage::default()
    });
    let rows = plan::rows(&found.nodes, &found.ledger, &usage, now());
    render::list(form, &rows)?;
    Ok(told(context, &found.failed))
}

async fn collect(context: &Context, args: &ClusterArgs, older_than: Duration, dry_run: bool, form: ListForm) -> Result<ExitStatus> {
    let found = context.shutdown.guard(gather(args)).await?;
    // Without that, anything may be in use.
    let usage =
        found.usage.map_err(|error| CommandError::new("could not find out what is in use, so nothing was removed").caused_by(error))?;
    let mut rows = plan::rows(&found.nodes, &found.ledger, &usage, now());
    plan::decide(&mut rows, older_than);
    let mut failed = found.failed;
    for node in &found.cluster.nodes {
        let names: Vec<String> =
            rows.iter().filter(|row| row.place == node.name() && row.fate == Fate::Remove).map(|row| row.image.clone()).collect();
        if names.is_empty() || dry_run {
            continue;
        }
        if let Err(error) = context.shutdown.guard(async { Ok(inventory::remove(node, &names).await?) }).await {
            if error.status() == ExitStatus::Interrupted {
                return Err(error.with_hint("images of some nodes were removed; run the command again for the rest"));
            }
            rows.iter_mut().filter(|row| row.place == node.name() && row.fate == Fate::Remove).for_each(|row| row.fate = Fate::Failed);
            failed.push(CommandError::new(format!("could not remove all images from node {}", node.name())).caused_by(error));
        }
    }
    render::collected(form, &rows, dry_run)?;
    let removed: Vec<&Row> = rows.iter().filter(|row| row.fate == Fate::Remove).collect();
    let bytes = human_bytes(removed.iter().map(|row| row.bytes).sum());
    let verb = if dry_run { "would remove" } else { "removed" };
    context.ui.say(format!("{verb} {} of {} images, up to {bytes}", removed.len(), rows.len()));
    Ok(told(context, &failed))
}

fn told(context: &Context, failed: &[CommandError]) -> ExitStatus {
    failed.iter().for_each(|error| context.ui.error(error));
    if failed.is_empty() { ExitStatus::Success } else { ExitStatus::Failure }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// All that is known.
struct Found {
    cluster: Cluster,
    nodes: Vec<(String, Vec<inventory::StoredImage>)>,
    ledger: Vec<ledger::Entry>,
    usage: Result<Usage>,
    /// Of nodes that don't answer.
    failed: Vec<CommandError>,
}

async fn gather(args: &ClusterArgs) -> Result<Found> {
    let cluster = cluster::connect(args).await?;
    let ledger = ledger::read(&Directories::from_env()?.state, &cluster.context)?;
    let pushed: Vec<String> = ledger.iter().map(|entry| entry.digest.clone()).collect();
    let (listed, usage) = tokio::join!(inventory::list(&cluster.nodes, &pushed), usage::ask(&cluster.client));
    let (mut nodes, mut failed) = (Vec::new(), Vec::new());
    for node in listed {
        match node.images {
            Ok(images) => nodes.push((node.node, images)),
            Err(error) => failed
                .push(CommandError::new(format!("could not list the images of node {}", node.node)).caused_by(CommandError::from(error))),
        }
    }
    Ok(Found { cluster, nodes, ledger, usage, failed })
}
