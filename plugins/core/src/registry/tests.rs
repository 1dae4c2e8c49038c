//! Against a real `docker-registry`, where one is installed; elsewhere those
//! tests say so and pass.

mod access;
mod faults;
mod pull;

use super::*;
use crate::image::{Image, Layer};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A registry on a port of its own, gone when dropped.
struct Server {
    folder: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

impl Server {
    async fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        Self::start_at(tempfile::tempdir().unwrap(), port).await
    }

    async fn start_at(folder: tempfile::TempDir, port: u16) -> Option<Self> {
        Self::start_with(folder, port, "", "").await
    }

    /// With more lines of its configuration: below `http`, and at the top.
    async fn start_with(folder: tempfile::TempDir, port: u16, http: &str, more: &str) -> Option<Self> {
        Self::start_at_address(folder, SocketAddr::from(([127, 0, 0, 1], port)), http, more).await
    }

    async fn start_at_address(folder: tempfile::TempDir, address: SocketAddr, http: &str, more: &str) -> Option<Self> {
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp:\n  addr: '{address}'\n{http}\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n{more}",
            folder.path().join("data").display()
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        let command = command.arg("serve").arg(folder.path().join("config.yml")).stdout(Stdio::null()).stderr(log);
        let Ok(child) = command.spawn() else {
            eprintln!("skipped: needs docker-registry");
            return None;
        };
        let server = Self { folder, child, address };
        for _ in 0..200 {
            if TcpStream::connect(address).await.is_ok() {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("docker-registry did not start: {}", std::fs::read_to_string(server.folder.path().join("log")).unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// An image with layers of these contents.
fn image(folder: &Path, layers: &[Vec<u8>]) -> Image {
    let layers: Vec<Layer> = layers
        .iter()
        .map(|content| {
            let path = folder.join(digest(content).replace(':', "-"));
            std::fs::write(&path, content).unwrap();
            Layer::uncompressed(digest(content), content.len() as u64, path)
        })
        .collect();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": layers.iter().map(|layer| serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest, "size": layer.size,
        })).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let manifest_digest = digest(&manifest);
    Image { reference: "devloop.local/x:1".into(), manifest_digest, architecture: "amd64".into(), layers, config, manifest }
}

/// A proxy that misbehaves, and the first lines of the requests that it has seen.
struct Flaky {
    registry: String,
    seen: Arc<Mutex<Vec<String>>>,
}

/// What the proxy does with a request.
enum Verdict {
    Pass,
    /// Says this instead of the registry.
    Answer(String),
    /// Closes the connection.
    Cut,
    /// Passes so many bytes on, then closes both connections.
    CutAfter(usize),
    /// Passes so many bytes of the answer on, then closes both connections.
    CutAnswerAfter(usize),
    /// Passes the request on, and keeps the answer for itself.
    LoseAnswer,
}

/// Has `judge` look at each request's number and first line.
async fn flaky(target: SocketAddr, judge: impl Fn(usize, &str) -> Verdict + Send + Sync + 'static) -> Flaky {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = listener.local_addr().unwrap().to_string();
    let (seen, judge) = (Arc::new(Mutex::new(Vec::new())), Arc::new(judge));
    let kept = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (seen, judge) = (kept.clone(), judge.clone());
            tokio::spawn(async move {
                let mut head = vec![0; 8192];
                let count = client.read(&mut head).await.unwrap_or(0);
                let line = String::from_utf8_lossy(&head[..count]).lines().next().unwrap_or_default().to_owned();
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(line.clone());
                    seen.len() - 1
                };
                let verdict = judge(number, &line);
                if let Verdict::Answer(answer) = verdict {
                    let _ = client.write_all(answer.as_bytes()).await;
                    // What is still being sent is read, or the answer is lost.
                    let _ = tokio::time::timeout(Duration::from_millis(200), tokio::io::copy(&mut client, &mut tokio::io::sink())).await;
                    return;
                }
                if let Verdict::Cut = verdict {
                    return;
                }
                let mut server = TcpStream::connect(target).await.unwrap();
                // One request a connection, so that each is counted.
                let first = head.iter().position(|byte| *byte == b'\n').unwrap() + 1;
                let parts = [&head[..first], b"connection: close\r\n", &head[first..count]].concat();
                let _ = server.write_all(&parts).await;
                match verdict {
                    Verdict::CutAfter(bytes) => {
                        let mut some = client.take(bytes as u64);
                        let _ = tokio::io::copy(&mut some, &mut server).await;
                    }
                    Verdict::CutAnswerAfter(bytes) => {
                        let mut some = server.take(bytes as u64);
                        let _ = tokio::io::copy(&mut some, &mut client).await;
                    }
                    Verdict::LoseAnswer => {
                        let (mut from, _held) = client.split();
                        let ((mut answers, mut to), mut nowhere) = (server.split(), tokio::io::sink());
                        tokio::select! {
                            _ = tokio::io::copy(&mut from, &mut to) => {}
                            _ = tokio::io::copy(&mut answers, &mut nowhere) => {}
                        }
                    }
                    _ => {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                }
            });
        }
    });
    Flaky { registry, seen }
}

