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

  # A kind cluster with two workers and a local registry; or one that is there already
  kubectl devenv up --provider kind --workers 2
  kubectl devenv up --provider kind --name kind

  # A cluster that others run: nothing but its context is used
  kubectl devenv up --provider context --context staging --allow-context staging

  # What runs, for people and for tools; what is wrong with this machine
  kubectl devenv status -o json
  kubectl devenv doctor

  # Follow a component's log
  kubectl devenv logs kubelet -f

  # Put an image on every node: from Docker, an archive, or an OCI layout
  kubectl devenv load shop:dev
  kubectl devenv load image.tar

  # Free the space of images and caches that nothing uses
  kubectl devenv prune --dry-run

  # Stop it, keeping its objects for the next `up`; or remove every trace
  kubectl devenv down --keep
  kubectl devenv down";

/// A Kubernetes cluster to work in: embedded in seconds without Docker, kind, or one of yours.
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
    /// A kind cluster, made here or adopted
    Kind,
    /// A cluster from the kubeconfig, which is never created or deleted
    Context,
}

/// Where an image is loaded from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SourceArg {
    /// A file is an archive, a folder an OCI layout, anything else an image of Docker
    #[default]
    Auto,
    /// An image that the Docker engine has
    Docker,
    /// A tar made by `docker save`, or of an OCI layout
    Archive,
    /// A folder in OCI image layout
    Layout,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NameArg {
    /// Name of the environment [default: default]
    #[arg(long, value_name = "NAME", env = "DEVLOOP_NAME")]
    pub(crate) name: Option<String>,
}

/// What a kind cluster is made of.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of kind")]
pub(crate) struct KindArgs {
    /// Control plane nodes [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub(crate) control_planes: Option<u16>,
    /// Worker nodes [default: 0]
    #[arg(long, value_name = "COUNT")]
    pub(crate) workers: Option<u16>,
    /// Image of the nodes [default: kind's own, or the one that `scripts/kind-node-image` made]
    #[arg(long, value_name = "IMAGE", env = "KIND_NODE_IMAGE")]
    pub(crate) node_image: Option<String>,
    /// A kind configuration (kind.x-k8s.io/v1alpha4) to add to
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Mount a folder of this machine on every node; may be repeated
    #[arg(long = "mount", value_name = "HOST:NODE[:ro]")]
    pub(crate) mounts: Vec<String>,
    /// Publish a port of the first control plane on this machine; may be repeated
    #[arg(long = "port", value_name = "[ADDRESS:]HOST:NODE[/tcp|udp|sctp]")]
    pub(crate) ports: Vec<String>,
    /// Turn a Kubernetes feature gate on or off; may be repeated
    #[arg(long = "feature-gate", value_name = "NAME=true|false")]
    pub(crate) feature_gates: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the cluster up, or back up; nothing happens if it is up already
    Up {
        #[command(flatten)]
        name: NameArg,
        /// Engine that runs the cluster
        #[arg(long, value_enum, default_value_t, env = "DEVLOOP_PROVIDER")]
        provider: ProviderArg,
        /// Loopback port for the Kubernetes API [default: a free one]
        #[arg(long, value_name = "PORT")]
        api_port: Option<u16>,
        /// Loopback port of the local image registry [default: a free one from 5001 on]
        #[arg(long, value_name = "PORT", conflicts_with = "no_registry")]
        registry_port: Option<u16>,
        /// Don't run an image registry
        #[arg(long)]
        no_registry: bool,
        /// Kubeconfig context to work on, with `--provider context` [default: the current one]
        #[arg(long, value_name = "CONTEXT")]
        context: Option<String>,
        /// Work on this context although it looks like production; remembered
        #[arg(long, value_name = "CONTEXT")]
        allow_context: Option<String>,
        /// How long to wait until it is ready, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 180)]
        timeout: u64,
        #[command(flatten)]
        kind: KindArgs,
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
    /// Put an image on every node; only layers that a node lacks are sent
    Load {
        /// An image of Docker, an archive, or a folder in OCI layout
        image: String,
        /// What IMAGE is
        #[arg(long, value_enum, default_value_t)]
        from: SourceArg,
        #[command(flatten)]
        name: NameArg,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Find what keeps this machine from running clusters, with the fix for each
    Doctor {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove images and cached files that nothing uses any more
    Prune {
        /// Only say what would be removed, and how much space that frees
        #[arg(long)]
        dry_run: bool,
        /// Only of this environment
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
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
