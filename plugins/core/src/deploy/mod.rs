//! Manifests into a cluster, and whether what they describe comes to run.
//!
//! [`Loader`] reads manifests, [`replace_image`] changes them, [`try_apply`] asks
//! the server what would become of them, and [`Trial::commit`] makes it so;
//! [`diff()`] shows it, [`wait_ready`] waits for it, [`undo()`] takes it back.
//! Judging a rollout, comparing and finding what is left over are pure.
//!
//! Architecture invariant: nothing is changed in the cluster before all manifests
//! are read and the server has accepted each in a dry run; but for objects of a
//! kind that is defined with them, which no server can judge before.

mod apply;
mod assess;
mod diff;
mod images;
mod inventory;
mod kinds;
mod manifest;
mod order;
mod rollout;
mod set;
mod source;
mod undo;

pub use apply::{Applied, AppliedObject, ApplyOptions, Change, Trial, try_apply};
pub use assess::{Cause, Verdict, assess};
pub use diff::diff;
pub use images::{images, replace_image, uses_image};
pub use manifest::{Manifest, ManifestError};
pub use rollout::{Rollout, Workload, standing, stands, wait_ready};
pub use set::{ApplySet, Orphan};
pub use source::{HelmCluster, Loader, same_object};
pub(crate) use source::{kustomization_file, kustomization_folder};
pub use undo::{Undone, undo};

use crate::cluster::explain;
use crate::error::CommandError;

/// Who owns the fields that are applied.
pub const FIELD_MANAGER: &str = "devloop";

/// Which object: what `kubectl get` would need to find it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// `apps`, ...; empty for the core's.
    pub group: String,
    /// `Deployment`, ...
    pub kind: String,
    /// None for kinds that have none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// Like [`explain`], with the server's own words instead of the client's.
fn explain_api(error: kube::Error, doing: impl Into<String>) -> CommandError {
    match error {
        kube::Error::Api(status) => {
            let command = CommandError::new(doing).caused_by(status.message.clone());
            match status.code {
                401 => command.with_hint("the credentials in the kubeconfig are not accepted; log in again"),
                403 if status.message.contains("exceeded quota") => {
                    command.with_hint("see what is used with `kubectl describe quota`, or ask for less in the manifest")
                }
                403 => command.with_hint("check what you may do with `kubectl auth can-i --list`"),
                _ => command,
            }
        }
        error => explain(error, doing),
    }
}
