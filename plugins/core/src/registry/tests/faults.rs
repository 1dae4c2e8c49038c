//! A registry behind a proxy that cuts, loses, refuses and lies.

use super::*;
use crate::deliver::Progress;

fn pieces(bytes: u64) -> PushOptions {
    PushOptions { piece_bytes: Some(bytes), ..PushOptions::default() }
}

async fn push_pieces(registry: &str, built: &Image, options: &PushOptions) -> Result<Pushed, RegistryError> {
    push_with(registry, &built.clone().into(), "x", "1", options, &Progress::default()).await
}

/// What the registry has under the tag, asked past the proxy.
async fn is_there(server: &Server, built: &Image) -> bool {
    missing_bytes(&server.address.to_string(), &built.clone().into(), "x", "1", &Access::default()).await.unwrap().is_none()
}

#[tokio::test]
async fn an_upload_that_was_cut_between_pieces_goes_on_where_it_was() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[(0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect()]);
    let patches = AtomicUsize::new(0);
    let proxy = flaky(server.address, move |_, line| match line.starts_with("PATCH") {
        // The fifth piece never arrives, and once more.
        true if matches!(patches.fetch_add(1, Ordering::SeqCst), 4 | 5) => Verdict::Cut,
        _ => Verdict::Pass,
    })
    .await;
    let progress = Progress::default();
    let pushed = push_with(&proxy.registry, &built.clone().into(), "x", "1", &pieces(100_000), &progress).await.unwrap();
    assert_eq!((pushed.sent_layers, proxy.count(&["PATCH"])), (1, 12));
    assert_eq!(proxy.count(&["GET", "/uploads/"]), 2, "it is asked what it has");
    // One upload for the layer, one for the configuration.
    assert_eq!(proxy.count(&["POST", "/uploads/"]), 2);
    assert_eq!(progress.sent(), 1_000_000 + built.config.len() as u64);
    assert!(is_there(&server, &built).await);
}

#[tokio::test]
async fn an_upload_that_the_registry_has_lost_begins_anew() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    for (tag, lose) in [(1_u8, false), (2, true)] {
        let built = image(folder.path(), &[vec![tag; 1_000_000]]);
        let patches = AtomicUsize::new(0);
        // A part of a piece: this registry gives the whole upload up then.
        let proxy = flaky(server.address, move |_, line| match line.starts_with("PATCH") {
            true if patches.fetch_add(1, Ordering::SeqCst) == 3 => {
                if lose {
                    Verdict::LoseAnswer
                } else {
                    Verdict::CutAfter(50_000)
                }
            }
            _ => Verdict::Pass,
        })
        .await;
        push_pieces(&proxy.registry, &built, &pieces(200_000)).await.unwrap();
        // Twice for the layer; the first time also for the configuration.
        assert_eq!(proxy.count(&["POST", "/uploads/"]), if lose { 2 } else { 3 });
        assert!(is_there(&server, &built).await);
    }
}

#[tokio::test]
async fn a_registry_without_pieces_gets_blobs_as_a_whole() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[vec![1; 500_000], vec![2; 500_000]]);
    let proxy = flaky(server.address, |_, line| match line.starts_with("PATCH") {
        true => answer("405 Method Not Allowed", ""),
        false => Verdict::Pass,
    })
    .await;
    assert_eq!(push_pieces(&proxy.registry, &built, &pieces(100_000)).await.unwrap().sent_layers, 2);
    assert!(is_there(&server, &built).await);
}

#[tokio::test]
async fn too_many_requests_are_made_again_when_the_registry_says() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[vec![1; 5000]]);
    let proxy = flaky(server.address, |number, _| match number {
        0 | 3 => answer("429 Too Many Requests", "retry-after: 1\r\n"),
        _ => Verdict::Pass,
    })
    .await;
    push_pieces(&proxy.registry, &built, &PushOptions::default()).await.unwrap();
    assert!(is_there(&server, &built).await);
    // Not for an hour.
    let proxy = flaky(server.address, |_, _| answer("429 Too Many Requests", "retry-after: 3600\r\n")).await;
    let error = push_pieces(&proxy.registry, &built, &PushOptions::default()).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Refused { status: 429, retry_after: Some(_), .. }), "{error}");
    assert_eq!(proxy.count(&[]), 1);
}

#[tokio::test]
async fn a_push_that_fails_half_way_leaves_the_tag_as_it_was() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let before = image(folder.path(), &[vec![1; 5000]]);
    push(&server.address.to_string(), &before, "x", "1").await.unwrap();
    let built = image(folder.path(), &[vec![2; 300_000], vec![3; 200_000]]);
    for cut in [true, false] {
        let proxy = flaky(server.address, move |_, line| match line.starts_with("PATCH") {
            true => fails(cut),
            false => Verdict::Pass,
        })
        .await;
        let error = push_pieces(&proxy.registry, &built, &pieces(100_000)).await.unwrap_err();
        assert!(error.to_string().contains("take blob sha256:"), "{error}");
        assert_eq!(proxy.count(&["PUT", "/manifests/"]), 0);
        assert!(is_there(&server, &before).await && !is_there(&server, &built).await);
    }
}

#[tokio::test]
async fn what_was_stored_has_to_be_what_was_sent() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[vec![1; 5000]]);
    let other = format!("sha256:{}", "f".repeat(64));
    let headers = format!("docker-content-digest: {other}\r\nlocation: /\r\n");
    let proxy = flaky(server.address, move |_, line| match line.starts_with("PUT") && line.contains("/manifests/") {
        true => answer("201 Created", &headers),
        false => Verdict::Pass,
    })
    .await;
    let error = push_pieces(&proxy.registry, &built, &PushOptions::default()).await.unwrap_err();
    let expected = format!("the manifest of x:1 is {other} instead of {} at registry {}", built.manifest_digest, proxy.registry);
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_layer_of_another_repository_is_not_sent() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let base = vec![4; 2_000_000];
    push(&server.address.to_string(), &image(folder.path(), std::slice::from_ref(&base)), "team/base", "1").await.unwrap();
    let built = image(folder.path(), &[base, vec![5; 1000]]);
    let options = PushOptions { mount_from: vec!["team/nothing".into(), "team/base".into()], ..PushOptions::default() };
    let pushed = push_pieces(&server.address.to_string(), &built, &options).await.unwrap();
    let expected = 1000 + built.config.len() as u64 + built.manifest.len() as u64;
    assert_eq!((pushed.sent_layers, pushed.sent_bytes), (1, expected));
    assert!(is_there(&server, &built).await);
}
