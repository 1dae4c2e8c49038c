//! `kubectl devenv load`: an image from Docker, an archive or an OCI layout onto
//! every node.

use crate::provider::Providers;
use crate::request::LoadRequest;
use devloop_core::error::{CommandError, ErrorContext, Result};
use devloop_core::{Context, ExitStatus, deliver};
use std::path::Path;

/// Loads the image and says what that took.
pub(crate) async fn run(context: &Context, providers: &Providers, request: &LoadRequest) -> Result<ExitStatus> {
    let archive = Path::new(&request.image);
    let nodes = providers.of(&request.name).nodes(&request.name).await?;
    let step = context.ui.step(format!("Loading {}", archive.display()));
    let mut images = Vec::new();
    for node in &nodes {
        let loading = context.shutdown.guard(deliver::archive_to_node(node, archive));
        images = loading.await.with_context(|| format!("could not load {}", archive.display()))?;
    }
    if images.is_empty() {
        return Err(CommandError::new(format!("{} has no named image", archive.display()))
            .with_hint("name it when you save it, as in `docker save NAME:TAG`"));
    }
    step.done(format!("Loaded {}", images.join(", ")));
    Ok(ExitStatus::Success)
}
