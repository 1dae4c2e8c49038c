//! What a delivery takes, by containerd's own interface.
//!
//! An image is taken in as containerd's client does it
//! (<https://github.com/containerd/containerd/blob/main/docs/garbage-collection.md>): its
//! blobs are written, each layer is unpacked onto the one below, labels tie one to the
//! other, and only then a name makes it an image. A lease keeps all of it meanwhile, and
//! what was begun and never ended goes when it expires.

use super::api::Api;
use super::messages::{
    Abort, Applied, Apply, Blob, BlobInfo, CommitSnapshot, CreateImage, CreateLease, DeleteImage, DeleteLease, Descriptor, Image, Images,
    ListImages, Mask, Mounts, PrepareSnapshot, Snapshot, UpdateBlob, UpdateImage, WriteAction, WriteBlob, Written,
};
use super::{Observed, PATIENCE, UNPACKING, filters, pieces};
use crate::deliver::package::{Identity, Package, PackedLayer};
use crate::deliver::progress::Progress;
use crate::image;
use futures::future::try_join_all;
use futures::stream;
use jiff::{Timestamp, ToSpan};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::{Code, Status};

/// What Kubernetes uses where nothing else is configured.
const USUAL_SNAPSHOTTER: &str = "overlayfs";
/// How long what a delivery has begun is kept, should it never end.
const LEASE: Duration = Duration::from_secs(3600);

/// Why something could not be done.
#[derive(Debug)]
pub(super) enum Failure {
    /// containerd said so.
    Refused(Status),
    /// A file of this machine.
    Unreadable(io::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Which snapshotter Kubernetes uses on a node, from containerd's configuration.
pub(super) fn snapshotter(configuration: &str) -> String {
    let value = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        let quote = value.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
        let value = value[1..].split(quote).next()?;
        (name.trim() == "snapshotter" && !value.is_empty()).then(|| value.to_owned())
    };
    configuration.lines().find_map(value).unwrap_or_else(|| USUAL_SNAPSHOTTER.to_owned())
}

/// Asks what is there of these images.
pub(super) async fn observe(api: &Api, wanted: &[Identity]) -> Result<Observed, Failure> {
    let list = api.ask::<_, Images>("/containerd.services.images.v1.Images/List", ListImages { filters: filters(wanted) });
    let chains: BTreeSet<&String> = wanted.iter().flat_map(|identity| &identity.chain_ids).collect();
    let unpacked = try_join_all(chains.into_iter().map(async |chain| Ok(has_snapshot(api, chain).await?.then(|| chain.clone()))));
    let (listed, unpacked) = tokio::try_join!(list, unpacked)?;
    let digest = |image: Image| Some((image.name, image.target?.digest));
    let listed: Vec<(String, String)> = listed.images.into_iter().filter_map(digest).collect();
    let documents: BTreeSet<&String> = wanted.iter().map(|identity| &identity.id).chain(listed.iter().map(|(_, digest)| digest)).collect();
    let blobs = documents.into_iter().map(async |digest| {
        let question = BlobInfo { digest: digest.clone() };
        Ok::<_, Status>(api.has("/containerd.services.content.v1.Content/Info", question).await?.then(|| digest.clone()))
    });
    let blobs: HashSet<String> = try_join_all(blobs).await?.into_iter().flatten().collect();
    let snapshots: HashSet<String> = unpacked.into_iter().flatten().collect();
    let images = can_run(&listed, wanted, &snapshots, &blobs);
    let names = listed.into_iter().map(|(name, _)| name).collect();
    Ok(Observed { architecture: image::local_architecture().to_owned(), images, names, snapshots, can_import_locally: false })
}

/// Digest by name, of those images that are what is wanted, and unpacked. Pure.
fn can_run(
    listed: &[(String, String)],
    wanted: &[Identity],
    snapshots: &HashSet<String>,
    blobs: &HashSet<String>,
) -> HashMap<String, String> {
    let mut images = HashMap::new();
    for identity in wanted {
        // The same configuration means the same layers, however they are packed.
        let by_id = listed.iter().find(|(name, _)| *name == identity.id).map(|(_, digest)| digest);
        let is_unpacked = identity.chain_ids.last().is_none_or(|top| snapshots.contains(top));
        if !is_unpacked || !blobs.contains(&identity.id) {
            continue;
        }
        let is_wanted = |digest: &String| (identity.manifest.as_ref() == Some(digest) || by_id == Some(digest)) && blobs.contains(digest);
        let is_named = |name: &String| *name == identity.id || identity.names.contains(name);
        images.extend(listed.iter().filter(|(name, digest)| is_named(name) && is_wanted(digest)).cloned());
    }
    images
}

async fn has_snapshot(api: &Api, chain_id: &str) -> Result<bool, Status> {
    let question = Snapshot { snapshotter: api.snapshotter.clone(), key: chain_id.to_owned() };
    api.has("/containerd.services.snapshots.v1.Snapshots/Stat", question).await
}

/// Gives an image that is known by its id more names.
pub(super) async fn tag(api: &Api, id: &str, names: &[String]) -> Result<(), Failure> {
    let list = ListImages { filters: vec![super::filter(id)] };
    let listed = api.ask::<_, Images>("/containerd.services.images.v1.Images/List", list).await?;
    let target = listed.images.into_iter().find_map(|image| image.target);
    let target = target.ok_or_else(|| Status::not_found(format!("image {id} is gone")))?;
    for name in names {
        put(api, name, &target).await?;
    }
    Ok(())
}

/// Makes a name lead to a manifest.
async fn put(api: &Api, name: &str, target: &Descriptor) -> Result<(), Status> {
    let image = Some(Image { name: name.to_owned(), target: Some(target.clone()) });
    match api.order("/containerd.services.images.v1.Images/Create", CreateImage { image: image.clone() }).await {
        Err(status) if status.code() == Code::AlreadyExists => {
            let update_mask = Some(Mask { paths: vec!["target".to_owned()] });
            api.order("/containerd.services.images.v1.Images/Update", UpdateImage { image, update_mask }).await
        }
        other => other,
    }
}

/// Takes in an image with these of its layers; see [`super::Containerd::import`].
pub(super) async fn import(
    api: &Api,
    observed: &Observed,
    package: &Package,
    include: &[bool],
    progress: &Progress,
) -> Result<u64, Failure> {
    let manifest = serde_json::from_slice(&package.manifest).map_err(|error| Failure::Unreadable(error.into()))?;
    let lease = format!("devloop-{}-{}", std::process::id(), Timestamp::now().as_nanosecond());
    let expires = Timestamp::now() + i64::try_from(LEASE.as_secs()).unwrap_or(i64::MAX).seconds();
    let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
    api.order("/containerd.services.leases.v1.Leases/Create", CreateLease { id: lease.clone(), labels }).await?;
    let intake = Intake { api: &api.within(&lease), lease: &lease, package, manifest, identity: package.identity() };
    let outcome = async {
        let sent = intake.write(include, progress).await?;
        intake.unpack().await?;
        intake.tie().await?;
        intake.name(!observed.names.contains(&intake.identity.id)).await?;
        Ok(sent)
    };
    let outcome = outcome.await;
    // What is not an image's goes with it.
    let _ = api.order("/containerd.services.leases.v1.Leases/Delete", DeleteLease { id: lease.clone() }).await;
    outcome
}

/// What counts of a manifest.
#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
}

