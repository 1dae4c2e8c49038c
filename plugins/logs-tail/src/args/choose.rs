//! What to read.

use clap::{Args, ValueEnum};
use devloop_core::logs::ContainerState;

/// Which containers.
#[derive(Args, Clone, Debug)]
pub struct ChooseArgs {
    /// KIND/NAME of anything that owns pods; a NAME of a Deployment, else a regex or glob of pods
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Only pods with these labels, as in `kubectl get -l`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Only pods with these fields, as in `kubectl get --field-selector`
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// Pods of all namespaces (`--namespace a,b`: of these)
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only pods on this node
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// No pods whose names this regular expression matches; may be repeated
    #[arg(long, value_name = "REGEX")]
    pub exclude_pod: Vec<String>,
    /// Only containers whose names this regular expression matches; may be repeated [default: all]
    #[arg(short, long, value_name = "REGEX")]
    pub container: Vec<String>,
    /// No containers whose names this regular expression matches; may be repeated
    #[arg(short = 'E', long, value_name = "REGEX")]
    pub exclude_container: Vec<String>,
    /// Whether init containers are read
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub init_containers: bool,
    /// Whether ephemeral containers are read
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub ephemeral_containers: bool,
    /// Only containers in these states
    #[arg(long, value_enum, value_name = "STATE", value_delimiter = ',', default_value = "all")]
    pub container_state: Vec<StateArg>,
    /// Only pods of which this condition is so: ready, ready=false
    #[arg(long = "condition", value_name = "CONDITION[=BOOL]")]
    pub pod_condition: Option<String>,
    /// Ask which of the pods
    #[arg(short, long)]
    pub prompt: bool,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// It runs
    Running,
    /// It hasn't started
    Waiting,
    /// It has ended
    Terminated,
    /// Any of these
    All,
}

impl StateArg {
    /// None for any.
    pub(crate) fn state(self) -> Option<ContainerState> {
        match self {
            Self::Running => Some(ContainerState::Running),
            Self::Waiting => Some(ContainerState::Waiting),
            Self::Terminated => Some(ContainerState::Terminated),
            Self::All => None,
        }
    }
}
