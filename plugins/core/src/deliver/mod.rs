//! From an image on this machine into a node's containerd, without a registry.
//!
//! A layer whose files the node has unpacked already is not sent: containerd is
//! asked which stacks of layers it knows ("Layer ChainID" in the OCI image
//! specification), and gets an archive that lacks the blobs of those. Whether it
//! worked is asked again afterwards, not concluded from an exit code.

mod archive;
mod containerd;

use crate::error::{CommandError, Result};
use crate::image::Image;
use crate::node::Node;
use containerd::Containerd;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What it took to deliver an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes sent to the node, 0 when it had the image.
    pub sent_bytes: u64,
    /// Layers sent.
    pub sent_layers: usize,
    /// Layers of the image.
    pub total_layers: usize,
    /// Whether the node had the very same image, ready to run.
    pub already_present: bool,
    /// Wall time of it all.
    pub duration: Duration,
}

/// Why an image is not on the node.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The node's processes are gone.
    #[error("the {node} is not running")]
    NodeGone {
        /// [`Node::describe`].
        node: String,
    },
    /// The node's processor can't run it.
    #[error("{image} is for {found}, the node is {wanted}")]
    WrongArchitecture {
        /// The image's reference or file.
        image: String,
        /// The image's architectures.
        found: String,
        /// The node's.
        wanted: &'static str,
    },
    /// The file is not an image.
    #[error("{} can't be loaded: {reason}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A disk is full, the node's or this machine's (mostly they are one).
    #[error("no space left on the disk of the {node}")]
    DiskFull {
        /// [`Node::describe`].
        node: String,
    },
    /// containerd refused.
    #[error("containerd on the {node} failed to {doing}: {message}")]
    Containerd {
        /// [`Node::describe`].
        node: String,
        /// What it was asked to do.
        doing: &'static str,
        /// Its words.
        message: String,
    },
    /// A file or process on this machine failed.
    #[error("could not {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<DeliverError> for CommandError {
    fn from(error: DeliverError) -> Self {
        let hint = match &error {
            DeliverError::NodeGone { .. } => Some("see `kubectl devenv status`, start it with `kubectl devenv up`"),
            DeliverError::WrongArchitecture { .. } => Some("build the image for the node's architecture"),
            DeliverError::NotAnImage { .. } => {
                Some("make it with `docker save IMAGE -o FILE` or `skopeo copy docker://IMAGE oci-archive:FILE:IMAGE`")
            }
            DeliverError::DiskFull { .. } => Some("free some disk space, then run the command again; no image was added"),
            DeliverError::Containerd { .. } => Some("see the containerd log of `kubectl devenv status`, then run the command again"),
            DeliverError::Io { .. } => None,
        };
        let message = error.to_string();
        let command = match error {
            DeliverError::Io { source, .. } => Self::new(message).caused_by(source),
            _ => Self::new(message),
        };
        match hint {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}

/// Makes sure that a node has an image, ready to run. Nothing is sent when it
/// has it, else only layers that it lacks. Dropped before its end, it leaves the
/// node without the image, at worst with layers that containerd cleans up.
///
/// # Errors
/// [`DeliverError`]; the node doesn't list the image then.
pub async fn to_node(node: &Node, image: &Image) -> Result<Delivery> {
    Ok(deliver(&Containerd::of(node), image).await?)
}

/// Which of an image's layers a node lacks, from the lowest to the uppermost;
/// `None` when it has the image itself. Changes nothing.
///
/// # Errors
/// [`DeliverError`].
pub async fn missing_layers(node: &Node, image: &Image) -> Result<Option<Vec<bool>>> {
    check_architecture(&image.reference, &[image.architecture.as_str()])?;
    let found = observe(&Containerd::of(node), image).await?;
    Ok((!found.is_ready(image)).then(|| found.missing(image)))
}

async fn deliver(containerd: &Containerd<'_>, image: &Image) -> Result<Delivery, DeliverError> {
    let started = Instant::now();
    check_architecture(&image.reference, &[image.architecture.as_str()])?;
    let total_layers = image.layers.len();
    let before = observe(containerd, image).await?;
    if before.is_ready(image) {
        return Ok(Delivery { sent_bytes: 0, sent_layers: 0, total_layers, already_present: true, duration: started.elapsed() });
    }
    let missing = before.missing(image);
    let mut sent_layers = missing.iter().filter(|missing| **missing).count();
    let mut sent = send(containerd, image, &missing).await;
    // A full disk is not the partial archive's fault; anything else may be: what
    // containerd had a moment ago may be gone.
    if sent_layers < total_layers && sent.as_ref().err().is_some_and(|error| !matches!(error, DeliverError::DiskFull { .. })) {
        tracing::info!(error = ?sent.as_ref().err(), image = image.reference, "partial archive refused, sending the whole");
        sent_layers = total_layers;
        sent = send(containerd, image, &vec![true; total_layers]).await;
    }
    let sent_bytes = match sent {
        Ok(bytes) => bytes,
        Err(error) => {
            // containerd names an image before it unpacks it.
            if before.digest.is_none() {
                containerd.remove(&image.reference).await;
            }
            return Err(error);
        }
    };
    Ok(Delivery { sent_bytes, sent_layers, total_layers, already_present: false, duration: started.elapsed() })
}

/// Sends an archive with these layers and asks whether the image is there now.
async fn send(containerd: &Containerd<'_>, image: &Image, include: &[bool]) -> Result<u64, DeliverError> {
    let (to_write, include) = (image.clone(), include.to_owned());
    let (sent, _) = containerd.import(&[], move |out| to_write.write_archive(&include, out)).await?;
    if observe(containerd, image).await?.is_ready(image) {
        return Ok(sent);
    }
    Err(containerd.failed("import the image", "it took the archive, but the image is not ready to run"))
}

/// What a node has of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Observed {
    /// Digest of the image that it knows by that reference.
    digest: Option<String>,
    /// Names of all unpacked stacks of layers.
    snapshots: HashSet<String>,
}

