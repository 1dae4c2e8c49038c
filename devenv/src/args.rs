//! The command line, as clap sees it.

use clap::{Parser, Subcommand};
use devloop_core::args::{GlobalArgs, OutputArgs};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  # A cluster to work in; kubectl's current context points at it afterwards
  kubectl devenv up

  # A second one beside it
  kubectl devenv up --name other

  # What runs, for people and for tools
  kubectl devenv status
  kubectl devenv status -o json

  # Follow a component's log
  kubectl devenv logs kubelet -f

  # Put an image archive on the node
  kubectl devenv load image.tar

  # Stop it, keeping its objects for the next `up`; or remove every trace
  kubectl devenv down --keep
  kubectl devenv down";

/// A local Kubernetes cluster in seconds, without Docker.
#[derive(Debug, Parser)]
#[command(name = "kubectl devenv", bin_name = "kubectl devenv", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which engine runs the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProviderArg {
    /// The best one that is there
    #[default]
    Auto,
    /// Real Kubernetes components as processes of this machine, without Docker
    Embedded,
    /// A kind cluster (not there yet)
    Kind,
    /// A cluster from the kubeconfig (not there yet)
    Context,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NameArg {
    /// Name of the environment
    #[arg(long, default_value = "default", value_name = "NAME", env = "DEVLOOP_NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the cluster up, or back up; nothing happens if it is up already
    Up {
        #[command(flatten)]
        name: NameArg,
        /// Engine that runs the cluster
        #[arg(long, value_enum, default_value_t)]
        provider: ProviderArg,
        /// Loopback port for the Kubernetes API [default: a free one]
        #[arg(long, value_name = "PORT")]
        api_port: Option<u16>,
        /// How long to wait until it is ready, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        timeout: u64,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Take the cluster down and remove everything it left on this machine
    Down {
        #[command(flatten)]
        name: NameArg,
        /// Keep the cluster's objects and images for the next `up`
        #[arg(long)]
        keep: bool,
        /// Take down every environment
        #[arg(long, conflicts_with = "keep")]
        all: bool,
    },
    /// Show the environments and their components
    Status {
        /// Only this environment
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a component's log
    Logs {
        /// The component, as `kubectl devenv status` names it
        component: String,
        #[command(flatten)]
        name: NameArg,
        /// Go on as the log grows
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines
        #[arg(long, value_name = "LINES")]
        tail: Option<usize>,
    },
    /// Put an image archive (OCI or Docker format) on the node
    Load {
        /// The archive
        archive: PathBuf,
        #[command(flatten)]
        name: NameArg,
    },
    /// Print the environment's own kubeconfig
    Kubeconfig {
        #[command(flatten)]
        name: NameArg,
    },
    /// Build the node's programs now instead of at the first `up`; prints their folder
    Build {
        /// Build kubectl, too
        #[arg(long)]
        with_kubectl: bool,
    },
}
