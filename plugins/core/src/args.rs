//! Flags that every plugin has, under kubectl's own names.

use crate::output::Format;
use crate::telemetry::LogFormat;
use clap::Args;
use std::path::PathBuf;

/// How much is said, and how.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output options")]
pub struct GlobalArgs {
    /// Say more about what is done and why (-vv: debug, -vvv: trace)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say only errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// The form of diagnostics on stderr
    #[arg(long, global = true, value_enum, default_value_t, env = "DEVLOOP_LOG_FORMAT", hide_env = true)]
    pub log_format: LogFormat,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t)]
    pub color: ColorChoice,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which cluster and namespace.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster options")]
pub struct ClusterArgs {
    /// Path of the kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Name of the kubeconfig context [default: the current one]
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,
    /// Namespace [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME", global = true)]
    pub namespace: Option<String>,
}

/// Which of the two ways to a container is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// Through the node where it can be reached, else through the API
    #[default]
    Auto,
    /// Through the node: a local process tree or a local container
    Node,
    /// Through the Kubernetes API alone, which any cluster has
    Api,
}

/// The way to a container.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ViaArgs {
    /// The way to the containers
    #[arg(long, value_enum, default_value_t, env = "DEVLOOP_VIA", hide_env_values = true, help_heading = "Cluster options")]
    pub via: Via,
}

/// The form in which a command prints its data.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}
