//! What there is and what becomes of it. Pure.

use super::usage::Usage;
use devloop_core::deliver::inventory::StoredImage;
use devloop_core::deliver::ledger::Entry;
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
    /// It should have been removed.
    Failed,
}

/// All images at all places, `now` in seconds since 1970.
pub(super) fn rows(nodes: &[(String, Vec<StoredImage>)], pushed: &[Entry], usage: &Usage, now: i64) -> Vec<Row> {
    let age = |delivered: Option<i64>| delivered.map(|delivered| u64::try_from(now.saturating_sub(delivered)).unwrap_or(0));
    let on_nodes = nodes.iter().flat_map(|(node, images)| images.iter().map(move |image| (node, image))).map(|(node, image)| Row {
        place: node.clone(),
        image: image.name.clone(),
        digest: image.digest.clone(),
        id: image.id.clone(),
        bytes: image.bytes,
        age_seconds: age(image.delivered),
        used_by: usage.of(&[&image.name, &image.digest, &image.id]),
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
        fate: Fate::Stays,
    });
    on_nodes.chain(in_registries).collect()
}

/// Decides for each. What is used by anything stays, and what came just now: it
/// may be about to be used.
pub(super) fn decide(rows: &mut [Row], older_than: Duration) {
    for row in rows {
        row.fate = if !row.used_by.is_empty() {
            Fate::InUse
        } else if row.place.starts_with("registry ") {
            Fate::InRegistry
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
        let image = |name: &str, delivered| StoredImage {
            name: format!("devloop.local/{name}"),
            digest: format!("sha256:{name}"),
            id: format!("sha256:id-{name}"),
            bytes: 20_000_000,
            delivered,
        };
        let images = vec![
            image("shop:old", Some(1000)),
            image("shop:kept", Some(1000)),
            image("shop:new", Some(9999)),
            image("x:1", None),
            image("shop:now", Some(9000)),
        ];
        let pushed = Entry {
            registry: "localhost:5001".into(),
            reference: "localhost:5001/web:1@sha256:web".into(),
            digest: "sha256:web".into(),
            bytes: 5000,
            delivered: 500,
        };
        let mut usage = Usage::default();
        usage.add(&json!({"image": "devloop.local/shop:kept"}), "replicaset/dev/shop-1");
        usage.add(&json!({"imageID": "sha256:id-shop:now"}), "pod/dev/shop-2-a");
        usage.add(&json!({"image": "devloop.local/shop:now"}), "replicaset/dev/shop-2");
        rows(&[("node".into(), images)], &[pushed], &usage, 10_000)
    }

    #[test]
    fn what_nothing_uses_goes_and_all_else_stays() {
        let mut rows = made();
        decide(&mut rows, Duration::from_secs(600));
        let fates: Vec<Fate> = rows.iter().map(|row| row.fate).collect();
        assert_eq!(fates, [Fate::Remove, Fate::InUse, Fate::TooYoung, Fate::TooYoung, Fate::InUse, Fate::InRegistry]);
        decide(&mut rows, Duration::from_secs(100_000));
        assert!(rows.iter().all(|row| row.fate != Fate::Remove));
    }
}
