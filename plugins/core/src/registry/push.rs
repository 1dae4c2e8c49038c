//! Pushing an image: its blobs, where they are missing, then the manifest.

use super::RegistryError;
use super::endpoint::Endpoint;
use super::exchange::{Exchange, Payload, Question, with_attempts};
use crate::image::Image;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Method, StatusCode};
use std::time::{Duration, Instant};

/// So many blobs are on their way at once.
const AT_ONCE: usize = 3;
const BLOB_TYPE: &str = "application/octet-stream";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

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

/// A blob to be there.
struct Blob {
    digest: String,
    payload: Payload,
    is_layer: bool,
}

/// Pushes an image as `REGISTRY/REPOSITORY:TAG`. What the registry has is not
/// sent; a registry that fails or restarts meanwhile is waited for, for some
/// seconds. The tag changes last, so that it never names a part of an image.
///
/// # Errors
/// [`RegistryError`].
pub async fn push(registry: &str, image: &Image, repository: &str, tag: &str) -> Result<Pushed, RegistryError> {
    let started = Instant::now();
    let exchange = Exchange::with(Endpoint::parse(registry)?)?;
    let manifest_url = exchange.endpoint.url(&format!("/v2/{repository}/manifests/{tag}"));
    let pushed =
        |sent_bytes, sent_layers| Pushed { digest: image.manifest_digest.clone(), sent_bytes, sent_layers, duration: started.elapsed() };
    let media_type = media_type(&image.manifest);
    if is_there(&exchange, &manifest_url, &media_type, &image.manifest_digest).await? {
        return Ok(pushed(0, 0));
    }
    let doing = format!("take the manifest of {repository}:{tag}");
    let payload = Payload::Bytes(Bytes::copy_from_slice(&image.manifest));
    let put = Question { method: Method::PUT, url: manifest_url, media_type, payload };
    let (mut sent_bytes, mut sent_layers) = (0, 0);
    let mut again = true;
    loop {
        let uploads = blobs(image).into_iter().map(|blob| {
            let exchange = &exchange;
            async move { upload(exchange, repository, &blob).await.map(|sent| (sent, blob.is_layer)) }
        });
        let sent: Vec<(Option<u64>, bool)> = futures::stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect().await?;
        sent_bytes += sent.iter().filter_map(|(sent, _)| *sent).sum::<u64>();
        sent_layers += sent.iter().filter(|(sent, is_layer)| *is_layer && sent.is_some()).count();
        let answer = exchange.ask(&doing, &put).await?;
        if answer.status == StatusCode::CREATED {
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
pub async fn missing_bytes(registry: &str, image: &Image, repository: &str, tag: &str) -> Result<Option<u64>, RegistryError> {
    let exchange = Exchange::with(Endpoint::parse(registry)?)?;
    let manifest_url = exchange.endpoint.url(&format!("/v2/{repository}/manifests/{tag}"));
    if is_there(&exchange, &manifest_url, &media_type(&image.manifest), &image.manifest_digest).await? {
        return Ok(None);
    }
    let mut bytes = 0;
    for layer in &image.layers {
        let url = exchange.endpoint.url(&format!("/v2/{repository}/blobs/{}", layer.digest));
        let look = Question { method: Method::HEAD, url, media_type: BLOB_TYPE.to_owned(), payload: Payload::Nothing };
        let answer = exchange.ask("look for a layer", &look).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => bytes += layer.size,
            _ => return Err(exchange.refused("look for a layer", &answer)),
        }
    }
    Ok(Some(bytes))
}

/// Waits, for some seconds, until a registry answers.
///
/// # Errors
/// [`RegistryError`]; a registry that asks for credentials is one that answers.
pub async fn wait_until_serving(registry: &str) -> Result<(), RegistryError> {
    let exchange = Exchange::with(Endpoint::parse(registry)?)?;
    let url = exchange.endpoint.url("/v2/");
    let question = Question { method: Method::GET, url, media_type: "*/*".to_owned(), payload: Payload::Nothing };
    let answer = exchange.ask("reach the registry", &question).await?;
    match answer.status {
        StatusCode::OK | StatusCode::UNAUTHORIZED => Ok(()),
        status => Err(exchange.not_a_registry(format!("it answers {status} at /v2/"))),
    }
}

/// The configuration and the layers, each once.
fn blobs(image: &Image) -> Vec<Blob> {
    let config = Blob { digest: image.config_digest(), payload: Payload::Bytes(image.config.clone().into()), is_layer: false };
    let mut blobs = vec![config];
    for layer in &image.layers {
        if blobs.iter().all(|blob| blob.digest != layer.digest) {
            let payload = Payload::File { path: layer.path.clone(), size: layer.size };
            blobs.push(Blob { digest: layer.digest.clone(), payload, is_layer: true });
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

/// Makes sure that the registry has a blob; answers the bytes sent, `None` when
/// it was there. An upload that breaks is begun anew: its place is lost when
/// the registry restarts.
async fn upload(exchange: &Exchange, repository: &str, blob: &Blob) -> Result<Option<u64>, RegistryError> {
    with_attempts(|| async move {
        let short = blob.digest.get(..19).unwrap_or(&blob.digest);
        let doing = format!("take blob {short}");
        let url = exchange.endpoint.url(&format!("/v2/{repository}/blobs/{}", blob.digest));
        let look = Question { method: Method::HEAD, url, media_type: BLOB_TYPE.to_owned(), payload: Payload::Nothing };
        let answer = exchange.ask_once(&doing, &look).await?;
        match answer.status {
            StatusCode::OK => return Ok(None),
            StatusCode::NOT_FOUND => {}
            _ => return Err(exchange.refused(&doing, &answer)),
        }
        let url = exchange.endpoint.url(&format!("/v2/{repository}/blobs/uploads/"));
        let begin = Question { method: Method::POST, url, media_type: BLOB_TYPE.to_owned(), payload: Payload::Nothing };
        let answer = exchange.ask_once(&doing, &begin).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(exchange.refused(&doing, &answer));
        }
        let location = answer.location().ok_or_else(|| exchange.not_a_registry("it names no place for an upload".to_owned()))?;
        let url = exchange.endpoint.upload_url(location, &blob.digest);
        let send = Question { method: Method::PUT, url, media_type: BLOB_TYPE.to_owned(), payload: blob.payload.clone() };
        let answer = exchange.ask_once(&doing, &send).await?;
        if answer.status != StatusCode::CREATED {
            return Err(exchange.refused(&doing, &answer));
        }
        Ok(Some(blob.payload.size()))
    })
    .await
}
