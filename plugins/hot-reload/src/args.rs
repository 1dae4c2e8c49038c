//! The command line.

use clap::{Parser, ValueEnum};
use devloop_core::args::{ClusterArgs, GlobalArgs, ViaArgs};
use std::path::PathBuf;

/// Run what you save in the pods, without a new image and without a restart
///
/// Watches the files of the services in devloop.yaml. A changed static file
/// (image.files) is copied into every running container of the service within
/// milliseconds. When sources change, the binary is built and the running
/// process is replaced by it in place: same pod, same address, no restart.
/// While the sources don't compile, the pods keep running the code before.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubectl hot-reload", bin_name = "kubectl hot-reload", version, after_long_help = AFTER_HELP, max_term_width = 100)]
pub struct Args {
    /// Services in the project file, or the targets they are deployed as (deploy/web) [default: all]
    #[arg(value_name = "SERVICE|TARGET")]
    pub services: Vec<String>,
    /// Path of the project file [default: devloop.yaml here or in a folder above]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Copy static files only; changed sources are left alone
    #[arg(long)]
    pub no_build: bool,
    /// Leave the pods as they are at the end, changed
    #[arg(long)]
    pub keep: bool,
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

  # one service; measure until /healthz answers
  kubectl hot-reload shop --probe-path /healthz

  # events for a tool
  kubectl hot-reload shop -o json

  # by the API alone, as on any cluster; say which way is taken, and why
  kubectl hot-reload shop --via api -v

Ways to the containers (--via):
  node  An agent runs on each node that holds a pod of the service. The nodes
        must be on this machine, as those of kubectl devenv and of kind are.
        The pods are not changed.
  api   An agent runs as an ephemeral container in each pod, as root, with the
        capabilities SYS_PTRACE, DAC_OVERRIDE, CHOWN, FOWNER, KILL. Needed: patch on
        pods/ephemeralcontainers, create on pods/attach, and a namespace whose
        pod security policy allows them (privileged). When the session ends, so
        does the agent; Kubernetes keeps its entry in the pod's spec until the
        pod is replaced. Each session adds one.
        The agent's image comes from --agent-image, else it is put on the nodes
        where these are on this machine, else pushed to the cluster's registry
        (ConfigMap kube-public/local-registry-hosting).
  auto  By the node where it can be reached, else by the API.

Ending:
  Ctrl-C ends it with exit code 0. What was changed lives in the running
  containers only: a pod keeps running the changed code until it is replaced.
  To go back to what the image holds: kubectl rollout restart deploy/NAME

Events (-o json):
  ready, pod-added, pod-gone, synced, build-started, build-failed, unchanged,
  swapped, error, stopped; with generation, service, pods, files, phasesMs
  {watch, settle, compile, deliver, swap, served, total} and message, where
  they apply.

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
