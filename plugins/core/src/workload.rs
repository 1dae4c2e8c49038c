//! A workload's pod template, changed for the time of a session and restored
//! exactly.
//!
//! [`plan()`] works out what to change and is pure; [`apply`] does it and answers
//! a [`Record`], from which [`restore`] undoes just these changes, whatever
//! others did to the object meanwhile. After that the template is as it was to
//! the byte, so that a Deployment goes back to the ReplicaSet that it had. Each
//! of the two is one rollout.
//!
//! The number of replicas is left to the autoscalers, and
//! `kubectl.kubernetes.io/last-applied-configuration` to kubectl: a `kubectl
//! apply` during a session undoes what it knows of, and the restore the rest.

mod change;
mod error;
pub(crate) mod managers;
mod path;
mod plan;
mod record;
mod supervise;
#[cfg(test)]
mod tests;

pub use change::{apply, preview, restore};
pub use error::PlanError;
pub use path::Path;
pub use plan::plan;
pub use record::{Record, Restored};

use crate::error::{ErrorContext, Result};
use crate::target::Target;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// A change to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Run a container's program below a supervisor that can start it again, see
    /// `devloop_agent::supervise`.
    Supervise {
        /// The container.
        container: String,
        /// The agent's image, as the nodes know it.
        agent_image: String,
        /// What the container runs, for one whose template doesn't say: the
        /// arguments of its process. May be empty for others.
        command: Vec<String>,
        /// How long the program may take to end when it is told to.
        grace: Duration,
    },
    /// Take away the probes that would end a container that doesn't answer.
    PauseProbes {
        /// The container.
        container: String,
    },
    /// Add words to a variable that holds options of the container's program.
    AddOptions {
        /// The container.
        container: String,
        /// The variable.
        variable: String,
        /// What it is in the container where the template doesn't say: by its image.
        seen: Option<String>,
        /// The words.
        options: String,
    },
}

impl Change {
    fn container(&self) -> &str {
        match self {
            Self::Supervise { container, .. } | Self::PauseProbes { container } | Self::AddOptions { container, .. } => container,
        }
    }
}

/// What to change in a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// Which one.
    pub object: ObjectIdentity,
    /// All that changes; none when it is like that already.
    pub edits: Vec<Edit>,
    lines: Vec<String>,
}

/// One object, and no later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectIdentity {
    /// `deployment`, ...
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
}

impl fmt::Display for ObjectIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind, self.name)
    }
}

/// One place that changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// Where.
    pub path: Path,
    /// What was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What we write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl Record {
    /// The workload that was changed.
    ///
    /// # Errors
    /// When the record names none.
    pub fn target(&self) -> Result<Target> {
        self.object.to_string().parse().with_context(|| format!("the record of {} is damaged", self.object))
    }
}

/// Says what a patch would do, a line each.
pub fn describe(patch: &Patch) -> Vec<String> {
    let mut lines: Vec<String> = patch.lines.iter().map(|line| format!("{}: {line}", patch.object)).collect();
    if !patch.edits.is_empty() {
        lines.push(format!("{}: its pods are replaced now, and again when the session is undone", patch.object));
    }
    lines
}
