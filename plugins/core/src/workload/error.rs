//! Why a workload can't be patched.

use crate::error::CommandError;

/// Why a workload can't be patched as asked. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Its containers can't be changed while it exists.
    #[error("pod/{name} was made by nobody's template: the containers of a pod can't be changed")]
    BarePod {
        /// The pod.
        name: String,
    },
    /// What made it would make it again as it was.
    #[error("{object} was made by {owner}, which makes its pods as they were")]
    Owned {
        /// What was to be patched.
        object: String,
        /// What made it, as `kind/name`.
        owner: String,
    },
    /// A kind whose pods aren't replaced when its template changes.
    #[error("the pods of {object} are not replaced when its template changes")]
    NoRollout {
        /// What was to be patched.
        object: String,
    },
    /// A Deployment whose rollouts are paused.
    #[error("the rollouts of {object} are paused: its pods would stay as they are")]
    Paused {
        /// The Deployment.
        object: String,
        /// Its namespace.
        namespace: String,
    },
    /// Its pods are replaced by hand only.
    #[error("{object} leaves it to others to replace its pods: {strategy}")]
    ByHand {
        /// What was to be patched.
        object: String,
        /// The setting that says so.
        strategy: String,
    },
    /// It is on its way out.
    #[error("{object} is being deleted")]
    Deleting {
        /// What was to be patched.
        object: String,
    },
    /// There is no such container.
    #[error("{object} has no container {container:?}")]
    NoContainer {
        /// What was to be patched.
        object: String,
        /// The one that was named.
        container: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// What it runs is known to its image only.
    #[error("what container {container} of {object} runs is said by its image, not by its template")]
    NoCommand {
        /// What was to be patched.
        object: String,
        /// The container.
        container: String,
    },
    /// It was patched before.
    #[error("container {container} of {object} runs under the supervisor already")]
    Supervised {
        /// What was to be patched.
        object: String,
        /// The container.
        container: String,
    },
    /// A name that the patch needs is another's.
    #[error("{object} has {what} of its own, which the supervisor needs")]
    Taken {
        /// What was to be patched.
        object: String,
        /// What is in the way.
        what: String,
    },
    /// A variable whose value the template does not say.
    #[error("variable {variable} of container {container} of {object} comes from elsewhere (valueFrom), and can't be added to")]
    FromElsewhere {
        /// What was to be patched.
        object: String,
        /// The container.
        container: String,
        /// The variable.
        variable: String,
    },
    /// Its containers are not Linux's.
    #[error("{object} runs on Windows, where there is no supervisor")]
    Windows {
        /// What was to be patched.
        object: String,
    },
    /// Changes that exclude each other.
    #[error("{0}")]
    Contradiction(String),
    /// Not an object as the API has it.
    #[error("{0} is not a workload as Kubernetes describes it")]
    Malformed(String),
}

impl PlanError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BarePod { .. } => "let a Deployment make it, or choose a way to reload that leaves its containers alone".to_owned(),
            Self::Owned { owner, .. } => format!("name what has the template: {owner}, or what made that"),
            Self::NoRollout { .. } => "a Deployment, a StatefulSet or a DaemonSet can be patched".to_owned(),
            Self::Paused { object, namespace } => format!("resume them with `kubectl rollout resume {object} -n {namespace}`"),
            Self::ByHand { .. } => "let it update its pods by itself (RollingUpdate without a partition) where you develop".to_owned(),
            Self::NoContainer { known, .. } => format!("its containers: {}", known.join(", ")),
            Self::NoCommand { .. } => "start it once, so that its command can be seen, or write the command into the template".to_owned(),
            Self::Supervised { .. } => {
                "another session is at work there, or one was cut off: end it, or run `kubectl hot-reload` again to have it undone"
                    .to_owned()
            }
            _ => return None,
        })
    }
}

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        let command = Self::new(error.to_string());
        match error.hint() {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}
