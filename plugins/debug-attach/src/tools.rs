//! What can be known of a process without a debugger. Each tool is one program of the
//! agent's that answers and ends ([`devloop_core::agent::tools`]); what takes long, such
//! as finding names, is done here.

pub(crate) mod args;
mod core_file;
mod flame;
mod functions;
mod groups;
mod pprof;
mod profile;
mod shell;
mod snapshot;
mod stacks;
mod symbolize;
mod terminal;
mod toolbox;

use crate::attach::{self, Found, find, inspect};
use crate::choose::Way;
use crate::kit::Kit;
use crate::place::{self, Place};
use crate::process;
use crate::request::Request;
use args::Look;
use devloop_core::agent::debug::{Candidate, Powers};
use devloop_core::agent::tools::Refusal;
use devloop_core::agent::{AgentError, ErrorKind};
use devloop_core::output;
use devloop_core::{CommandError, Context, ExitStatus, Result};

/// A process that is looked at.
struct Subject<'a> {
    context: &'a Context,
    request: &'a Request,
    found: &'a Found,
    place: &'a Place,
    candidate: &'a Candidate,
    powers: Powers,
}

/// Looks at the process in the way that was asked for.
///
/// # Errors
/// When the cluster, the process or the kernel are against it.
pub(crate) async fn run(context: &Context, request: &Request, look: &Look) -> Result<ExitStatus> {
    context.shutdown.guard(look_at(context, request, look)).await
}

async fn look_at(context: &Context, request: &Request, look: &Look) -> Result<ExitStatus> {
    let found = find(request).await?;
    if request.dry_run {
        output::line(&preview(&found, look).join("\n"))?;
        return Ok(ExitStatus::Success);
    }
    let toolbox = match look {
        Look::Shell { .. } => Some(toolbox::kit().await?),
        // Without it the others work, too, and with it they share a container.
        _ => toolbox::kit().await.ok(),
    };
    let place = match look {
        Look::Snapshot => attach::reach(context, request, &found).await?,
        _ => reach(context, request, &found, toolbox.as_ref()).await?,
    };
    let (candidates, powers) = inspect(&place, &found.chosen).await?;
    let candidate = process::choose_any(&candidates, request.pid)?;
    process::check_any(candidate, powers)?;
    let subject = Subject { context, request, found: &found, place: &place, candidate, powers };
    match look {
        Look::Core { file } => core_file::run(&subject, file.as_deref()).await?,
        Look::Profile { duration, out } => profile::run(&subject, *duration, out.as_deref()).await?,
        Look::Snapshot => snapshot::run(&subject).await?,
        Look::Shell { command } => return shell::run(&subject, toolbox.as_ref(), command).await,
    }
    Ok(ExitStatus::Success)
}

/// What would be done, for `--dry-run`.
fn preview(found: &Found, look: &Look) -> Vec<String> {
    let Found { chosen, way, why, .. } = found;
    let mut lines = vec![format!("process of container {} in pod {}, via {} ({why})", chosen.container, chosen.pod, way.name())];
    lines.push(match way {
        Way::Node => {
            let node = chosen.node.as_deref().unwrap_or("unknown");
            format!("would put the agent on node {node}, below /var/lib/devloop, unless it is there, and change nothing in the pod")
        }
        Way::Pod => format!(
            "would start an ephemeral container with the agent and the capabilities {} in pod {}, or use that of an earlier run; Kubernetes can't remove it from the pod",
            place::capabilities(),
            chosen.pod
        ),
    });
    lines.push(look.preview());
    lines
}

async fn reach(context: &Context, request: &Request, found: &Found, toolbox: Option<&Kit>) -> Result<Place> {
    let Found { cluster, pod, chosen, way, .. } = found;
    if *way == Way::Node {
        let node = cluster.nodes.iter().find(|node| Some(node.name()) == chosen.node.as_deref());
        return place::on_node(node.ok_or_else(|| CommandError::new("the node is gone"))?).await;
    }
    let place = place::in_pod(context, request, cluster, chosen, pod, toolbox.map(std::slice::from_ref).unwrap_or_default()).await?;
    if let Some(line) = place.introduce() {
        context.ui.say(line);
    }
    Ok(place)
}

impl Subject<'_> {
    /// The process, in the words of the agent's commands.
    fn words(&self) -> [String; 2] {
        [self.candidate.process.pid.to_string(), self.candidate.process.start_time.to_string()]
    }

    /// Such as `core.web-7d4b9-x.1`.
    fn file_name(&self, begin: &str) -> String {
        format!("{begin}.{}.{}", self.found.chosen.pod, self.candidate.container_pid)
    }

    /// Such as `process 1 (Go 1.26.8) of web-7d4b9-x/web`.
    fn describe(&self) -> String {
        let chosen = &self.found.chosen;
        let runtime = process::describe(&self.candidate.runtime);
        format!("process {} ({runtime}) of {}/{}", self.candidate.container_pid, chosen.pod, chosen.container)
    }

    /// Why a tool did not do its work.
    fn explain(&self, what: &str, refusal: Refusal) -> CommandError {
        let error = CommandError::new(what).caused_by(refusal.message);
        match refusal.kind {
            ErrorKind::Vanished => error.with_hint("see its log with `kubectl logs-tail`, then run the command again"),
            ErrorKind::Permission => {
                error.with_hint("end the debugger that traces it, if there is one; see the node's security modules (AppArmor, SELinux) and the pod's seccomp profile")
            }
            ErrorKind::TimedOut => error.with_hint("see what the node waits for, with `ps` or in its log, and run the command again"),
            _ => error,
        }
    }
}

/// The connection to the agent went away in the middle.
fn cut(what: &str, complaint: String) -> CommandError {
    let error = CommandError::new(what);
    let error = if complaint.is_empty() { error.caused_by("the connection to the agent ended") } else { error.caused_by(complaint) };
    error.with_hint("the process runs on; run the command again")
}

/// Nothing came for too long.
fn silent(what: &str, limit: std::time::Duration) -> CommandError {
    CommandError::new(what)
        .caused_by(CommandError::from(AgentError::TimedOut(limit)))
        .with_hint("the process runs on; run the command again")
}