/// An image that is being taken in.
struct Intake<'a> {
    api: &'a Api,
    lease: &'a str,
    package: &'a Package,
    manifest: Manifest,
    identity: Identity,
}

impl Intake<'_> {
    /// Writes the blobs; answers their size.
    async fn write(&self, include: &[bool], progress: &Progress) -> Result<u64, Failure> {
        let mut layers: Vec<&PackedLayer> = Vec::new();
        for (layer, _) in self.package.layers.iter().zip(include).filter(|(_, include)| **include) {
            if !layers.iter().any(|other| other.digest == layer.digest) {
                layers.push(layer);
            }
        }
        let documents = [&self.package.config, &self.package.manifest];
        let small = documents.map(|document| self.write_document(document));
        let large = async {
            for layer in &layers {
                self.write_layer(layer, progress).await?;
            }
            Ok(())
        };
        tokio::try_join!(try_join_all(small), large)?;
        let sizes = documents.map(|document| document.len() as u64).into_iter().chain(layers.iter().map(|layer| layer.size));
        Ok(sizes.sum())
    }

    async fn write_document(&self, content: &[u8]) -> Result<(), Failure> {
        let digest = image::digest(content);
        let whole = self.piece(WriteAction::Commit, &digest, content.len() as u64, 0, content.to_vec());
        self.transfer(&digest, stream::iter([whole]), |_| {}).await
    }

    async fn write_layer(&self, layer: &PackedLayer, progress: &Progress) -> Result<(), Failure> {
        let to_read = layer.clone();
        let (chunk_rx, reader) = pieces(move |out| to_read.copy_to(out));
        let (failure_tx, mut failure_rx) = oneshot::channel();
        let blank = self.piece(WriteAction::Write, &layer.digest, layer.size, 0, Vec::new());
        let pieces = stream::unfold(Some((chunk_rx, reader, failure_tx, blank, 0)), async |state| {
            let (mut chunk_rx, reader, failure_tx, blank, offset) = state?;
            if let Some(chunk) = chunk_rx.recv().await {
                let next = offset + i64::try_from(chunk.len()).unwrap_or(i64::MAX);
                let piece = WriteBlob { offset, data: chunk.into(), ..blank.clone() };
                return Some((piece, Some((chunk_rx, reader, failure_tx, blank, next))));
            }
            match reader.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => Some((WriteBlob { action: WriteAction::Commit.into(), offset, ..blank }, None)),
                Err(error) => {
                    let _ = failure_tx.send(error);
                    None
                }
            }
        });
        let mut told = 0;
        let transferred = self.transfer(&layer.digest, pieces, |offset| {
            progress.add(offset.saturating_sub(told));
            told = told.max(offset);
        });
        let transferred = transferred.await;
        if let Ok(error) = failure_rx.try_recv() {
            let _ = self
                .api
                .order("/containerd.services.content.v1.Content/Abort", Abort { reference: blank_reference(self.lease, &layer.digest) })
                .await;
            return Err(Failure::Unreadable(error));
        }
        transferred?;
        progress.add(layer.size.saturating_sub(told));
        Ok(())
    }

    fn piece(&self, action: WriteAction, digest: &str, total: u64, offset: i64, data: Vec<u8>) -> WriteBlob {
        WriteBlob {
            action: action.into(),
            reference: blank_reference(self.lease, digest),
            total: i64::try_from(total).unwrap_or(i64::MAX),
            expected: digest.to_owned(),
            offset,
            data: data.into(),
        }
    }

    /// Writes one blob, unless it is there.
    async fn transfer(
        &self,
        digest: &str,
        pieces: impl futures::Stream<Item = WriteBlob> + Send + 'static,
        mut written: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let written = async {
            let mut answers = self.api.converse::<_, Written>("/containerd.services.content.v1.Content/Write", pieces).await?;
            loop {
                let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
                match answer.map_err(|_| Status::deadline_exceeded(format!("blob {digest} was not taken")))?? {
                    Some(answer) => written(u64::try_from(answer.offset).unwrap_or_default()),
                    None => return Ok(()),
                }
            }
        };
        match written.await {
            Err(status) if Status::code(&status) == Code::AlreadyExists => Ok(()),
            other => Ok(other?),
        }
    }

    /// Unpacks what is not unpacked yet.
    async fn unpack(&self) -> Result<(), Failure> {
        let mut parent = String::new();
        for (index, chain_id) in self.identity.chain_ids.iter().enumerate() {
            if !has_snapshot(self.api, chain_id).await? {
                let (Some(layer), Some(described)) = (self.package.layers.get(index), self.manifest.layers.get(index)) else {
                    return Err(Status::invalid_argument("the manifest has fewer layers than the configuration").into());
                };
                self.unpack_one(layer, &described.media_type, &parent, chain_id).await?;
            }
            parent.clone_from(chain_id);
        }
        Ok(())
    }

    async fn unpack_one(&self, layer: &PackedLayer, media_type: &str, parent: &str, chain_id: &str) -> Result<(), Failure> {
        let snapshotter = &self.api.snapshotter;
        let key = format!("{} {chain_id}", self.lease);
        let prepare = PrepareSnapshot { snapshotter: snapshotter.clone(), key: key.clone(), parent: parent.to_owned() };
        let mounts = self.api.ask::<_, Mounts>("/containerd.services.snapshots.v1.Snapshots/Prepare", prepare).await?.mounts;
        let api = self.api.patient(UNPACKING);
        let unpacked = async {
            let diff = Some(descriptor(media_type, &layer.digest, layer.size));
            let applied = api.ask::<_, Applied>("/containerd.services.diff.v1.Diff/Apply", Apply { diff, mounts }).await?;
            if applied.applied.is_none_or(|applied| applied.digest != layer.diff_id) {
                return Err(Status::data_loss(format!("layer {} is not what the configuration says", layer.digest)));
            }
            let commit = CommitSnapshot { snapshotter: snapshotter.clone(), name: chain_id.to_owned(), key: key.clone() };
            api.order("/containerd.services.snapshots.v1.Snapshots/Commit", commit).await
        };
        let unpacked = unpacked.await;
        if unpacked.is_err() {
            let remove = Snapshot { snapshotter: snapshotter.clone(), key };
            let _ = self.api.order("/containerd.services.snapshots.v1.Snapshots/Remove", remove).await;
        }
        match unpacked {
            // Somebody else did the same at the same time.
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            other => Ok(other?),
        }
    }

    /// Has the garbage collector see what belongs together.
    async fn tie(&self) -> Result<(), Failure> {
        let content = |name: String, digest: &str| (format!("containerd.io/gc.ref.content.{name}"), digest.to_owned());
        let layers = self.package.layers.iter().enumerate().map(|(index, layer)| content(format!("l.{index}"), &layer.digest));
        let of_manifest = layers.chain([content("config".to_owned(), &self.identity.id)]).collect();
        let snapshot = |top: &String| (format!("containerd.io/gc.ref.snapshot.{}", self.api.snapshotter), top.clone());
        let of_config = self.identity.chain_ids.last().map(snapshot).into_iter().collect();
        self.label(&image::digest(&self.package.manifest), of_manifest).await?;
        self.label(&self.identity.id, of_config).await
    }

    async fn label(&self, digest: &str, labels: HashMap<String, String>) -> Result<(), Failure> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|label| format!("labels.{label}")).collect();
        let update = UpdateBlob { info: Some(Blob { digest: digest.to_owned(), labels }), update_mask: Some(Mask { paths }) };
        Ok(self.api.order("/containerd.services.content.v1.Content/Update", update).await?)
    }

    /// Makes it an image: by its id, by which the kubelet's part of containerd knows it
    /// anyway, then by its names.
    async fn name(&self, is_new: bool) -> Result<(), Failure> {
        let media_type = self.manifest.media_type.as_deref().unwrap_or(image::MANIFEST_TYPE);
        let manifest = &self.package.manifest;
        let target = descriptor(media_type, &image::digest(manifest), manifest.len() as u64);
        let named = async {
            for name in [&self.identity.id].into_iter().chain(&self.identity.names) {
                put(self.api, name, &target).await?;
            }
            Ok::<(), Status>(())
        };
        let named = named.await;
        if named.is_err() && is_new {
            let _ = self.api.order("/containerd.services.images.v1.Images/Delete", DeleteImage { name: self.identity.id.clone() }).await;
        }
        Ok(named?)
    }
}

