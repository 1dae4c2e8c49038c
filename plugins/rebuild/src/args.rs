//! The command line.

mod image;

pub(crate) use image::{ImageArgs, ImageCommand, ListForm};

use clap::{Parser, Subcommand};
use devloop_core::args::{ClusterArgs, GlobalArgs, OutputArgs, ViaArgs};
use std::path::PathBuf;

/// Build what changed, deliver it to the cluster and roll it out
///
/// Builds each service's binary, makes an image of it, sends each node the layers
/// that it lacks, applies the manifests and waits until the new pods are ready.
/// Where the registry that the cluster announces (KEP-1755) is the cheaper way, or
/// the only one, the image goes there; with --push, to the registry named.
/// Nothing is changed in the cluster before everything is built. What runs
/// already is not rolled out again.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubectl-rebuild", bin_name = "kubectl rebuild", version, after_help = EXAMPLES, subcommand_precedence_over_arg = true, disable_help_subcommand = true)]
pub struct Args {
    /// What else can be done.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Services of devloop.yaml [default: all]
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    /// The project file [default: devloop.yaml here or in a folder above]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How long new pods may take to become ready (90s, 2m)
    #[arg(long, value_name = "DURATION", default_value = "120s")]
    pub timeout: String,
    /// Build, and say what would be sent and applied; change nothing in the cluster
    #[arg(long)]
    pub dry_run: bool,
    /// Take over fields that someone else manages
    #[arg(long)]
    pub force_conflicts: bool,
    /// Say how long each phase took, in milliseconds
    #[arg(long)]
    pub print_timeline: bool,
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
    /// List and remove the images that devloop delivered
    Image(ImageArgs),
}

const EXAMPLES: &str = "\
Examples:
  # All services of the devloop.yaml here or in a folder above
  kubectl rebuild

  # One service, with the time that each phase took
  kubectl rebuild shop --print-timeline

  # What would happen
  kubectl rebuild --dry-run

  # Through the cluster's own registry, as for a cluster that is far away
  kubectl rebuild --via api

  # To a registry that the nodes pull from, with the credentials of `docker login`
  kubectl rebuild --push registry.example.com/team

  # What devloop delivered, and what of it nothing uses any more
  kubectl rebuild image ls
  kubectl rebuild image gc --dry-run

  # For a tool
  kubectl rebuild shop -o json | jq -r '.services[].image'

Data goes to stdout, all else to stderr. Exit code 1 when a service does not
compile or its pods do not become ready, 2 when the request is wrong.";
