//! Manifests into a cluster, and whether what they describe comes to run.
//!
//! Reading ([`load`]), changing ([`replace_image`]) and judging a rollout are
//! pure; [`apply()`] and [`wait_ready`] talk to the API server. Nothing is changed
//! in the cluster before all manifests are read and the server has accepted each
//! in a dry run.

mod apply;
mod assess;
mod manifest;
mod rollout;

pub use apply::{Applied, AppliedObject, ApplyOptions, Change, FIELD_MANAGER, apply, apply_with};
pub use assess::{Cause, Verdict, assess};
pub use manifest::{Manifest, ManifestError, load, replace_image, uses_image};
pub use rollout::{Rollout, Workload, wait_ready};

use crate::cluster::explain;
use crate::error::CommandError;

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
