//! Bringing one blob to a registry: not at all where it is, from another
//! repository where that has it, else in one request or, where it is large, piece
//! by piece (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>).

use super::RegistryError;
use super::exchange::{Answer, Exchange, Payload, Question, pause_for};
use super::push::PushOptions;
use super::retry::Pauses;
use crate::deliver::Progress;
use crate::image::{Layer, digest, digest_of_file};
use http::{Method, StatusCode};
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const BLOB_TYPE: &str = "application/octet-stream";

/// What is lost by a cut, at most: a moment on this machine, and not too much
/// over a network. No smaller, for each piece costs a question and an answer.
const LOCAL_PIECE: u64 = 64 << 20;
const REMOTE_PIECE: u64 = 16 << 20;

/// A blob to be there.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) payload: Payload,
    /// Where the payload's file comes from.
    pub(super) layer: Option<Layer>,
}

/// How a blob came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was.
    Nothing,
    /// From another repository.
    Mounted,
    /// By so many bytes.
    Bytes(u64),
}

/// Brings blobs to one repository.
pub(super) struct Uploads<'a> {
    exchange: &'a Exchange,
    repository: &'a str,
    mount_from: &'a [String],
    piece: u64,
    progress: &'a Progress,
    /// Whether the registry takes blobs in pieces, as far as is known: some don't,
    /// though the specification has it.
    takes_pieces: AtomicBool,
}

/// Where an upload goes on.
struct Place {
    location: String,
    /// The least that a piece may have but for the last.
    least: u64,
}

impl Sent {
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Nothing | Self::Mounted => 0,
        }
    }
}

impl<'a> Uploads<'a> {
    pub(super) fn new(exchange: &'a Exchange, repository: &'a str, options: &'a PushOptions, progress: &'a Progress) -> Self {
        let piece = options.piece_bytes.unwrap_or(if exchange.endpoint.is_local() { LOCAL_PIECE } else { REMOTE_PIECE }).max(1);
        Self { exchange, repository, mount_from: &options.mount_from, piece, progress, takes_pieces: AtomicBool::new(true) }
    }

    /// Makes sure that the registry has a blob. What fails for a moment is done
    /// again: a large blob from the place that the registry has kept, if it has.
    pub(super) async fn bring(&self, blob: &Blob) -> Result<Sent, RegistryError> {
        let mut pauses = Pauses::default();
        loop {
            match self.attempt(blob, &mut pauses).await {
                Ok(sent) => return Ok(sent),
                Err(error) => pause_for(error, &mut pauses).await?,
            }
        }
    }

    async fn attempt(&self, blob: &Blob, pauses: &mut Pauses) -> Result<Sent, RegistryError> {
        let doing = doing(blob);
        let url = self.exchange.endpoint.url(&format!("/v2/{}/blobs/{}", self.repository, blob.digest));
        let answer = self.exchange.ask_once(&doing, &question(Method::HEAD, url, Payload::Nothing)).await?;
        match answer.status {
            // A registry with its blobs elsewhere leads there.
            status if status.is_success() || status.is_redirection() => return Ok(Sent::Nothing),
            StatusCode::NOT_FOUND => {}
            _ => return Err(self.exchange.refused(&doing, &answer)),
        }
        let Some(mut place) = self.begin(blob, &doing).await? else { return Ok(Sent::Mounted) };
        if let Some(layer) = &blob.layer {
            let path = || layer.path.clone();
            layer.obtain().await.map_err(|error| RegistryError::Layer { path: path(), source: std::io::Error::other(error) })?;
        }
        let size = blob.payload.size();
        let is_file = matches!(blob.payload, Payload::File { .. });
        if is_file && size > self.piece.max(place.least) && self.takes_pieces.load(Ordering::Relaxed) {
            if self.send_pieces(blob, &doing, &mut place, pauses).await? {
                return Ok(Sent::Bytes(size));
            }
            tracing::info!(registry = self.exchange.endpoint.name(), "the registry does not take pieces, blobs go as a whole");
            self.takes_pieces.store(false, Ordering::Relaxed);
            match self.begin(blob, &doing).await? {
                Some(anew) => place = anew,
                None => return Ok(Sent::Mounted),
            }
        }
        let url = self.exchange.endpoint.upload_url(&place.location, &blob.digest);
        let answer = self.exchange.ask_once(&doing, &question(Method::PUT, url, blob.payload.clone())).await?;
        self.check_created(blob, &doing, &answer).await?;
        self.progress.add(size);
        Ok(Sent::Bytes(size))
    }

    /// Begins an upload; `None` when the blob came from another repository. The
    /// registry is asked for that also without a name: some know where it is.
    async fn begin(&self, blob: &Blob, doing: &str) -> Result<Option<Place>, RegistryError> {
        let uploads = self.exchange.endpoint.url(&format!("/v2/{}/blobs/uploads/", self.repository));
        let is_layer = matches!(blob.payload, Payload::File { .. });
        let mut begun = None;
        let of_base = blob.layer.as_ref().and_then(|layer| layer.repository_at(self.exchange.endpoint.name()));
        for from in of_base.iter().chain(self.mount_from).filter(|from| is_layer && *from != self.repository) {
            let url = format!("{uploads}?mount={}&from={from}", blob.digest);
            match self.ask_to_begin(doing, url).await? {
                None => return Ok(None),
                place => begun = place,
            }
        }
        match begun {
            Some(place) => Ok(Some(place)),
            None if is_layer => self.ask_to_begin(doing, format!("{uploads}?mount={}", blob.digest)).await,
            None => self.ask_to_begin(doing, uploads).await,
        }
    }

