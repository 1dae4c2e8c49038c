//! The command line.

mod image;

pub(crate) use image::{ImageArgs, ImageCommand, ListForm};

use clap::{Parser, Subcommand, ValueEnum};
use devloop_core::args::{ClusterArgs, GlobalArgs, OutputArgs, ViaArgs};
use std::path::PathBuf;

/// Build what changed, deliver it to the cluster and roll it out
///
/// Builds each service's binary, makes an image of it, sends each node the layers
/// that it lacks, applies the manifests and waits until the new pods are ready.
/// Where the registry that the cluster announces (KEP-1755) is the cheaper way, or
/// the only one, the image goes there; with --push, to the registry named.
/// Nothing is changed in the cluster before everything is built and the server
/// has accepted every manifest in a dry run. What runs already is not rolled out
/// again.
///
/// Services come from devloop.yaml; without one, from the manifests in k8s/,
/// deploy/ or manifests/ and the programs and Dockerfiles here that have their
/// images' names.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubectl rebuild",
    bin_name = "kubectl rebuild",
    version,
    after_help = EXAMPLES,
    max_term_width = 100,
    subcommand_precedence_over_arg = true,
    disable_help_subcommand = true
)]
pub struct Args {
    /// What else can be done.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Services of devloop.yaml [default: all]
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    /// The project file [default: devloop.yaml here or in a folder above]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub file: Option<PathBuf>,
    /// Keep on: build and roll out again what a saved file is about, until Ctrl-C
    #[arg(short, long, conflicts_with_all = ["dry_run", "diff"])]
    pub watch: bool,
    /// How long new pods may take to become ready (90s, 2m)
    #[arg(long, value_name = "DURATION", default_value = "120s")]
    pub timeout: String,
    /// Build, and say what would be sent and applied; change nothing in the cluster
    #[arg(long)]
    pub dry_run: bool,
    /// Build, and show what would change in the cluster; exit code 1 if anything would
    #[arg(long, conflicts_with_all = ["dry_run", "prune", "rollback"])]
    pub diff: bool,
    /// Remove what this project applied before and no longer has
    #[arg(long)]
    pub prune: bool,
    /// Put back what was changed if the new pods do not become ready
    #[arg(long, conflicts_with = "dry_run")]
    pub rollback: bool,
    /// Take over fields that someone else manages
    #[arg(long)]
    pub force_conflicts: bool,
    /// Say how long each phase took, in milliseconds
    #[arg(long)]
    pub print_timeline: bool,
    /// Platforms to build for, with commas between them: of several, a registry gets an index [default: this machine's]
    #[arg(long, value_name = "linux/ARCHITECTURE", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Push to this registry, which the nodes pull from: a place for all images, or the whole name of one
    #[arg(long, visible_alias = "registry", value_name = "HOST[:PORT][/PATH][:TAG]")]
    pub push: Option<String>,
    /// A registry that is spoken to without encryption; those on this machine always are
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// The way to the nodes.
    #[command(flatten)]
    pub via: ViaArgs,
    /// Form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// What all plugins have.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// What else can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Name the services that changes since a revision are about; no cluster is asked
    #[command(after_help = AFFECTED)]
    Affected {
        /// What to compare the files here with: since the history of this revision and ours part
        #[arg(long, value_name = "REVISION")]
        since: String,
        /// Form of the output
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: AffectedForm,
    },
    /// List and remove the images that devloop delivered
    Image(ImageArgs),
}

/// The form in which affected services are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AffectedForm {
    /// A name per line
    #[default]
    Name,
    /// With the files that changed, and by way of which packages they count
    Json,
}

const AFFECTED: &str = "\
Files that are not committed count, too. In doubt a service is named.

Examples:
  # What this branch is about
  kubectl rebuild affected --since origin/main

  # For a matrix of CI jobs
  kubectl rebuild affected --since \"$BASE\" -o json | jq -c '[.[].service]'";

const EXAMPLES: &str = "\
Examples:
  # All services of the devloop.yaml here or in a folder above
  kubectl rebuild

  # One service, with the time that each phase took
  kubectl rebuild shop --print-timeline

  # Whenever a file is saved, the services that it is about
  kubectl rebuild --watch

  # What would happen, in short and line by line
  kubectl rebuild --dry-run
  kubectl rebuild --diff

  # For CI: back to what ran before if the new pods fail, and nothing left over
  kubectl rebuild --rollback --prune --timeout 3m -o json

  # Through the cluster's own registry, as for a cluster that is far away
  kubectl rebuild --via api

  # To a registry that the nodes pull from, with the credentials of `docker login`
  kubectl rebuild --push registry.example.com/team

  # For nodes of two kinds
  kubectl rebuild --push registry.example.com/team --platform linux/amd64,linux/arm64

  # What devloop delivered, and what of it nothing uses any more
  kubectl rebuild image ls
  kubectl rebuild image gc --dry-run

  # For a tool
  kubectl rebuild shop -o json | jq -r '.services[].image'

Data goes to stdout, all else to stderr. Exit code 1 when a service does not
compile or its pods do not become ready (also if they were rolled back), 2 when
the request is wrong. With --diff, as with kubectl diff: 0 without a difference,
1 with one, 2 when it can't be told.";
