//! The command line.

pub(crate) mod choose;
pub(crate) mod lines;
pub(crate) mod output;
pub(crate) mod range;

use choose::ChooseArgs;
use clap::Parser;
use devloop_core::args::{ClusterArgs, GlobalArgs, ViaArgs};
use lines::LineArgs;
use output::OutputArgs;
use range::RangeArgs;

/// Follow the logs of every pod of a target, across restarts
///
/// Every line of every container (init and ephemeral ones, too) is printed
/// once, through restarts, rollouts and broken connections. Where lines are
/// lost because the cluster no longer has them, that is said.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubectl-logs_tail", bin_name = "kubectl logs-tail", version, after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["targets", "selector", "field_selector", "all_namespaces", "node", "prompt", "stdin"])))]
pub struct Args {
    /// What to read.
    #[command(flatten)]
    pub choose: ChooseArgs,
    /// How much of it.
    #[command(flatten)]
    pub range: RangeArgs,
    /// Which lines.
    #[command(flatten)]
    pub lines: LineArgs,
    /// How they are printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The way to the logs.
    #[command(flatten)]
    pub via: ViaArgs,
    /// What all plugins have.
    #[command(flatten)]
    pub global: GlobalArgs,
}

const EXAMPLES: &str = r#"Examples:
  # All pods of a Deployment, through rollouts and restarts
  kubectl logs-tail web

  # Two targets at once, from five minutes ago
  kubectl logs-tail deploy/web sts/db --since 5m

  # Pods by a pattern, in two clusters; by who made them
  kubectl logs-tail 'web-*' --context staging,production
  kubectl logs-tail cronjob/backup

  # By label, one container, only what comes from now on
  kubectl logs-tail -l app=web -c app --tail 0

  # What is there, for a tool
  kubectl logs-tail web --no-follow -o json | jq -r .message

  # Failed requests, with two lines before each
  kubectl logs-tail web --where 'status >= 500 && path ~ "^/api"' -B 2

  # Which crashes are there, and how often?
  kubectl logs-tail web --no-follow --all --group

  # Look through them on the whole screen
  kubectl logs-tail web --ui

  # The same over a file
  kubectl logs-tail --stdin -i timeout < app.log

  # Why did it crash?
  kubectl logs-tail pod/web-7d4b9 --previous

Lines go to stdout, all else to stderr, in the order in which they were written:
exactly what is there already, within --window what comes. Where the pods' nodes
are on this machine, their log files are read (-v says so), with what was rotated.
Ctrl-C ends at once, with exit code 0."#;
