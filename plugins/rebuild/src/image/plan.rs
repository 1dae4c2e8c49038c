//! What there is and what becomes of it. Pure.

use super::usage::Usage;
use devloop_core::deliver::inventory::StoredImage;
use devloop_core::deliver::ledger::Entry;
use devloop_core::image::REGISTRY;
use serde::Serialize;
use std::time::Duration;

/// An image at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// A node, or `registry HOST`.
    pub(super) place: String,
    pub(super) image: String,
    pub(super) digest: String,
    /// The image id, where it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) id: String,
    /// Of all its layers.
    pub(super) bytes: u64,
    /// Since it was delivered, in seconds.
    pub(super) age_seconds: Option<u64>,
    /// `pod/NAMESPACE/NAME` and the like.
    pub(super) used_by: Vec<String>,
    /// Whether `kubectl rebuild` made it; others of devloop's are a node's own,
    /// such as the image of its sandboxes, or were named by a user.
    #[serde(skip)]
    is_made: bool,
    pub(super) fate: Fate,
}

/// What becomes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Fate {
    /// Nothing was asked.
    Stays,
    Remove,
    InUse,
    /// Not old enough, or nobody knows.
    TooYoung,
    /// It is not ours to remove from there.
    InRegistry,
    /// It did not come from a rebuild.
    NotMade,
    /// It should have been removed.
    Failed,
}

/// All images at all places, `now` in seconds since 1970.
pub(super) fn rows(nodes: &[(String, Vec<StoredImage>)], pushed: &[Entry], usage: &Usage, now: i64) -> Vec<Row> {
    let age = |delivered: Option<i64>| delivered.map(|delivered| u64::try_from(now.saturating_sub(delivered)).unwrap_or(0));
    let on_nodes = nodes.iter().flat_map(|(node, images)| images.iter().map(move |image| (node, image)));
    // A name that somebody else gave to the same image is none of devloop's.
    let on_nodes = on_nodes.filter(|(_, image)| image.name.starts_with(&format!("{REGISTRY}/")) || is_pushed(image, pushed));
    let on_nodes = on_nodes.map(|(node, image)| Row {
        place: node.clone(),
        image: image.name.clone(),
        digest: image.digest.clone(),
        id: image.id.clone(),
        bytes: image.bytes,
        age_seconds: age(image.delivered),
        used_by: usage.of(&[&image.name, &image.digest, &image.id]),
        is_made: is_made(image, pushed),
        fate: Fate::Stays,
    });
    let in_registries = pushed.iter().map(|entry| Row {
        place: format!("registry {}", entry.registry),
        image: entry.reference.split('@').next().unwrap_or_default().to_owned(),
        digest: entry.digest.clone(),
        id: String::new(),
        bytes: entry.bytes,
        age_seconds: age(Some(entry.delivered)),
        used_by: usage.of(&[&entry.digest]),
        is_made: true,
        fate: Fate::Stays,
    });
    on_nodes.chain(in_registries).collect()
}

/// Whether an image is proven to come from a rebuild: its tag begins as its digest
/// does, as rebuild makes tags, or it was pushed under this very name.
fn is_made(image: &StoredImage, pushed: &[Entry]) -> bool {
    /// Of the digest in a tag.
    const HEX: usize = 16;
    let local = image.name.strip_prefix(REGISTRY).and_then(|rest| rest.strip_prefix('/'));
    let tag = local.and_then(|rest| Some(rest.rsplit_once(':')?.1));
    let named_by_digest =
        tag.is_some_and(|tag| tag.len() == HEX && image.digest.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(tag)));
    named_by_digest || is_pushed(image, pushed)
}

/// Whether a node has it from a push: by digest and repository.
fn is_pushed(image: &StoredImage, pushed: &[Entry]) -> bool {
    let repository = |name: &str| {
        let name = name.split('@').next().unwrap_or_default();
        let end = name.rfind('/').map_or(0, |slash| slash + 1);
        name[end..].split_once(':').map_or(name.len(), |(last, _)| end + last.len())
    };
    let same = |one: &str, other: &str| one[..repository(one)] == other[..repository(other)];
    pushed.iter().any(|entry| entry.digest == image.digest && same(&entry.reference, &image.name))
}

/// Decides for each. What is used by anything stays, and what came just now: it
/// may be about to be used.
pub(super) fn decide(rows: &mut [Row], older_than: Duration) {
    for row in rows {
        row.fate = if !row.used_by.is_empty() {
            Fate::InUse
        } else if row.place.starts_with("registry ") {
            Fate::InRegistry
        } else if !row.is_made {
            Fate::NotMade
        } else if row.age_seconds.is_none_or(|age| age < older_than.as_secs()) {
            Fate::TooYoung
        } else {
            Fate::Remove
        };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(in crate::image) fn made() -> Vec<Row> {
        let digest = |hex: &str| format!("sha256:{}", hex.repeat(64));
        // As rebuild names them, by their digests.
        let image = |hex: &str, delivered| StoredImage {
            name: format!("devloop.local/shop:{}", hex.repeat(16)),
            digest: digest(hex),
            id: format!("sha256:id-{hex}"),
            bytes: 20_000_000,
            delivered,
        };
        let named = |name: &str, hex: &str| StoredImage { name: name.into(), ..image(hex, Some(1000)) };
        let images = vec![
            image("a", Some(1000)),
            image("b", Some(1000)),
            image("c", Some(9999)),
            image("d", None),
            image("e", Some(9000)),
            named("devloop.local/pause:3.10", "9"),
            named(&format!("localhost:5001/web@{}", digest("f")), "f"),
            named("docker.io/me/web:1", "f"),
        ];
        let pushed = Entry {
            registry: "localhost:5001".into(),
            reference: format!("localhost:5001/web:1@{}", digest("f")),
            digest: digest("f"),
            bytes: 5000,
            delivered: 500,
        };
        let mut usage = Usage::default();
        usage.add(&json!({"image": "devloop.local/shop:bbbbbbbbbbbbbbbb"}), "replicaset/dev/shop-1");
        usage.add(&json!({"imageID": "sha256:id-e"}), "pod/dev/shop-2-a");
        usage.add(&json!({"image": "devloop.local/shop:eeeeeeeeeeeeeeee"}), "replicaset/dev/shop-2");
        rows(&[("node".into(), images)], &[pushed], &usage, 10_000)
    }

    #[test]
    fn what_nothing_uses_goes_and_all_else_stays() {
        let mut rows = made();
        decide(&mut rows, Duration::from_secs(600));
        let fates: Vec<Fate> = rows.iter().map(|row| row.fate).collect();
        let expected =
            [Fate::Remove, Fate::InUse, Fate::TooYoung, Fate::TooYoung, Fate::InUse, Fate::NotMade, Fate::Remove, Fate::InRegistry];
        assert_eq!(fates, expected);
        assert!(rows.iter().all(|row| !row.image.contains("docker.io")), "a name of somebody else is not listed");
        decide(&mut rows, Duration::from_secs(100_000));
        assert!(rows.iter().all(|row| row.fate != Fate::Remove));
    }
}
