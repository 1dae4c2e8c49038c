//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use devloop_core::args::{ClusterArgs, GlobalArgs, OutputArgs, ViaArgs};
use std::path::PathBuf;

/// Run what you save in the pods, without a new image and without a restart
///
/// Keeps the files of a service the same in all its running containers, within
/// milliseconds of each save. Code is built if it has to be, and the running
/// process is replaced in place: same pod, same address, no restart. Any image
/// will do as it is. While the sources don't compile, the pods keep running the
/// code before. At the end the pods are again as they were.
///
/// Services come from devloop.yaml; without one, what belongs to the target is
/// worked out from the Dockerfile, the sources and the running container.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubectl hot-reload",
    bin_name = "kubectl hot-reload",
    version,
    after_long_help = AFTER_HELP,
    max_term_width = 100,
    subcommand_precedence_over_arg = true,
    disable_help_subcommand = true
)]
pub struct Args {
    /// What else can be done.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Services in the project file, or targets (deploy/web, sts/db, pod/x, svc/web) [default: all services]
    #[arg(value_name = "SERVICE|TARGET")]
    pub services: Vec<String>,
    /// Pods with these labels, as a target (kubectl's syntax)
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "services")]
    pub selector: Option<String>,
    /// Path of the project file [default: devloop.yaml here or in a folder above]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Copy static files only; changed sources are left alone
    #[arg(long)]
    pub no_build: bool,
    /// Leave the pods as they are at the end, changed
    #[arg(long)]
    pub keep: bool,
    /// Say what was worked out about the services, and why, and end
    #[arg(long)]
    pub explain: bool,
    /// Say what would be changed in the cluster, and end
    #[arg(long)]
    pub dry_run: bool,
    /// Take liveness and startup probes away for the session, by a rollout
    #[arg(long)]
    pub pause_probes: bool,
    /// Put a supervisor into the pods for the session, by a rollout: it restarts the app with SIGTERM first
    #[arg(long)]
    pub supervise: bool,
    /// Ask each pod for this path until it answers, to measure when a change is served
    #[arg(long, value_name = "PATH")]
    pub probe_path: Option<String>,
    /// Port to ask at [default: the first of image.ports]
    #[arg(long, value_name = "PORT", requires = "probe_path")]
    pub probe_port: Option<u16>,
    /// Form of the events: text on stderr, or one JSON object per line on stdout
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: OutputForm,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Which way to the containers.
    #[command(flatten)]
    pub via: ViaArgs,
    /// Image of the agent for the way through the API, as the nodes can pull it
    #[arg(long, value_name = "IMAGE", env = "DEVLOOP_AGENT_IMAGE", hide_env_values = true, help_heading = "Cluster options")]
    pub agent_image: Option<String>,
    /// How much is said.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// What else can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Write a devloop.yaml with what is worked out about a target
    #[command(after_long_help = INIT_HELP)]
    Init {
        /// The target (deploy/web, sts/db, pod/x, svc/web)
        #[arg(value_name = "TARGET", required_unless_present = "schema")]
        target: Option<String>,
        /// Replace a devloop.yaml that is there
        #[arg(long)]
        force: bool,
        /// Print it instead
        #[arg(long)]
        stdout: bool,
        /// Print the JSON schema of devloop.yaml, for editors
        #[arg(long)]
        schema: bool,
    },
    /// Show the sessions that run on this machine
    Status {
        /// In which form.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Put back what killed sessions left in the cluster
    Undo,
}

const INIT_HELP: &str = "\
Examples:
  # in the project's folder
  kubectl hot-reload init deploy/web

  # just look
  kubectl hot-reload init deploy/web --stdout";

/// The form in which events are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// For people.
    #[default]
    Text,
    /// For tools.
    Json,
}

const AFTER_HELP: &str = "\
Examples:
  # everything in devloop.yaml
  kubectl hot-reload

  # a target, with no devloop.yaml: say first what is worked out
  kubectl hot-reload deploy/web --explain
  kubectl hot-reload deploy/web

  # one service; measure until /healthz answers
  kubectl hot-reload shop --probe-path /healthz

  # events for a tool
  kubectl hot-reload shop -o json

  # by the API alone, as on any cluster; say which way is taken, and why
  kubectl hot-reload shop --via api -v

What happens after a save:
  files      are written beside the old ones and renamed into place, with the
             owner and mode of those; links and removals follow
  code       that is compiled is built; the process is replaced by the new
             program (ptrace, execve). Interpreters (Python, Node, Ruby, Perl,
             shell) are executed again in place. Both keep pod, container,
             process id and address
  config     of nginx: SIGHUP. Everything else, or otherwise: `reload` rules in
             devloop.yaml (none, restart, signal, http, exec)

Ways to the containers (--via):
  node  An agent runs on each node that holds a pod of the service. The nodes
        must be on this machine, as those of kubectl devenv and of kind are.
        The pods are not changed.
  api   An agent runs as an ephemeral container in each pod, as root, with the
        capabilities SYS_PTRACE, DAC_OVERRIDE, CHOWN and FOWNER. Needed: patch on
        pods/ephemeralcontainers, create on pods/attach, and a namespace whose
        pod security policy allows them (privileged). When the session ends, so
        does the agent; Kubernetes keeps its entry in the pod's spec until the
        pod is replaced. Each session adds one.
        The agent's image comes from --agent-image, else it is put on the nodes
        where these are on this machine, else pushed to the cluster's registry
        (ConfigMap kube-public/local-registry-hosting).
  auto  By the node where it can be reached, else by the API.

Ending:
  Ctrl-C, SIGTERM or a closed terminal end it with exit code 0, and so does q. Files,
  programs and patched workloads are again what they were; with --keep pods keep
  running the changed code until they are replaced. When a session is killed, the
  agent in the pod or on the node puts all back by itself; what needs the API is
  done by the next session, or by `kubectl hot-reload undo`.

Keys, on a terminal:
  r start all apps again   p pause   l logs   d how to attach a debugger   q quit

Events (-o json):
  ready, pod-added, pod-gone, synced, verified, build-started, build-failed, halted,
  built, unchanged, swapped, restarted, reloaded, error, undone, stopped; with
  generation, service, pods, files, phasesMs {watch, settle, compile, deliver,
  swap, served, total} and message, where they apply.

Files:
  .gitignore, .dockerignore (static files only) and .devloopignore are honoured.
  No local file is written.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn help() {
        // The width of the terminal must not decide about the snapshot.
        let mut command = Args::command().term_width(100);
        insta::assert_snapshot!(command.render_long_help());
    }
}
