//! From a request to an attached debugger, step by step.

use crate::choose::{self, Chosen, Way};
use crate::editor::{self, Settings, Work};
use crate::follow;
use crate::hold::{Hold, NotHeld, Order};
use crate::journal;
use crate::leases;
use crate::place::{self, Place};
use crate::ports::{self, Opened};
use crate::process::{self, Listed};
use crate::report::{Event, Phases, Reporter, milliseconds};
use crate::request::{Aim, Request};
use crate::restart::{self, Restart};
use crate::runtime::Debugger;
use crate::runtimes::{self, Tool};
use crate::session::{Ending, Session};
use crate::sources::Sources;
use devloop_core::agent::debug::{Candidate, Inspected, Powers};
use devloop_core::cluster::{self, Cluster};
use devloop_core::output::{self, Format};
use devloop_core::target::resolve;
use devloop_core::{CommandError, Context, ExitStatus, Result};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the agent may look.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the process is.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) cluster: Cluster,
    pub(crate) pod: Pod,
    pub(crate) chosen: Chosen,
    pub(crate) way: Way,
    pub(crate) why: &'static str,
}

pub(crate) async fn run(context: &Context, request: Request) -> Result<ExitStatus> {
    let mut kept = Kept::default();
    let done = all(context, &request, &mut kept).await;
    match kept.restart {
        Some(restart) => restart.undo(context).await.and(done),
        None => done,
    }
}

/// What stays when one process takes the place of another.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) restart: Option<Restart>,
    /// None while a session has it.
    pub(crate) opened: Option<Opened>,
    /// Whether there was a process before.
    pub(crate) is_again: bool,
}

async fn all(context: &Context, request: &Request, kept: &mut Kept) -> Result<ExitStatus> {
    let Some(mut session) = context.shutdown.guard(begin(context, request, kept)).await? else { return Ok(ExitStatus::Success) };
    loop {
        let gone = match session.run(context).await? {
            Ending::Over(status) => return Ok(status),
            Ending::Gone(gone) => gone,
        };
        kept.is_again = true;
        session = match follow::next(context, request, *gone, kept).await {
            Ok(session) => session,
            // Nothing is attached.
            Err(error) if error.status() == ExitStatus::Interrupted => return Ok(ExitStatus::Success),
            Err(error) => return Err(error),
        };
    }
}

/// Answers a session, unless all was said already.
pub(crate) async fn begin(context: &Context, request: &Request, kept: &mut Kept) -> Result<Option<Session>> {
    let mut phases = Phases::start();
    let mut found = find(request).await?;
    phases.end("find");
    tracing::info!(pod = found.chosen.pod, container = found.chosen.container, via = found.way.name(), why = found.why, "chosen");
    if request.dry_run {
        output::line(&preview(request, &found).join("\n"))?;
        return Ok(None);
    }
    // Later, what is on record is this run's own.
    if !kept.is_again && restart::recover(context, &found.cluster).await? {
        found = find(request).await?;
    }
    let mut place = Arc::new(reach(context, request, &found).await?);
    phases.end("reach");
    let (mut candidates, mut powers) = inspect(&place, &found.chosen).await?;
    phases.end("inspect");
    if request.aim == Aim::List {
        let listed = Listed::all(&candidates);
        output::print(request.output, &listed, || Listed::text_of(&listed))?;
        return Ok(None);
    }
    let mut candidate = process::choose(&candidates, request.pid)?;
    let changes = restart::changes(request, &found.chosen, candidate);
    if kept.restart.is_none() && !changes.is_empty() {
        Restart::start(context, request, &found.cluster, &changes, &mut kept.restart).await?;
        found = find(request).await?;
        place = Arc::new(reach(context, request, &found).await?);
        (candidates, powers) = inspect(&place, &found.chosen).await?;
        candidate = process::choose(&candidates, request.pid)?;
        phases.end("restart");
    }
    let debugger = process::check(candidate, powers, request.symbols.is_some())?;
    attach(context, request, kept, found, place, candidate, powers, debugger, phases).await.map(Some)
}

pub(crate) async fn find(request: &Request) -> Result<Found> {
    let cluster = cluster::connect(&request.cluster).await?;
    let selection = resolve(&cluster.client, &cluster.namespace, &request.target).await?;
    let pods = selection.pods(&cluster.client, &cluster.namespace).await?;
    let pod = choose::pod(&request.target.to_string(), &pods, request.pod.as_deref())?.clone();
    let chosen = choose::container(&pod, request.container.as_deref())?;
    let is_reachable = cluster.nodes.iter().any(|node| Some(node.name()) == chosen.node.as_deref());
    let (way, why) = choose::way(request.via, &chosen, is_reachable)?;
    Ok(Found { cluster, pod, chosen, way, why })
}