    async fn ask_to_begin(&self, doing: &str, url: String) -> Result<Option<Place>, RegistryError> {
        let answer = self.exchange.ask_once(doing, &question(Method::POST, url, Payload::Nothing)).await?;
        match answer.status {
            StatusCode::CREATED => Ok(None),
            StatusCode::ACCEPTED => {
                let least = answer.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
                Ok(Some(Place { location: self.location(&answer)?, least }))
            }
            _ => Err(self.exchange.refused(doing, &answer)),
        }
    }

    fn location(&self, answer: &Answer) -> Result<String, RegistryError> {
        let location = answer.location().ok_or_else(|| self.exchange.not_a_registry("it names no place for an upload".to_owned()))?;
        Ok(self.exchange.endpoint.resolve(location))
    }

    /// Sends piece after piece; answers whether the registry takes them. After a
    /// cut it is asked what it has. An upload that it has lost is a failure that
    /// may pass: the next attempt begins anew.
    async fn send_pieces(&self, blob: &Blob, doing: &str, place: &mut Place, pauses: &mut Pauses) -> Result<bool, RegistryError> {
        let size = blob.payload.size();
        let mut offset = 0;
        while offset < size {
            let length = self.piece.max(place.least).min(size - offset);
            let patch = question(Method::PATCH, place.location.clone(), blob.payload.part(offset, length));
            let has = match self.exchange.ask_once(doing, &patch).await {
                Ok(answer) if answer.status == StatusCode::ACCEPTED => {
                    place.location = self.location(&answer)?;
                    answer.received().unwrap_or(offset + length)
                }
                Ok(answer) if answer.status == StatusCode::RANGE_NOT_SATISFIABLE => self.ask_what_it_has(doing, place, pauses).await?,
                Ok(answer) if answer.status == StatusCode::NOT_FOUND && offset > 0 => return Err(self.lost(doing)),
                Ok(answer) if offset == 0 && is_unknown_way(answer.status) => return Ok(false),
                Ok(answer) => return Err(self.exchange.refused(doing, &answer)),
                Err(error) => {
                    pause_for(error, pauses).await?;
                    self.ask_what_it_has(doing, place, pauses).await?
                }
            };
            if has > size {
                return Err(self.exchange.not_a_registry(format!("it has {has} bytes of a blob of {size}")));
            }
            if has > offset {
                self.progress.add(has - offset);
                pauses.reset();
            } else {
                // It goes round and round otherwise.
                pause_for(self.exchange.unreachable(doing, "it takes nothing in".into()), pauses).await?;
            }
            offset = has;
        }
        let url = self.exchange.endpoint.upload_url(&place.location, &blob.digest);
        let answer = self.exchange.ask_once(doing, &question(Method::PUT, url, Payload::End { total: size })).await?;
        self.check_created(blob, doing, &answer).await?;
        Ok(true)
    }

    /// How many bytes of an upload the registry has.
    async fn ask_what_it_has(&self, doing: &str, place: &mut Place, pauses: &mut Pauses) -> Result<u64, RegistryError> {
        let ask = question(Method::GET, place.location.clone(), Payload::Nothing);
        let answer = loop {
            match self.exchange.ask_once(doing, &ask).await {
                Ok(answer) => break answer,
                Err(error) => pause_for(error, pauses).await?,
            }
        };
        match answer.status {
            StatusCode::NO_CONTENT => {
                if answer.location().is_some() {
                    place.location = self.location(&answer)?;
                }
                let has = answer.received().unwrap_or(0);
                tracing::info!(registry = self.exchange.endpoint.name(), bytes = has, "the upload goes on");
                Ok(has)
            }
            _ => Err(self.lost(doing)),
        }
    }

    fn lost(&self, doing: &str) -> RegistryError {
        self.exchange.unreachable(doing, "it has lost the upload".into())
    }

    /// A digest that is wrong on one side is named together with the other.
    async fn check_created(&self, blob: &Blob, doing: &str, answer: &Answer) -> Result<(), RegistryError> {
        let what = format!("blob {}", short(&blob.digest));
        match answer.status {
            StatusCode::CREATED => answer.check_digest(self.exchange, &what, &blob.digest),
            // The place of an upload is gone together with a registry's memory.
            StatusCode::NOT_FOUND => Err(self.lost(doing)),
            _ if answer.is_wrong_digest() => Err(RegistryError::DigestMismatch {
                registry: self.exchange.endpoint.name().to_owned(),
                what,
                expected: blob.digest.clone(),
                found: found_digest(&blob.payload).await.unwrap_or_else(|| "another".to_owned()),
            }),
            _ => Err(self.exchange.refused(doing, answer)),
        }
    }
}

fn question(method: Method, url: String, payload: Payload) -> Question {
    Question { method, url, media_type: BLOB_TYPE.to_owned(), payload }
}

fn doing(blob: &Blob) -> String {
    format!("take blob {}", short(&blob.digest))
}

/// Enough to tell blobs apart.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

/// What registries answer that know uploads of whole blobs only.
fn is_unknown_way(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::NOT_IMPLEMENTED
    )
}

/// What a blob's bytes are really; `None` when they can't be read any more.
async fn found_digest(payload: &Payload) -> Option<String> {
    let payload = payload.clone();
    let hashed = tokio::task::spawn_blocking(move || match payload {
        Payload::Bytes(bytes) => Some(digest(&bytes)),
        Payload::File { path, .. } => digest_of_file(&path).ok(),
        Payload::Nothing | Payload::Part { .. } | Payload::End { .. } => None,
    });
    hashed.await.ok()?
}