impl Flaky {
    /// How many requests had this in their first lines.
    fn count(&self, parts: &[&str]) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

fn answer(status: &str, headers: &str) -> Verdict {
    Verdict::Answer(format!("HTTP/1.1 {status}\r\n{headers}content-length: 4\r\nconnection: close\r\n\r\noops"))
}

fn fails(cut: bool) -> Verdict {
    if cut { Verdict::Cut } else { answer("500 Internal Server Error", "") }
}

#[tokio::test]
async fn only_what_is_missing_is_sent_and_the_image_is_there() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (base, one, two) = (vec![7; 3_000_000], vec![1; 1000], vec![2; 2000]);
    let registry = server.address.to_string();
    let first = image(folder.path(), &[base.clone(), one.clone(), one.clone()]);
    let pushed = push(&registry, &first, "team/shop", "1").await.unwrap();
    let expected = 3_001_000 + first.config.len() as u64 + first.manifest.len() as u64;
    assert_eq!((pushed.sent_layers, pushed.sent_bytes, &pushed.digest), (2, expected, &first.manifest_digest));
    let again = push(&registry, &first, "team/shop", "1").await.unwrap();
    assert_eq!((again.sent_layers, again.sent_bytes), (0, 0));
    let second = image(folder.path(), &[base, two]);
    let pushed = push(&registry, &second, "team/shop", "1").await.unwrap();
    assert_eq!((pushed.sent_layers, pushed.sent_bytes), (1, 2000 + second.manifest.len() as u64));
    // The tag has moved on, and both are still there by their digests.
    let exchange = exchange::Exchange::with(endpoint::Endpoint::parse(&registry).unwrap());
    for (tag, wanted) in [("1", &second), (first.manifest_digest.as_str(), &first)] {
        let question = exchange::Question {
            method: http::Method::GET,
            url: exchange.endpoint.url(&format!("/v2/team/shop/manifests/{tag}")),
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            payload: exchange::Payload::Nothing,
        };
        let answer = exchange.ask("read", &question).await.unwrap();
        assert_eq!(answer.header("docker-content-digest"), Some(wanted.manifest_digest.as_str()));
    }
}

#[tokio::test]
async fn a_registry_that_fails_for_a_while_is_survived() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    for (tag, cut) in [("errors", false), ("cuts", true)] {
        let built = image(folder.path(), &[vec![3; 2_000_000], tag.as_bytes().to_vec()]);
        // The first two requests of all, the first three uploads, and the first manifest.
        let (uploads, manifests) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let proxy = flaky(server.address, move |number, line| {
            let fail = number < 2
                || line.starts_with("PUT") && line.contains("/uploads/") && uploads.fetch_add(1, Ordering::SeqCst) < 3
                || line.starts_with("PUT") && line.contains("/manifests/") && manifests.fetch_add(1, Ordering::SeqCst) < 1;
            if fail { fails(cut) } else { Verdict::Pass }
        });
        let proxy = proxy.await;
        let pushed = push(&proxy.registry, &built, "flaky", tag).await.unwrap();
        assert_eq!(pushed.digest, built.manifest_digest);
        assert!(proxy.count(&[]) > 8);
        assert_eq!(push(&server.address.to_string(), &built, "flaky", tag).await.unwrap().sent_bytes, 0, "it is all there");
    }
}

#[tokio::test]
async fn a_registry_that_stays_broken_is_given_up_in_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[vec![3; 1000]]);
    let started = Instant::now();
    let proxy = flaky(([127, 0, 0, 1], 1).into(), |_, _| fails(false)).await;
    let error = push(&proxy.registry, &built, "x", "1").await.unwrap_err();
    assert_eq!(error.to_string(), format!("registry {} refused to look for the image: 500", proxy.registry));
    assert_eq!(proxy.count(&[]), retry::ATTEMPTS);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    // Nobody listens there.
    let error = push("127.0.0.1:1", &built, "x", "1").await.unwrap_err();
    assert_eq!(error.to_string(), "could not look for the image at 127.0.0.1:1 (6 attempts)");
}

#[tokio::test]
async fn a_restart_in_the_middle_is_survived() {
    let Some(mut server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[vec![5; 1_000_000]]);
    let port = server.address.port();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let registry = server.address.to_string();
    let pushing = tokio::spawn(async move { push(&registry, &built, "x", "1").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let Some(_again) = Server::start_at(tempfile::tempdir().unwrap(), port).await else { return };
    assert_eq!(pushing.await.unwrap().unwrap().sent_layers, 1);
}

#[tokio::test]
async fn blobs_that_are_collected_before_the_manifest_comes_are_sent_again() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[vec![6; 100_000]]);
    let data = server.folder.path().join("data");
    let emptied = AtomicUsize::new(0);
    // What a collection does between a push's blobs and its manifest.
    let proxy = flaky(server.address, move |_, line| {
        if line.starts_with("PUT") && line.contains("/manifests/") && emptied.fetch_add(1, Ordering::SeqCst) == 0 {
            std::fs::remove_dir_all(data.join("docker")).unwrap();
        }
        Verdict::Pass
    });
    let pushed = push(&proxy.await.registry, &built, "x", "1").await.unwrap();
    assert_eq!(pushed.sent_layers, 2, "the layer was sent twice");
}

#[tokio::test]
async fn a_layer_that_was_cut_is_not_sent() {
    let Some(server) = Server::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[vec![9; 5000]]);
    std::fs::write(&built.layers[0].path, [9; 100]).unwrap();
    let error = push(&server.address.to_string(), &built, "x", "1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Layer { .. }), "{error}");
    // Right size, wrong content: the registry notices, and it is not tried again.
    std::fs::write(&built.layers[0].path, [8; 5000]).unwrap();
    let error = push(&server.address.to_string(), &built, "x", "1").await.unwrap_err();
    let found = digest(&[8; 5000]);
    assert!(
        matches!(&error, RegistryError::DigestMismatch { expected, found: other, .. } if *expected == built.layers[0].digest && *other == found),
        "{error}"
    );
}
