//! `kubectl hot-reload`: what is saved runs in the pod.
//!
//! Code map: `args` (the command line) -> `request` (what it means) -> `gather`
//! (project, cluster, crate graph) -> `plan` (pure: which change asks for what)
//! -> `session` (the loop; `lane` is its state per service, `place` where its
//! agents work, `work` what it starts) -> `report` (what is said about it).
//!
//! Architecture invariant: no local file is written, but for copies of the last
//! good binaries in a temporary folder of the session.

mod args;
mod gather;
mod keys;
mod lane;
mod place;
mod plan;
mod pods;
mod probe;
mod reload;
mod report;
mod request;
mod screen;
mod session;
mod sources;
mod work;

pub use args::Args;

use devloop_core::{Context, ExitStatus, Result};
use request::Request;

/// Runs until the user ends it.
///
/// # Errors
/// When the project, the cluster or the files can't be used.
pub async fn run(context: Context, args: Args) -> Result<ExitStatus> {
    let request = Request::new(args)?;
    let shutdown = context.shutdown.clone();
    let gathered = shutdown.guard(gather::gather(&context, &request)).await;
    match gathered {
        Ok(gathered) => session::run(context, request, gathered).await,
        // Nothing was begun, so nothing needs saying.
        Err(error) if error.status() == ExitStatus::Interrupted => Ok(ExitStatus::Success),
        Err(error) => Err(error),
    }
}
