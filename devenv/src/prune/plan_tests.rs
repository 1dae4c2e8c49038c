use super::*;
use proptest::prelude::*;

/// Digest, time, blobs with their sizes.
type Written<'a> = (&'a str, u128, &'a [(&'a str, u64)]);

fn node(images: &[(&str, &str)], used: &[&str], manifests: &[Written<'_>]) -> NodeImages {
    NodeImages {
        node: "dev".into(),
        images: images.iter().map(|(reference, digest)| ((*reference).to_owned(), (*digest).to_owned())).collect(),
        used: used.iter().map(|reference| (*reference).to_owned()).collect(),
        manifests: manifests
            .iter()
            .map(|(digest, written, blobs)| {
                let blobs = blobs.iter().map(|(blob, size)| ((*blob).to_owned(), *size)).collect();
                ((*digest).to_owned(), Manifest { written: *written, blobs })
            })
            .collect(),
    }
}

fn names(items: &[Item]) -> Vec<(&str, Option<u64>)> {
    items.iter().map(|item| (item.name.as_str(), item.bytes)).collect()
}

#[test]
fn old_images_that_nothing_uses_go_and_shared_layers_are_not_counted() {
    let found = node(
        &[
            ("devloop.local/shop:1", "one"),
            ("sha256:11", "one"),
            ("devloop.local/shop:2", "two"),
            ("devloop.local/shop:3", "three"),
            ("devloop.local/shop:4", "four"),
            ("devloop.local/pause:3.10", "pause"),
            ("localhost:5001/shop:1", "foreign"),
        ],
        &["devloop.local/shop:3"],
        &[
            ("one", 1, &[("base", 100), ("a", 10)]),
            ("two", 2, &[("base", 100), ("b", 20), ("c", 5)]),
            ("three", 3, &[("c", 5)]),
            ("four", 4, &[("d", 40)]),
            ("pause", 0, &[]),
            ("foreign", 0, &[]),
        ],
    );
    let items = plan(&Snapshot { nodes: vec![found], ..Snapshot::default() });
    assert_eq!(names(&items), [("devloop.local/shop:1", Some(110)), ("devloop.local/shop:2", Some(20))]);
    let Action::RemoveImage { references, .. } = &items[0].action else { panic!() };
    assert_eq!(references, &["devloop.local/shop:1", "sha256:11"]);
}

#[test]
fn a_container_that_names_its_image_by_id_uses_it() {
    let images = [("devloop.local/shop:1", "one"), ("sha256:11", "one"), ("devloop.local/shop:2", "two")];
    let manifests: [Written<'_>; 2] = [("one", 1, &[]), ("two", 2, &[])];
    assert!(images_of(&node(&images, &["sha256:11"], &manifests)).is_empty());
    assert_eq!(images_of(&node(&images, &[], &manifests)).len(), 1);
}

fn images_of(node: &NodeImages) -> Vec<Item> {
    super::images(node)
}

#[test]
fn an_image_that_is_also_somebody_elses_stays() {
    let images = [("devloop.local/shop:1", "one"), ("localhost:5001/shop:1", "one"), ("devloop.local/shop:2", "two")];
    assert!(images_of(&node(&images, &[], &[("one", 1, &[]), ("two", 2, &[])])).is_empty());
}

#[test]
fn caches_keep_what_is_used_recent_or_the_newest() {
    let cached = |path: &str, age| Cached { path: path.into(), bytes: 1000, age };
    let caches = Caches {
        programs: vec![(cached("/c/node/old", 5), false), (cached("/c/node/current", 5), true)],
        layers: vec![cached("/c/layers/a.tar", 10), cached("/c/layers/b.tar", 4000), cached("/c/layers/c.tar", 5000)],
        node_images: vec![cached("/k/a.tar", 9), cached("/k/b.tar", 3), cached("/k/base-1", 9), cached("/k/base-2", 9)],
    };
    let items = plan(&Snapshot { caches, ..Snapshot::default() });
    assert_eq!(names(&items), [("old", Some(1000)), ("2 layers", Some(2000)), ("a.tar", Some(1000)), ("base-2", Some(1000))]);
}

#[test]
fn a_registry_without_anything_to_free_is_not_stopped() {
    let registry = |blobs| RegistryBlobs { registry: "localhost:5001".into(), blobs, bytes: Some(7), action: Action::CollectContainer };
    let items = plan(&Snapshot { registries: vec![registry(0), registry(2)], ..Snapshot::default() });
    assert_eq!(names(&items), [("2 blobs", Some(7))]);
}

proptest! {
    #[test]
    fn whatever_is_found_nothing_in_use_goes_and_a_repository_never_loses_its_newest(
        found in prop::collection::vec((0..4_usize, 0..6_u8, 0..8_u8), 0..20),
        used in prop::collection::vec(0..20_usize, 0..4),
        times in prop::collection::vec(0..5_u128, 8),
    ) {
        let repositories = ["devloop.local/shop", "devloop.local/api", "devloop.local/pause", "docker.io/library/shop"];
        let images: Vec<(String, String)> =
            found.iter().map(|(repository, tag, digest)| (format!("{}:{tag}", repositories[*repository]), format!("d{digest}"))).collect();
        let used: BTreeSet<String> = used.iter().filter_map(|index| Some(images.get(*index)?.0.clone())).collect();
        let manifests = times.iter().enumerate().map(|(index, time)| (format!("d{index}"), Manifest { written: *time, blobs: vec![] })).collect();
        let node = NodeImages { node: "dev".into(), images: images.clone(), used: used.clone(), manifests };
        let mut gone = BTreeSet::new();
        for item in images_of(&node) {
            let Action::RemoveImage { references, digest, .. } = item.action else { panic!() };
            for reference in references {
                prop_assert!(!used.contains(&reference));
                prop_assert!(reference.starts_with("devloop.local/") && !reference.contains("pause"));
            }
            gone.insert(digest);
        }
        for repository in &repositories[..2] {
            let of: Vec<_> = images.iter().filter(|(reference, _)| reference.starts_with(&format!("{repository}:"))).collect();
            prop_assert!(of.is_empty() || of.iter().any(|(_, digest)| !gone.contains(digest)));
        }
    }
}
