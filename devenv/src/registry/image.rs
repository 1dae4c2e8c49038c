//! Which image our registry is of.

use super::local_image;
use bollard::query_parameters::CreateImageOptions;
use devloop_core::Context;
use devloop_core::docker::{DockerError, Engine};
use devloop_core::error::Result;
use futures::{StreamExt, TryStreamExt};
use std::time::Duration;

/// What others use; the first that the engine has.
const PUBLISHED: [&str; 2] = ["registry:3", "registry:2"];
/// How long a registry elsewhere may take to say that it has the image.
const PROBE: Duration = Duration::from_secs(3);
/// How long pulling the image may take: it has 20 MB.
const PULL: Duration = Duration::from_secs(60);

/// An image that the engine has now: a published one that is there, one that was
/// made here before, a published one that is pulled, or a new one from the
/// program of this machine. `None` when there is none of them.
pub(super) async fn ensure(context: &Context, engine: &Engine) -> Result<Option<String>> {
    let program = local_image::find_program();
    let own = match &program {
        Some(program) => Some(local_image::name(program).await?),
        None => None,
    };
    for name in PUBLISHED.into_iter().chain(own.as_deref()) {
        if engine.client().inspect_image(name).await.is_ok() {
            return Ok(Some(name.to_owned()));
        }
    }
    if pull(context, engine, PUBLISHED[0]).await {
        return Ok(Some(PUBLISHED[0].to_owned()));
    }
    let (Some(program), Some(name)) = (program, own) else { return Ok(None) };
    let archive = local_image::archive(&program, &name).await?;
    let loading = engine.client().import_image(
        bollard::query_parameters::ImportImageOptions { quiet: true, ..Default::default() },
        bollard::body_full(archive.into()),
        None,
    );
    loading.try_for_each(|_| async { Ok(()) }).await.map_err(DockerError::request(format!("load image {name}")))?;
    Ok(Some(name))
}

/// Pulls an image where its registry answers in time; its absence is no failure.
async fn pull(context: &Context, engine: &Engine, name: &str) -> bool {
    let probe = tokio::time::timeout(PROBE, engine.client().inspect_registry_image(name, None)).await;
    if !matches!(probe, Ok(Ok(_))) {
        tracing::debug!(name, "can't be pulled");
        return false;
    }
    let step = context.ui.step(format!("Pulling {name}"));
    let (image, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let options = CreateImageOptions { from_image: Some(image.into()), tag: Some(tag.into()), ..CreateImageOptions::default() };
    let pulling = engine.client().create_image(Some(options), None, None).all(|progress| async move { progress.is_ok() });
    let pulled = tokio::time::timeout(PULL, pulling).await.unwrap_or(false);
    step.clear();
    pulled
}
