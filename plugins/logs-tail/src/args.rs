//! The command line.

use clap::{Parser, ValueEnum};
use devloop_core::args::{ClusterArgs, GlobalArgs};

/// Follow the logs of every pod of a target, across restarts
///
/// Every line of every container (init and ephemeral ones, too) is printed
/// once, through restarts, rollouts and broken connections. Where lines are
/// lost because the cluster no longer has them, that is said.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubectl-logs_tail", bin_name = "kubectl logs-tail", version, after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(false).args(["targets", "selector"])))]
pub struct Args {
    /// What to follow: KIND/NAME (pod, deploy, sts, ds, rs, job, svc); a bare NAME is a Deployment
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Follow the pods with these labels, as in `kubectl get -l`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Only this container; may be repeated [default: all]
    #[arg(short, long = "container", value_name = "NAME")]
    pub containers: Vec<String>,
    /// Of what is there already: only lines that are not older (30s, 5m, 1h30m)
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Of what is there already: at most this many lines of each container
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Print what is there, and end
    #[arg(long)]
    pub no_follow: bool,
    /// Print the log of the instance before the last restart, and end
    #[arg(short, long)]
    pub previous: bool,
    /// Show when each line was written (UTC)
    #[arg(short, long)]
    pub timestamps: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: OutputFormat,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// What all plugins have.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The form of a printed line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// The pod (and container, if it has several), then the line; safe on a terminal
    #[default]
    Default,
    /// The line alone, byte for byte
    Raw,
    /// A JSON object a line: timestamp, namespace, pod, container, message
    Json,
}

const EXAMPLES: &str = "\
Examples:
  # All pods of a Deployment, through rollouts and restarts
  kubectl logs-tail web

  # Two targets at once, from five minutes ago
  kubectl logs-tail deploy/web sts/db --since 5m

  # By label, one container, only what comes from now on
  kubectl logs-tail -l app=web -c app --tail 0

  # What is there, for a tool
  kubectl logs-tail web --no-follow -o json | jq -r .message

  # Why did it crash?
  kubectl logs-tail pod/web-7d4b9 --previous

Lines go to stdout, all else to stderr. Lines are printed as they arrive: those
of one container are in order, those of different containers need not be.
Ctrl-C ends at once, with exit code 0.";