/// What would be done, for `--dry-run`.
fn preview(request: &Request, found: &Found) -> Vec<String> {
    let Found { chosen, way, why, .. } = found;
    let mut lines = vec![format!("process of container {} in pod {}, via {} ({why})", chosen.container, chosen.pod, way.name())];
    match way {
        Way::Node => {
            let node = chosen.node.as_deref().unwrap_or("unknown");
            lines.push(format!("would put the agent and {} on node {node}, below /var/lib/devloop, unless they are there", runtimes::describe()));
            lines.push("would change nothing in the pod".to_owned());
        }
        Way::Pod => lines.push(format!(
            "would start an ephemeral container with the agent, {} and the capabilities SYS_PTRACE, DAC_OVERRIDE and KILL in pod {}, or use that of an earlier run; Kubernetes can't remove it from the pod",
            runtimes::describe(),
            chosen.pod
        )),
    }
    lines.extend(restart::preview(request));
    lines.push("would stop the process for the moment of attaching, and leave it running in the end".to_owned());
    match request.aim {
        Aim::Stdio => {}
        Aim::Trace => lines.push(format!("would halt it for a moment at each call of {}", request.trace.join(", "))),
        Aim::List | Aim::Port | Aim::Cli => lines.push("would open a port on 127.0.0.1".to_owned()),
    }
    lines
}

pub(crate) async fn reach(context: &Context, request: &Request, found: &Found) -> Result<Place> {
    let Found { cluster, pod, chosen, way, .. } = found;
    match way {
        Way::Node => {
            let node = cluster.nodes.iter().find(|node| Some(node.name()) == chosen.node.as_deref());
            place::on_node(node.ok_or_else(|| CommandError::new("the node is gone"))?).await
        }
        Way::Pod => {
            let kits = match request.debug_image {
                Some(_) => Vec::new(),
                None => runtimes::kits(context).await,
            };
            let place = place::in_pod(context, request, cluster, chosen, pod, &kits).await?;
            if let Some(line) = place.introduce() {
                context.ui.say(line);
            }
            Ok(place)
        }
    }
}

pub(crate) async fn inspect(place: &Place, chosen: &Chosen) -> Result<(Vec<Candidate>, Powers)> {
    let mut arguments = vec!["inspect"];
    if place.way == Way::Pod {
        arguments.push("--beside");
    }
    arguments.push(&chosen.id);
    let answers: Vec<Inspected> = place.runner.ask(&arguments, PATIENCE).await?;
    match answers.into_iter().next() {
        Some(Inspected::Found { candidates, powers }) => Ok((candidates, powers)),
        Some(Inspected::Failed { message, .. }) => Err(CommandError::new("the processes of the container can't be seen")
            .caused_by(message)
            .with_hint("if it was just restarted, run the command again")),
        None => Err(CommandError::new("the agent said nothing of the container's processes")),
    }
}

