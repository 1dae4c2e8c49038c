//! Pushing an image: its blobs, where they are missing, then the manifest.

use super::RegistryError;
use super::access::Access;
use super::endpoint::Endpoint;
use super::exchange::{Exchange, Payload, Question};
use super::upload::{BLOB_TYPE, Blob, Sent, Uploads};
use crate::deliver::Progress;
use crate::image::{Image, ImageSet, Layer, media_type};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Method, StatusCode};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// So many blobs are on their way at once.
const AT_ONCE: usize = 4;

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
    /// `sha256:...` of the manifest, or of the index: with it, the image is named for
    /// good.
    pub digest: String,
    /// Bytes of blobs and manifests that were sent.
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
    push_with(registry, &image.clone().into(), repository, tag, &options, &Progress::default()).await
}

/// Pushes an image as `REGISTRY/REPOSITORY:TAG`, of several platforms all of them and
/// an index. What the registry has is not sent; a registry that fails or restarts meanwhile is waited for, for some
/// seconds. The tag changes last, so that it never names a part of an image.
///
/// # Errors
/// [`RegistryError`].
pub async fn push_with(
    registry: &str,
    set: &ImageSet,
    repository: &str,
    tag: &str,
    options: &PushOptions,
    progress: &Progress,
) -> Result<Pushed, RegistryError> {
    let started = Instant::now();
    let exchange = Exchange::with_access(Endpoint::reached_by(registry, &options.access)?, &options.access);
    exchange.expect(&format!("repository:{repository}:pull,push")).await;
    let pushed = |sent_bytes, sent_layers| Pushed { digest: set.digest.clone(), sent_bytes, sent_layers, duration: started.elapsed() };
    let documents = documents(&exchange, set, repository, tag);
    if is_there(&exchange, set, repository, tag).await? {
        return Ok(pushed(0, 0));
    }
    let layers = set.images().iter().flat_map(|image| &image.layers);
    let of_bases = layers.filter_map(|layer| layer.repository_at(exchange.endpoint.name()));
    let others: BTreeSet<String> = options.mount_from.iter().cloned().chain(of_bases).collect();
    for from in &others {
        exchange.expect(&format!("repository:{from}:pull")).await;
    }
    let uploads = Uploads::new(&exchange, repository, options, progress);
    let (mut sent_bytes, mut sent_layers) = (0, 0);
    let mut again = true;
    'anew: loop {
        let each = blobs(set.images()).into_iter().map(|(blob, is_layer)| {
            let uploads = &uploads;
            async move { uploads.bring(&blob).await.map(|sent| (sent, is_layer)) }
        });
        let sent: Vec<(Sent, bool)> = futures::stream::iter(each).buffer_unordered(AT_ONCE).try_collect().await?;
        sent_bytes += sent.iter().map(|(sent, _)| sent.bytes()).sum::<u64>();
        sent_layers += sent.iter().filter(|(sent, is_layer)| *is_layer && matches!(sent, Sent::Bytes(_))).count();
        for Document { what, digest, put } in &documents {
            let doing = format!("take {what}");
            let answer = exchange.ask(&doing, put).await?;
            if answer.status == StatusCode::CREATED {
                answer.check_digest(&exchange, what, digest)?;
                sent_bytes += put.payload.size();
                continue;
            }
            // Blobs that no manifest names yet may have been collected meanwhile.
            if !(again && answer.is_missing_blob()) {
                return Err(exchange.refused(&doing, &answer));
            }
            again = false;
            continue 'anew;
        }
        return Ok(pushed(sent_bytes, sent_layers));
    }
}

/// A manifest or an index on its way.
struct Document<'a> {
    /// For messages.
    what: String,
    digest: &'a str,
    put: Question,
}

/// What is put when all blobs are there, in this order: the manifests that an index
/// names, then what the tag is to name.
fn documents<'a>(exchange: &Exchange, set: &'a ImageSet, repository: &str, tag: &str) -> Vec<Document<'a>> {
    let document = |what: String, reference: &str, digest: &'a str, content: &[u8]| {
        let url = exchange.endpoint.url(&format!("/v2/{repository}/manifests/{reference}"));
        let payload = Payload::Bytes(Bytes::copy_from_slice(content));
        Document { what, digest, put: Question { method: Method::PUT, url, media_type: media_type(content), payload } }
    };
    let parts = set.images().iter().filter(|_| set.has_index()).map(|image| {
        let what = format!("the manifest of {repository} for {}", image.architecture);
        document(what, &image.manifest_digest, &image.manifest_digest, &image.manifest)
    });
    let what = if set.has_index() { "index" } else { "manifest" };
    let named = document(format!("the {what} of {repository}:{tag}"), tag, &set.digest, set.document());
    parts.chain([named]).collect()
}

/// The bytes of layers that [`push`] would send; `None` when the tag names this
/// image already. Changes nothing.
///
/// # Errors
/// [`RegistryError`].
pub async fn missing_bytes(
    registry: &str,
    set: &ImageSet,
    repository: &str,
    tag: &str,
    access: &Access,
) -> Result<Option<u64>, RegistryError> {
    let exchange = Exchange::with_access(Endpoint::reached_by(registry, access)?, access);
    if is_there(&exchange, set, repository, tag).await? {
        return Ok(None);
    }
    let layers: BTreeMap<&str, &Layer> =
        set.images().iter().flat_map(|image| &image.layers).map(|layer| (layer.digest.as_str(), layer)).collect();
    let looks = layers.into_values().map(|layer| {
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

/// The configurations and the layers, each once, and whether it is a layer.
fn blobs(images: &[Image]) -> Vec<(Blob, bool)> {
    let mut blobs: Vec<(Blob, bool)> = Vec::new();
    let mut add = |blob: Blob, is_layer| {
        if blobs.iter().all(|(known, _)| known.digest != blob.digest) {
            blobs.push((blob, is_layer));
        }
    };
    for image in images {
        add(Blob { digest: image.config_digest(), payload: Payload::Bytes(image.config.clone().into()), layer: None }, false);
        for layer in &image.layers {
            let payload = Payload::File { path: layer.path.clone(), size: layer.size };
            add(Blob { digest: layer.digest.clone(), payload, layer: Some(layer.clone()) }, true);
        }
    }
    blobs
}

/// Whether the tag names this very image already.
async fn is_there(exchange: &Exchange, set: &ImageSet, repository: &str, tag: &str) -> Result<bool, RegistryError> {
    let url = exchange.endpoint.url(&format!("/v2/{repository}/manifests/{tag}"));
    let question = Question { method: Method::HEAD, url, media_type: media_type(set.document()), payload: Payload::Nothing };
    let answer = exchange.ask("look for the image", &question).await?;
    match answer.status {
        StatusCode::OK => Ok(answer.header("docker-content-digest") == Some(set.digest.as_str())),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(exchange.refused("look for the image", &answer)),
    }
}
