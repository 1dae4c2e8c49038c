//! Bringing up a cluster that is there: one made here, or one that somebody
//! else made, of which nothing is changed.

use super::config::{Config, Wanted, add_flags};
use super::containers::{self, Container};
use super::program::Kind;
use super::{Work, files, make, publish, ready, registering};
use crate::journal::Journal;
use crate::kubeconfig::{self, Entry};
use crate::provider::UpReport;
use crate::records;
use devloop_core::environment::{EnvironmentRecord, KindOrigin};
use devloop_core::error::{CommandError, ErrorHint, Result};
use std::collections::BTreeMap;
use std::time::Instant;

/// Brings it up, and into the kubeconfig.
pub(super) async fn existing(
    work: &Work<'_>,
    mut journal: Journal,
    record: Option<EnvironmentRecord>,
    found: Vec<Container>,
    origin: KindOrigin,
) -> Result<UpReport> {
    let name = work.name();
    let stored = if origin == KindOrigin::Made { files::config(&work.environment)? } else { None };
    refuse_other_options(work, stored.as_ref(), &found)?;
    let stopped = found.iter().filter(|container| !container.runs()).count();
    let step = work.context.ui.step(format!("Bringing up kind cluster {name:?}"));
    // A kubeconfig that can't be written is told before anything is started.
    publish_check_early(work, &found, &journal)?;
    containers::start(work.engine, &found).await?;
    let found = if stopped > 0 { containers::of_cluster(work.engine, name).await? } else { found };
    let identity =
        containers::identity(&found).ok_or_else(|| CommandError::new(format!("kind cluster {name:?} has no control plane")))?.to_owned();

    let (text, entry) = credentials(work, &found, &identity, &step).await?;
    publish::check(&entry.name, Some(&entry), &journal)?;
    let client = super::client(&text, &entry.name).await?;
    let nodes = containers::started(work.engine, &found).await?;
    let (network, services) = stored.as_ref().map_or((true, true), |config| (config.has_network(), config.has_services()));
    let expected = ready::Expected { nodes, network, services, until: work.until() };
    let milestones = work.context.shutdown.guard(ready::wait(&client, &expected, &step)).await?;
    // Before anything is made for it, the environment has a folder for its journal.
    records::make_folder(&work.environment)?;

    let new = record.is_none();
    let mut record = record.unwrap_or_else(|| EnvironmentRecord {
        name: name.to_owned(),
        provider: "kind".to_owned(),
        context: entry.name.clone(),
        created: jiff::Timestamp::now().to_string(),
        ..EnvironmentRecord::default()
    });
    record.kind = Some(origin);
    record.server = entry.server.clone();
    files::keep_kubeconfig(&work.environment, &identity, &text)?;
    work.environment.write_record(&record)?;
    let ensuring = registering::ensure(work, origin, record.registry_port, stopped > 0, &client, &mut journal);
    record.registry_port = work.context.shutdown.guard(ensuring).await?;
    publish::publish(&entry, &mut journal, &mut record)?;
    work.environment.write_record(&record)?;

    if new {
        step.done(format!("Adopted kind cluster {name:?}; `down` will leave it as it is"));
    } else if stopped > 0 {
        step.done(format!("kind cluster {name:?} is ready again"));
    } else {
        step.clear();
    }
    let milestones_ms = match stopped {
        0 => BTreeMap::new(),
        _ => milestones.into_iter().map(|(milestone, at)| (milestone.to_owned(), work.since_start(at))).collect(),
    };
    Ok(UpReport {
        name: record.name,
        provider: "kind",
        context: record.context,
        already_up: stopped == 0,
        milestones_ms,
        total_ms: work.since_start(Instant::now()),
    })
}

/// With what is known already of where the context has to lead.
fn publish_check_early(work: &Work<'_>, found: &[Container], journal: &Journal) -> Result<()> {
    kubeconfig::check_writable(&kubeconfig::user_path()?)?;
    let Some(identity) = containers::identity(found) else { return Ok(()) };
    match files::kubeconfig(&work.environment, identity)? {
        Some(text) => {
            let entry = kubeconfig::parse_entry(&text, &work.context_name())?;
            publish::check(&entry.name, Some(&entry), journal)
        }
        None => Ok(()),
    }
}

/// The cluster's credentials: those that are kept, if they still fit, else what
/// kind says.
async fn credentials(work: &Work<'_>, found: &[Container], identity: &str, step: &devloop_core::ui::Step) -> Result<(String, Entry)> {
    if let Some(text) = files::kubeconfig(&work.environment, identity)?
        && let Ok(entry) = kubeconfig::parse_entry(&text, &work.context_name())
        && leads_to(&entry.server, found)
    {
        return Ok((text, entry));
    }
    let kind = Kind::ensure(work.context, work.directories, work.engine).await?;
    let asking = kind.kubeconfig(work.name(), step);
    let text = tokio::time::timeout(work.request.timeout, work.context.shutdown.guard(asking)).await;
    let text = text.map_err(|_| CommandError::new("kind did not answer in time"))??;
    let entry = kubeconfig::parse_entry(&text, &work.context_name())?;
    Ok((text, entry))
}

/// Whether a container publishes the API at this port. The engine chooses it
/// anew at each start where the user's configuration left it the choice.
fn leads_to(server: &str, found: &[Container]) -> bool {
    let port = server.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.is_some_and(|port: u16| found.iter().any(|container| container.api_port == Some(port)))
}

/// What was asked for has to be what is there; nothing asked for is always
/// right.
fn refuse_other_options(work: &Work<'_>, stored: Option<&Config>, found: &[Container]) -> Result<()> {
    let name = work.name();
    let made_otherwise = |path: &str| {
        CommandError::usage(format!("kind cluster {name:?} is there and differs from what is asked for: {path}"))
            .with_hint(format!("leave the option out, or make it anew: `kubectl devenv down --name {name}` first"))
    };
    let mut there = match stored {
        Some(stored) => stored.clone(),
        None => observed(found),
    };
    there.label = format!("kind cluster {name:?}");
    if let Some(port) = found.iter().rev().find_map(|container| container.api_port).filter(|_| work.request.api_port.is_some()) {
        there.set_api_port(port);
    }
    let options = &work.request.kind;
    let mut wanted = there.clone();
    add_flags(&mut wanted, &Wanted { name, options, api_port: work.request.api_port })
        .hint(format!("leave the option out, or make it anew: `kubectl devenv down --name {name}` first"))?;
    if let Some(path) = there.first_difference(&wanted) {
        return Err(made_otherwise(&path));
    }
    if options.config.is_none() {
        return Ok(());
    }
    let Some(stored) = stored else {
        return Err(CommandError::usage(format!("kind cluster {name:?} was not made here, so --config can't be compared with it")))
            .hint("leave --config out");
    };
    // Defaults depend on the machine; only what the user writes is compared.
    match make::wanted_config(work.request)?.first_contradiction(stored) {
        Some(path) => Err(made_otherwise(&path)),
        None => Ok(()),
    }
}

/// What can be seen of a cluster that was not made here.
fn observed(found: &[Container]) -> Config {
    let mut config = Config::empty();
    for container in found.iter().filter(|container| container.is_node()) {
        config.push_node(&container.role, &container.image);
    }
    config
}
