//! Pushing an image: its blobs, where they are missing, then the manifest.

use super::RegistryError;
use super::access::Access;
use super::endpoint::Endpoint;
use super::exchange::{Exchange, Payload, Question};
use super::upload::{BLOB_TYPE, Blob, Sent, Uploads};
use crate::deliver::Progress;
use crate::image::Image;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Method, StatusCode};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// So many blobs are on their way at once.
const AT_ONCE: usize = 4;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// How an image is pushed.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// Credentials and certificates.
    pub access: Access,
    /// Repositories of the same registry that may have some of the layers, such
    /// as the base's: they are taken from there without being sent.
    pub mount_from: Vec<String>,
    /// Larger blobs are sent in pieces of so many bytes, so that a cut costs a
    /// piece at most; by default more on this machine than over a network.
    pub piece_bytes: Option<u64>,
}

/// What a push took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// `sha256:...` of the manifest: with it, the image is named for good.
    pub digest: String,
    /// Bytes of blobs and manifest that were sent.
    pub sent_bytes: u64,
    /// Layers that the registry did not have.
    pub sent_layers: usize,
    /// From beginning to end.
    pub duration: Duration,
}

/// Pushes an image as `REGISTRY/REPOSITORY:TAG`, with what Docker's files say of
/// credentials.
///
/// # Errors
/// [`RegistryError`].
pub async fn push(registry: &str, image: &Image, repository: &str, tag: &str) -> Result<Pushed, RegistryError> {
    let options = PushOptions { access: Access::from_env(), ..PushOptions::default() };
    push_with(registry, image, repository, tag, &options, &Progress::default()).await
}

/// Pushes an image as `REGISTRY/REPOSITORY:TAG`. What the registry has is not
/// sent; a registry that fails or restarts meanwhile is waited for, for some
/// seconds. The tag changes last, so that it never names a part of an image.
///
/// # Errors
/// [`RegistryError`].
pub async fn push_with(
    registry: &str,
    image: &Image,
    repository: &str,
    tag: &str,
    options: &PushOptions,
    progress: &Progress,
) -> Result<Pushed, RegistryError> {
    let started = Instant::now();
    let exchange = Exchange::with_access(Endpoint::reached_by(registry, &options.access)?, &options.access);
    exchange.expect(&format!("repository:{repository}:pull,push")).await;
    let manifest_url = exchange.endpoint.url(&format!("/v2/{repository}/manifests/{tag}"));
    let pushed =
        |sent_bytes, sent_layers| Pushed { digest: image.manifest_digest.clone(), sent_bytes, sent_layers, duration: started.elapsed() };
    let media_type = media_type(&image.manifest);
    if is_there(&exchange, &manifest_url, &media_type, &image.manifest_digest).await? {
        return Ok(pushed(0, 0));
    }
    let of_bases = image.layers.iter().filter_map(|layer| layer.repository_at(exchange.endpoint.name()));
    let others: BTreeSet<String> = options.mount_from.iter().cloned().chain(of_bases).collect();
    for from in &others {
        exchange.expect(&format!("repository:{from}:pull")).await;
    }
    let doing = format!("take the manifest of {repository}:{tag}");
    let payload = Payload::Bytes(Bytes::copy_from_slice(&image.manifest));
    let put = Question { method: Method::PUT, url: manifest_url, media_type, payload };
    let uploads = Uploads::new(&exchange, repository, options, progress);
    let (mut sent_bytes, mut sent_layers) = (0, 0);
    let mut again = true;
    loop {
        let each = blobs(image).into_iter().map(|(blob, is_layer)| {
            let uploads = &uploads;
            async move { uploads.bring(&blob).await.map(|sent| (sent, is_layer)) }
        });
        let sent: Vec<(Sent, bool)> = futures::stream::iter(each).buffer_unordered(AT_ONCE).try_collect().await?;
        sent_bytes += sent.iter().map(|(sent, _)| sent.bytes()).sum::<u64>();
        sent_layers += sent.iter().filter(|(sent, is_layer)| *is_layer && matches!(sent, Sent::Bytes(_))).count();
        let answer = exchange.ask(&doing, &put).await?;
        if answer.status == StatusCode::CREATED {
            answer.check_digest(&exchange, &format!("the manifest of {repository}:{tag}"), &image.manifest_digest)?;
            return Ok(pushed(sent_bytes + put.payload.size(), sent_layers));
        }
        // Blobs that no manifest names yet may have been collected meanwhile.
        if !(again && answer.is_missing_blob()) {
            return Err(exchange.refused(&doing, &answer));
        }
        again = false;
    }
}