/// By what a blob is known while it is written.
fn blank_reference(lease: &str, digest: &str) -> String {
    format!("{lease}-{digest}")
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest: digest.to_owned(), size: i64::try_from(size).unwrap_or(i64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshotter_is_the_configured_one() {
        assert_eq!(snapshotter("version = 3\n[plugins]\n  snapshotter = 'native' # x\n snapshotter = \"b\"\n"), "native");
        assert_eq!(snapshotter("disable_snapshot_annotations = true\nsnapshotter = \"\"\n"), "overlayfs");
        assert_eq!(snapshotter(""), "overlayfs");
    }

    #[test]
    fn an_image_can_run_when_its_stack_and_documents_are_there() {
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<HashSet<String>>();
        let listed: Vec<(String, String)> =
            [("a:1", "sha256:m"), ("a:2", "sha256:old"), ("sha256:c", "sha256:other"), ("a:3", "sha256:other")]
                .map(|(name, digest)| (name.to_owned(), digest.to_owned()))
                .into();
        let wanted = Identity {
            names: ["a:1", "a:2", "a:3"].map(str::to_owned).into(),
            id: "sha256:c".into(),
            manifest: Some("sha256:m".into()),
            chain_ids: vec!["sha256:low".into(), "sha256:top".into()],
        };
        let of = |snapshots: &[&str], blobs: &[&str]| {
            let images = can_run(&listed, std::slice::from_ref(&wanted), &strings(snapshots), &strings(blobs));
            let mut names: Vec<String> = images.into_keys().collect();
            names.sort();
            names
        };
        let all = ["sha256:m", "sha256:c", "sha256:other", "sha256:old"];
        assert_eq!(of(&["sha256:top"], &all), ["a:1", "a:3", "sha256:c"], "by the manifest, or the same as by the id");
        assert_eq!(of(&["sha256:low"], &all), [""; 0], "not unpacked");
        assert_eq!(of(&["sha256:top"], &["sha256:m"]), [""; 0], "no configuration");
        assert_eq!(of(&["sha256:top"], &["sha256:m", "sha256:c"]), ["a:1"], "no manifest of the others");
    }
}
