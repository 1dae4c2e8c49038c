//! Bases out of a real registry.

use super::*;
use crate::deliver::Progress;
use crate::image::source::{Places, find};
use crate::image::{BaseImage, ImageError, ImageSet, Ingredients, assemble, local_architecture};
use crate::project::{Base, ImageSpec};

/// An image whose configuration fits its layers, for an architecture.
fn whole(folder: &Path, layers: &[Vec<u8>], architecture: &str) -> Image {
    let plain = image(folder, layers);
    let diff_ids: Vec<&str> = plain.layers.iter().map(|layer| layer.digest.as_str()).collect();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/base"], "Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let mut manifest: serde_json::Value = serde_json::from_slice(&plain.manifest).unwrap();
    manifest["config"]["digest"] = digest(&config).into();
    manifest["config"]["size"] = config.len().into();
    let manifest = manifest.to_string().into_bytes();
    Image { manifest_digest: digest(&manifest), architecture: architecture.to_owned(), config, manifest, ..plain }
}

async fn base(cache: &Path, name: &str) -> Result<BaseImage, ImageError> {
    let access = Access::default();
    let places = Places { cache, root: cache, nodes: &[], access: &access };
    find(&places, &Base::Registry(name.to_owned()), local_architecture()).await.map(Option::unwrap)
}

#[tokio::test]
async fn a_base_is_found_by_its_platform_and_its_layers_come_when_they_are_needed() {
    let Some(server) = Server::start().await else { return };
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let registry = server.address.to_string();
    let mine = whole(folder.path(), &[vec![1; 300_000], vec![2; 50_000]], local_architecture());
    let other = whole(folder.path(), &[vec![3; 1000]], "s390x");
    push(&registry, &other, "base", "other").await.unwrap();
    let both = ImageSet::of("base", vec![other, mine.clone()]).unwrap();
    let again = async || push_with(&registry, &both, "base", "1", &PushOptions::default(), &Progress::default()).await.unwrap();
    let pushed = again().await;
    let parts: usize = both.images().iter().map(|image| image.manifest.len()).sum();
    let sent = 350_000 + mine.config.len() + parts + both.document().len();
    assert_eq!((pushed.sent_layers, pushed.sent_bytes, &pushed.digest), (2, sent as u64, &both.digest), "the other's layer is there");
    assert_eq!(again().await.sent_bytes, 0);
    let found = base(cache.path(), &format!("{registry}/base:1")).await.unwrap();
    assert!(found.layers.iter().all(|layer| !layer.path.exists()), "nobody needs them yet");
    let spec = ImageSpec { name: "upon".into(), ..ImageSpec::default() };
    let built = assemble(cache.path(), &spec, &Ingredients { base: Some(&found), ..Ingredients::of(folder.path()) }).unwrap();
    assert!(built.layers.iter().map(|layer| &layer.digest).eq(mine.layers.iter().map(|layer| &layer.digest)));
    built.obtain(&[false, true]).await.unwrap();
    assert!(!built.layers[0].path.exists());
    assert_eq!(std::fs::read(&built.layers[1].path).unwrap(), vec![2; 50_000]);
    // Pushed to the registry that has the base, no layer is even read.
    let pushed = push(&registry, &built, "team/upon", "1").await.unwrap();
    assert_eq!((pushed.sent_layers, built.layers[0].path.exists()), (0, false));
    // Damaged in the cache, it is got again.
    std::fs::write(&built.layers[1].path, vec![0; 50_000]).unwrap();
    let again = base(cache.path(), &format!("{registry}/base@{}", mine.manifest_digest)).await.unwrap();
    again.layers[1].obtain().await.unwrap();
    assert_eq!(std::fs::read(&again.layers[1].path).unwrap(), vec![2; 50_000]);
    let refused = base(cache.path(), &format!("{registry}/base:other")).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("{registry}/base:other is for s390x, the image is to run on {}", local_architecture()));
    let refused = base(cache.path(), &format!("{registry}/base:none")).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("{registry}/base:none can't be built upon: registry {registry} has no such image"));
}

#[tokio::test]
async fn a_blob_that_is_cut_goes_on_where_it_was() {
    let Some(server) = Server::start().await else { return };
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let image = whole(folder.path(), std::slice::from_ref(&content), local_architecture());
    push(&server.address.to_string(), &image, "base", "1").await.unwrap();
    let blob = format!("/blobs/{}", image.layers[0].digest);
    let cuts = AtomicUsize::new(0);
    let flaky = flaky(server.address, move |_, line| match line.contains(&blob) && cuts.fetch_add(1, Ordering::Relaxed) < 2 {
        true => Verdict::CutAnswerAfter(1_000_000),
        false => Verdict::Pass,
    })
    .await;
    let found = base(cache.path(), &format!("{}/base:1", flaky.registry)).await.unwrap();
    found.layers[0].obtain().await.unwrap();
    assert!(std::fs::read(&found.layers[0].path).unwrap() == content);
    assert_eq!(flaky.count(&["GET", "/blobs/", &image.layers[0].digest]), 3);
}