async fn observe(containerd: &Containerd<'_>, image: &Image) -> Result<Observed, DeliverError> {
    let (digest, snapshots) = tokio::join!(containerd.image_digest(&image.reference), containerd.snapshots());
    Ok(Observed { digest: digest?, snapshots: snapshots? })
}

impl Observed {
    fn is_ready(&self, image: &Image) -> bool {
        self.digest.as_ref() == Some(&image.manifest_digest) && image.chain_ids().last().is_none_or(|top| self.snapshots.contains(top))
    }

    fn missing(&self, image: &Image) -> Vec<bool> {
        image.chain_ids().iter().map(|id| !self.snapshots.contains(id)).collect()
    }
}

/// Loads an archive made by `docker save` or in OCI image layout, and answers
/// the names that its images have now. The archive is read through first: a
/// truncated or damaged one changes nothing.
///
/// # Errors
/// [`DeliverError`].
pub async fn archive_to_node(node: &Node, tar: &Path) -> Result<Vec<String>> {
    Ok(load(&Containerd::of(node), tar).await?)
}

async fn load(containerd: &Containerd<'_>, tar: &Path) -> Result<Vec<String>, DeliverError> {
    let path = tar.to_owned();
    let summary = tokio::task::spawn_blocking(move || archive::inspect(&path))
        .await
        .map_err(|error| DeliverError::Io { doing: "check the archive".into(), source: std::io::Error::other(error) })??;
    for image in &summary.images {
        let found: Vec<&str> = image.architectures.iter().map(String::as_str).collect();
        check_architecture(&tar.display().to_string(), &found)?;
    }
    let stem = tar.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let base: Vec<String> = summary.needs_base_name().then(|| format!("--base-name=docker.io/library/{stem}")).into_iter().collect();
    let path = tar.to_owned();
    let copy = move |out: &mut dyn std::io::Write| std::io::copy(&mut std::fs::File::open(&path)?, out).map(|_| ());
    let (_, stdout) = containerd.import(&base, copy).await?;
    let names = containerd::imported_names(&stdout);
    if names.is_empty() {
        return Err(DeliverError::NotAnImage { path: tar.to_owned(), reason: "containerd found no image with a name in it".into() });
    }
    Ok(names)
}

/// The node is on this machine; its processor is ours.
fn check_architecture(image: &str, found: &[&str]) -> Result<(), DeliverError> {
    let wanted = node_architecture();
    if found.contains(&wanted) {
        return Ok(());
    }
    Err(DeliverError::WrongArchitecture { image: image.to_owned(), found: found.join(", "), wanted })
}

/// As Go names it.
fn node_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests;