#[expect(clippy::too_many_arguments, reason = "each is what an earlier step found")]
async fn attach(
    context: &Context,
    request: &Request,
    kept: &mut Kept,
    found: Found,
    place: Arc<Place>,
    candidate: &Candidate,
    powers: Powers,
    debugger: Debugger,
    mut phases: Phases,
) -> Result<Session> {
    let chosen = &found.chosen;
    if !matches!(request.aim, Aim::Stdio | Aim::Trace) && kept.opened.is_none() {
        let opened = ports::open(&key(request, &found), request.port).await?;
        if let Some(taken) = opened.instead_of {
            context.ui.warn(format!("port {taken} of this target is taken; this time it is another"));
        }
        kept.opened = Some(opened);
    }
    let (tool, words) = Tool::prepare(context, request, &place, candidate, debugger).await?;
    phases.end("deliver");
    let socket = place.socket(candidate.process.pid);
    let order = Order { socket, process: candidate.process, debugger: words };
    let step = context.ui.step(format!("attaching to process {} of {}", candidate.container_pid, chosen.pod));
    let (held, sources, leases) = tokio::join!(
        Hold::start(&place.runner, &order),
        tool.sources(request, &place, candidate),
        leases::warnings(&found.cluster, &chosen.pod),
    );
    step.clear();
    let hold = held.map_err(|failure| match failure {
        NotHeld::Refused(reason, message) => process::explain(debugger, reason, message, candidate, powers),
        NotHeld::Agent(error) => CommandError::from(error),
    })?;
    phases.end("attach");
    let port = kept.opened.as_ref().map(|opened| opened.port);
    let reporter = Reporter { ui: context.ui.clone(), as_json: request.output == Format::Json };
    reporter.tell(&Event::Attached {
        pod: chosen.pod.clone(),
        container: chosen.container.clone(),
        pid: candidate.container_pid,
        runtime: process::describe(&candidate.runtime),
        via: place.way.name(),
        protocols: debugger.protocols(),
        port,
        stopped_ms: (!debugger.waits_for_clients()).then(|| milliseconds(hold.stopped)),
        ephemeral: place.container.as_ref().map(|container| container.name.clone()),
        substitute_path: sources.rules.clone(),
        sources_found: sources.found,
        sources_all: sources.all,
        phases_ms: phases.all.clone(),
    })?;
    leases.iter().for_each(|warning| context.ui.warn(warning));
    let settings = Settings {
        name: format!("{} (devloop)", request.target),
        target: request.target.to_string(),
        debugger,
        port: port.unwrap_or(0),
        rules: sources.rules.clone(),
    };
    if let Err(error) = after(context, request, kept.is_again, &found, &place, candidate, &sources, &settings) {
        // The debugger is attached; an editor's file is no reason to let go of it.
        context.ui.error(&error);
    }
    Ok(Session {
        found,
        reporter,
        place,
        order,
        hold,
        rules: sources.rules.into(),
        opened: kept.opened.take(),
        aim: request.aim,
        trace: request.trace.clone().into(),
        once: request.once,
        tool: Arc::new(tool),
    })
}

/// What a target is called among all.
fn key(request: &Request, found: &Found) -> String {
    let Cluster { context, namespace, .. } = &found.cluster;
    format!("{context}/{namespace}/{}/{}", request.target, found.chosen.container)
}

/// What is said, written and opened once the debugger is attached.
#[expect(clippy::too_many_arguments, reason = "each is what an earlier step found")]
fn after(
    context: &Context,
    request: &Request,
    is_again: bool,
    found: &Found,
    place: &Place,
    candidate: &Candidate,
    sources: &Sources,
    settings: &Settings,
) -> Result<()> {
    let chosen = &found.chosen;
    if sources.all > 0 {
        context.ui.say(sources.summary());
    }
    if request.folder_is_named && sources.module.is_none() {
        context.ui.warn(format!("nothing of the program is in {}", request.folder.display()));
    }
    sources.warnings().iter().for_each(|warning| context.ui.warn(warning));
    for rule in &sources.rules {
        tracing::info!(local = rule.local, remote = rule.remote, "sources");
    }
    let (mut changed, base): (Vec<PathBuf>, _) = (Vec::new(), sources.module.as_deref().unwrap_or(&request.folder));
    let (folder, has_settings) = editor::folder(base);
    // Editors know already.
    if request.aim == Aim::Port && !is_again {
        match editor::plan(request.editor, &folder, has_settings, settings) {
            Work::Write(path) => {
                if editor::write(&path, settings)? {
                    changed.push(path.clone());
                }
                context.ui.say(format!("VS Code: start {:?} ({})", settings.name, path.display()));
            }
            Work::Show(text) => context.ui.say(text),
            Work::Nothing => {}
        }
        if request.open {
            open(context, &folder);
        }
    }
    journal::note(json!({
        "did": "attach",
        "context": found.cluster.context,
        "namespace": found.cluster.namespace,
        "pod": chosen.pod,
        "container": chosen.container,
        "containerId": chosen.id,
        "pid": candidate.container_pid,
        "command": process::command(candidate),
        "via": place.way.name(),
        "ephemeralContainer": place.container.as_ref().map(|container| &container.name),
        "port": settings.port,
        "files": changed,
    }))
}

/// Lets the desktop open VS Code.
fn open(context: &Context, folder: &Path) {
    let url = editor::url(folder);
    let opener = std::process::Command::new("xdg-open")
        .arg(&url)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    if let Err(error) = opener {
        context.ui.warn(format!("xdg-open could not be started ({error}); open {url}"));
    }
}
