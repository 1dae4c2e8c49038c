//! Pulling from a repository: documents as a whole, blobs as a stream that goes on
//! where it was cut (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull>).

use super::RegistryError;
use super::access::Access;
use super::endpoint::Endpoint;
use super::exchange::{Exchange, Payload, Question, pause_for, with_attempts};
use super::retry::Pauses;
use super::upload::BLOB_TYPE;
use crate::image;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use std::io::Write;

/// What may be had for a name: an index of several platforms, or one image.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// Larger than any manifest (distribution specification, "Pushing manifests").
const MAX_MANIFEST: usize = 4 << 20;

/// A repository of a registry, to pull from.
#[derive(Clone)]
pub(crate) struct Repository {
    exchange: Exchange,
    name: String,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Repository").field(&self.describe()).finish()
    }
}

impl Repository {
    /// A repository by its registry and path; nobody is asked yet.
    ///
    /// # Errors
    /// When the registry's address is none.
    pub(crate) fn reached(registry: &str, name: &str, access: &Access) -> Result<Self, RegistryError> {
        let exchange = Exchange::with_access(Endpoint::reached_by(registry, access)?, access);
        Ok(Self { exchange, name: name.to_owned() })
    }

    /// The registry, as people call it.
    pub(crate) fn registry(&self) -> &str {
        self.exchange.endpoint.name()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn describe(&self) -> String {
        format!("{}/{}", self.exchange.endpoint.name(), self.name)
    }

    /// What a tag names now.
    ///
    /// # Errors
    /// [`RegistryError`]; status 404 when there is no such.
    pub(crate) async fn digest_of(&self, tag: &str) -> Result<String, RegistryError> {
        self.expect().await;
        let doing = format!("look for {}:{tag}", self.name);
        let answer = self.exchange.ask(&doing, &self.question(Method::HEAD, &format!("manifests/{tag}"), MANIFESTS)).await?;
        if answer.status != StatusCode::OK {
            return Err(self.exchange.refused(&doing, &answer));
        }
        match answer.header("docker-content-digest").filter(|digest| image::reference::is_digest(digest)) {
            Some(digest) => Ok(digest.to_owned()),
            // The specification lets a registry keep it to itself.
            None => Ok(image::digest(&self.get(tag).await?)),
        }
    }

    /// The manifest, or the index, with this digest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn manifest(&self, digest: &str) -> Result<Vec<u8>, RegistryError> {
        let manifest = self.get(digest).await?;
        let found = image::digest(&manifest);
        if found == digest {
            return Ok(manifest);
        }
        let what = format!("the manifest of {}", self.name);
        let registry = self.exchange.endpoint.name().to_owned();
        Err(RegistryError::DigestMismatch { registry, what, expected: digest.to_owned(), found })
    }

    async fn get(&self, reference: &str) -> Result<Vec<u8>, RegistryError> {
        self.expect().await;
        let doing = format!("give the manifest of {}", self.name);
        let question = self.question(Method::GET, &format!("manifests/{reference}"), MANIFESTS);
        with_attempts(|| async {
            let response = self.exchange.open(&doing, &question, 0).await?;
            let body = Limited::new(response.into_body(), MAX_MANIFEST).collect().await;
            Ok(body.map_err(|error| self.exchange.unreachable(&doing, error))?.to_bytes().to_vec())
        })
        .await
    }

    /// Writes a blob; that it is what its digest says is for the caller to see.
    ///
    /// # Errors
    /// [`RegistryError`], after several attempts without a byte.
    pub(crate) async fn blob(&self, digest: &str, out: &mut (impl Write + Send)) -> Result<(), RegistryError> {
        self.expect().await;
        let doing = format!("give blob {}", digest.get(..19).unwrap_or(digest));
        let question = self.question(Method::GET, &format!("blobs/{digest}"), BLOB_TYPE);
        let (mut received, mut pauses) = (0, Pauses::default());
        loop {
            let before = received;
            match self.continue_blob(&doing, &question, &mut received, out).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if received > before {
                        pauses.reset();
                    }
                    pause_for(error, &mut pauses).await?;
                }
            }
        }
    }

    async fn continue_blob(
        &self,
        doing: &str,
        question: &Question,
        received: &mut u64,
        out: &mut (impl Write + Send),
    ) -> Result<(), RegistryError> {
        let response = self.exchange.open(doing, question, *received).await?;
        // One that doesn't know of parts begins anew.
        let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { *received };
        let mut body = response.into_body();
        while let Some(frame) = self.exchange.in_time(doing, body.frame()).await? {
            let frame = frame.map_err(|error| self.exchange.unreachable(doing, error.into()))?;
            let Ok(data) = frame.into_data() else { continue };
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
            skip -= known as u64;
            let unwritten = |source| RegistryError::Layer { path: "the cache".into(), source };
            out.write_all(&data[known..]).map_err(unwritten)?;
            *received += (data.len() - known) as u64;
        }
        Ok(())
    }

    async fn expect(&self) {
        self.exchange.expect(&format!("repository:{}:pull", self.name)).await;
    }

    fn question(&self, method: Method, what: &str, accept: &str) -> Question {
        let url = self.exchange.endpoint.url(&format!("/v2/{}/{what}", self.name));
        Question { method, url, media_type: accept.to_owned(), payload: Payload::Nothing }
    }
}
