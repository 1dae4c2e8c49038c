//! What takes the place of a process: its container's next program, or the next process
//! of the target, in the same pod or another.

use crate::attach::{self, Found, Kept};
use crate::choose;
use crate::request::Request;
use crate::session::{Gone, Session};
use devloop_core::{CommandError, Context, ExitStatus, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::time::{Duration, Instant};

/// How long it may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);

/// Attaches to it, once it is there.
///
/// # Errors
/// When nothing comes, or the user ends it.
pub(crate) async fn next(context: &Context, request: &Request, gone: Gone, kept: &mut Kept) -> Result<Session> {
    let mut request = request.clone();
    if gone.is_replaced {
        request.pod = Some(gone.pod);
    }
    kept.opened = gone.opened;
    let started = Instant::now();
    loop {
        let error = match context.shutdown.guard(attach::begin(context, &request, kept)).await {
            Ok(Some(session)) => return Ok(session),
            Ok(None) => CommandError::new("there is nothing to attach to"),
            Err(error) if error.status() == ExitStatus::Interrupted => return Err(error),
            Err(error) => error,
        };
        // It is only just starting, and much may not be there yet.
        tracing::info!(%error, "not attached yet");
        if started.elapsed() > PATIENCE {
            let words = if gone.is_replaced { "the process runs another program now" } else { "the process has ended" };
            return Err(CommandError::new(format!(
                "{words}, and what came after could not be attached to within {} s",
                PATIENCE.as_secs()
            ))
            .caused_by(error)
            .with_hint("see why with `kubectl logs-tail`; run the command again for the next one"));
        }
        let pause = async {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        };
        context.shutdown.guard(pause).await?;
    }
}

/// Returns when a container does not run any more.
pub(crate) async fn container_ended(found: &Found) {
    let pods: Api<Pod> = Api::namespaced(found.cluster.client.clone(), &found.cluster.namespace);
    loop {
        tokio::time::sleep(PAUSE).await;
        // One that can't be asked for may well be there.
        let Ok(pod) = pods.get_opt(&found.chosen.pod).await else { continue };
        let now = pod.and_then(|pod| choose::container(&pod, Some(&found.chosen.container)).ok());
        if now.is_none_or(|now| now.id != found.chosen.id) {
            return;
        }
    }
}