/// The bytes of layers that [`push`] would send; `None` when the tag names this
/// image already. Changes nothing.
///
/// # Errors
/// [`RegistryError`].
pub async fn missing_bytes(
    registry: &str,
    image: &Image,
    repository: &str,
    tag: &str,
    access: &Access,
) -> Result<Option<u64>, RegistryError> {
    let exchange = Exchange::with_access(Endpoint::reached_by(registry, access)?, access);
    let manifest_url = exchange.endpoint.url(&format!("/v2/{repository}/manifests/{tag}"));
    if is_there(&exchange, &manifest_url, &media_type(&image.manifest), &image.manifest_digest).await? {
        return Ok(None);
    }
    let looks = image.layers.iter().map(|layer| {
        let url = exchange.endpoint.url(&format!("/v2/{repository}/blobs/{}", layer.digest));
        let look = Question { method: Method::HEAD, url, media_type: BLOB_TYPE.to_owned(), payload: Payload::Nothing };
        let exchange = &exchange;
        async move {
            let answer = exchange.ask("look for a layer", &look).await?;
            match answer.status {
                status if status.is_success() || status.is_redirection() => Ok(0),
                StatusCode::NOT_FOUND => Ok(layer.size),
                _ => Err(exchange.refused("look for a layer", &answer)),
            }
        }
    });
    let missing: Vec<u64> = futures::stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(Some(missing.iter().sum()))
}

/// Waits, for some seconds, until a registry answers.
///
/// # Errors
/// [`RegistryError`]; a registry that asks for credentials is one that answers.
pub async fn wait_until_serving(registry: &str) -> Result<(), RegistryError> {
    let exchange = Exchange::with(Endpoint::parse(registry)?);
    let url = exchange.endpoint.url("/v2/");
    let question = Question { method: Method::GET, url, media_type: "*/*".to_owned(), payload: Payload::Nothing };
    let answer = exchange.ask("reach the registry", &question).await?;
    match answer.status {
        StatusCode::OK | StatusCode::UNAUTHORIZED => Ok(()),
        status => Err(exchange.not_a_registry(format!("it answers {status} at /v2/"))),
    }
}

/// The configuration and the layers, each once, and whether it is a layer.
fn blobs(image: &Image) -> Vec<(Blob, bool)> {
    let config = Blob { digest: image.config_digest(), payload: Payload::Bytes(image.config.clone().into()), layer: None };
    let mut blobs = vec![(config, false)];
    for layer in &image.layers {
        if blobs.iter().all(|(blob, _)| blob.digest != layer.digest) {
            let payload = Payload::File { path: layer.path.clone(), size: layer.size };
            blobs.push((Blob { digest: layer.digest.clone(), payload, layer: Some(layer.clone()) }, true));
        }
    }
    blobs
}

/// What the manifest says it is.
fn media_type(manifest: &[u8]) -> String {
    let manifest = serde_json::from_slice::<serde_json::Value>(manifest).unwrap_or_default();
    manifest["mediaType"].as_str().unwrap_or(MANIFEST_TYPE).to_owned()
}

/// Whether the tag names this image already.
async fn is_there(exchange: &Exchange, manifest_url: &str, media_type: &str, digest: &str) -> Result<bool, RegistryError> {
    let question =
        Question { method: Method::HEAD, url: manifest_url.to_owned(), media_type: media_type.to_owned(), payload: Payload::Nothing };
    let answer = exchange.ask("look for the image", &question).await?;
    match answer.status {
        StatusCode::OK => Ok(answer.header("docker-content-digest") == Some(digest)),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(exchange.refused("look for the image", &answer)),
    }
}
