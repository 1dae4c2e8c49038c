//! A program in a container of a pod, by the API's `exec`: with the container's
//! user, limits and seccomp profile, and without a shell.

use crate::tail::tail_of;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use std::time::Duration;

/// So much of what a program says is kept: its end.
const KEPT: usize = 4096;

/// Why a program in a container did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The API server refused, or the connection broke.
    #[error("could not run {program} in the container")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It ran, or could not be found, and failed.
    #[error("{program} failed: {reason}{}", if .said.is_empty() { String::new() } else { format!("\n{}", .said) })]
    Failed {
        /// The program.
        program: String,
        /// As the container runtime says it, with the exit code.
        reason: String,
        /// The end of what it said.
        said: String,
    },
    /// It did not end in time, and is left to itself.
    #[error("{program} did not end within {} s", limit.as_secs())]
    TimedOut {
        /// The program.
        program: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// Runs a program to its end; answers the end of what it said.
///
/// # Errors
/// When it can't be run, fails, or takes longer than `limit`.
pub async fn run(pods: &Api<Pod>, pod: &str, container: &str, command: &[String], limit: Duration) -> Result<String, ExecError> {
    let program = || command.first().cloned().unwrap_or_default();
    let work = async {
        let parameters = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
        let mut process =
            pods.exec(pod, command, &parameters).await.map_err(|error| ExecError::Start { program: program(), source: Box::new(error) })?;
        let status = process.take_status();
        let (stdout, stderr) = tokio::join!(tail_of(process.stdout(), KEPT), tail_of(process.stderr(), KEPT));
        let said = [stdout, stderr].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        match status {
            Some(status) if status.status.as_deref() == Some("Success") => Ok(said),
            Some(status) => {
                let reason = status.message.or(status.reason).unwrap_or_else(|| "without a reason".to_owned());
                Err(ExecError::Failed { program: program(), reason, said })
            }
            None => Err(ExecError::Failed { program: program(), reason: "the connection broke".to_owned(), said }),
        }
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(ExecError::TimedOut { program: program(), limit }))
}
