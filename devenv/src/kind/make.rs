//! Making a new cluster, or nothing: whatever goes wrong, what was made is
//! removed again, and what can't be is on the journal.

use super::config::{self, Config, Wanted, add_flags, version_of_image};
use super::program::{Kind, NewCluster};
use super::{Work, containers, dns, files, images, publish, ready, registering, undo};
use crate::journal::{Created, Journal};
use crate::provider::UpReport;
use crate::registry;
use crate::request::UpRequest;
use crate::{kubeconfig, records};
use devloop_core::environment::{EnvironmentRecord, KindOrigin};
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Makes the cluster. Everything that can be checked is checked before anything
/// is made.
pub(super) async fn new_cluster(work: &Work<'_>, mut journal: Journal) -> Result<UpReport> {
    publish::check(&work.context_name(), None, &journal)?;
    let mut config = wanted_config(work.request)?;
    let kind = Kind::ensure(work.context, work.directories, work.engine).await?;
    complete_config(work, &kind, &mut config).await?;

    records::make_folder(&work.environment)?;
    let mut record = EnvironmentRecord {
        name: work.name().to_owned(),
        provider: "kind".to_owned(),
        context: work.context_name(),
        created: jiff::Timestamp::now().to_string(),
        kind: Some(KindOrigin::Unfinished),
        ..EnvironmentRecord::default()
    };
    work.environment.write_record(&record)?;
    journal.add(Created::KindCluster { cluster: work.name().to_owned() })?;
    files::keep_config(&work.environment, &config)?;

    let made = work.context.shutdown.guard(make(work, &kind, &config, &mut journal, &mut record)).await;
    match made {
        Ok(milestones_ms) => Ok(UpReport {
            name: record.name,
            provider: "kind",
            context: record.context,
            already_up: false,
            milestones_ms,
            total_ms: work.since_start(Instant::now()),
        }),
        Err(error) => clean_up(work, &mut journal, &record, error).await,
    }
}

/// The user's configuration with what flags add.
pub(super) fn wanted_config(request: &UpRequest) -> Result<Config> {
    let mut config = match &request.kind.config {
        Some(path) => read_config(path)?,
        None => Config::empty(),
    };
    add_flags(&mut config, &Wanted { name: request.name.as_str(), options: &request.kind, api_port: request.api_port })?;
    Ok(config)
}

fn read_config(path: &Path) -> Result<Config> {
    let label = path.display().to_string();
    let text = std::fs::read(path).with_context(|| format!("could not read {label}"))?;
    let text = String::from_utf8(text).map_err(|_| CommandError::usage(format!("{label} is not text")))?;
    Config::parse(&label, &text)
}

/// Adds images and defaults.
pub(super) async fn complete_config(work: &Work<'_>, kind: &Kind, config: &mut Config) -> Result<()> {
    let version = kind.version().await;
    let (machine, settled) =
        tokio::join!(super::machine(work.engine, &version), images::settle(work.context, work.engine, config, &version));
    settled?;
    let versions: Vec<_> = config.images().iter().map(|image| image.as_deref().and_then(version_of_image)).collect();
    if versions.iter().any(Option::is_none) {
        tracing::info!("the version of a node image isn't in its name; the period of container restarts stays as it is");
    }
    config::add_defaults(config, &machine?, &versions);
    Ok(())
}

async fn make(
    work: &Work<'_>,
    kind: &Kind,
    config: &Config,
    journal: &mut Journal,
    record: &mut EnvironmentRecord,
) -> Result<BTreeMap<String, u64>> {
    let until = work.until();
    let name = work.name();
    let step = work.context.ui.step(format!("Creating kind cluster {name:?}"));
    let new_kubeconfig = files::new_kubeconfig_path(&work.environment);
    let rendered = config.render()?;
    let creating = async {
        kind.create(&NewCluster { name, config: &rendered, kubeconfig: &new_kubeconfig, until }, &step).await?;
        Ok::<_, CommandError>(Instant::now())
    };
    // Both to their end: a registry that is half made is worse than a late error.
    let registry = registry::start(work.context, work.engine, work.directories, work.request.registry, journal);
    let (created, registry) = tokio::join!(creating, registry);
    let mut milestones = vec![("create", created?)];
    let registry = registry?;

    let containers = containers::of_cluster(work.engine, name).await?;
    let identity = containers::identity(&containers).ok_or_else(|| CommandError::new("kind made no control plane"))?;
    let path = files::kubeconfig_path(&work.environment, identity);
    std::fs::rename(&new_kubeconfig, &path).with_context(|| format!("could not keep {}", path.display()))?;
    let text = files::kubeconfig(&work.environment, identity)?.unwrap_or_default();
    let entry = kubeconfig::parse_entry(&text, &work.context_name())?;
    let client = super::client(&text, &entry.name).await?;

    // Now, while its pods still wait for a node.
    if config.has_services() {
        dns::ask_often(&client).await;
    }
    let nodes = containers::started(work.engine, &containers).await?;
    let count = nodes.len();
    let expected = ready::Expected { nodes, network: config.has_network(), services: config.has_services(), until };
    let connecting = registering::connect(work, registry.as_ref(), &client, journal);
    let (ready, connected) = tokio::try_join!(ready::wait(&client, &expected, &step), connecting)?;
    milestones.extend(ready);
    milestones.extend(connected.map(|at| ("registry", at)));
    record.registry_port = registry.map(|registry| registry.port);
    if !expected.network {
        work.context.ui.warn("the configuration turns the default network off: nodes become Ready once you add one");
    }
    record.server = entry.server.clone();
    publish::publish(&entry, journal, record)?;
    record.kind = Some(KindOrigin::Made);
    work.environment.write_record(record)?;
    let nodes = if count == 1 { "node".to_owned() } else { format!("{count} nodes") };
    step.done(format!("kind cluster {name:?} is ready: {nodes} Ready, DNS answering"));
    Ok(milestones.into_iter().map(|(milestone, at)| (milestone.to_owned(), work.since_start(at))).collect())
}

/// Removes what was made. When that fails, too, the journal keeps it for `down`.
async fn clean_up(work: &Work<'_>, journal: &mut Journal, record: &EnvironmentRecord, error: CommandError) -> Result<UpReport> {
    let step = work.context.ui.step(format!("Removing what was made of kind cluster {:?}", work.name()));
    let undone = undo::everything(work.context, work.directories, work.engine, work.name(), journal, record).await;
    step.clear();
    let what = format!("environment {:?} did not come up", work.name());
    let error = match scarce_inotify().filter(|_| !work.context.shutdown.is_requested()) {
        Some(hint) => error.with_hint(hint),
        None => error,
    };
    match undone {
        Ok(()) => Err(error).context(what),
        Err(left) => {
            work.context.ui.warn(format!("what was made could not be removed: {}", left.chain().join(": ")));
            Err(error).context(what).hint(format!("remove the rest with `kubectl devenv down --name {}`", work.name()))
        }
    }
}

/// What kind's own list of known issues recommends; every node takes some 15.
const ENOUGH_INOTIFY_INSTANCES: u32 = 512;

/// Nodes that get no inotify instance hang without a word: where that may be
/// why, it is said.
fn scarce_inotify() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok()?;
    let limit: u32 = text.trim().parse().ok()?;
    (limit < ENOUGH_INOTIFY_INSTANCES).then(|| {
        format!(
            "with other clusters about, {limit} inotify instances may be too few: `sysctl fs.inotify.max_user_instances={ENOUGH_INOTIFY_INSTANCES}`; see `kubectl devenv doctor`"
        )
    })
}
