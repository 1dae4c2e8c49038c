//! One changed layer to a registry on this machine, next to `docker push`.

use crate::figures::Figures;
use crate::load::{IMAGE, Images, random};
use crate::measure::{On, environment, ms};
use devloop_core::deliver::Progress;
use devloop_core::image::{Image, Layer};
use devloop_core::registry::{self, PushOptions};
use devloop_tests::program::{Program, Running};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BASE_BYTES: u64 = 200 << 20;
const LAYER_BYTES: u64 = 20 << 20;
const LARGE_BYTES: u64 = 2 << 30;

/// Ours and Docker's in turn, each with a layer that the registry has not seen.
pub(crate) fn changed(runs: usize) -> Figures {
    let environment = environment(On::Embedded);
    let registry = Server::start(&environment.scratch("push"));
    let images = Images::new(&environment);
    let named = format!("{}/docker:dev", registry.address);
    let folder = environment.scratch("layers");
    let base = layer(&folder, "base", BASE_BYTES);
    let mut figures = Figures::default();
    let mut peer = Vec::new();
    for run in 0..=runs {
        // Its digest is known when an image is made: that is not the push.
        let image = image(vec![base.clone(), layer(&folder, "app", LAYER_BYTES)]);
        let (took, pushed) = push(&registry.address, &image);
        assert!(run == 0 || pushed.sent_layers == 1, "{pushed:?}");
        images.change();
        Program::new("docker").args(["tag", IMAGE, &named]).run().ok();
        let started = Instant::now();
        Program::new("docker").args(["push", "--quiet", &named]).run().ok();
        let other = started.elapsed();
        // The first one brings the base, which isn't what is measured.
        if run > 0 {
            figures.samples.push(ms(took));
            peer.push(ms(other));
        }
        let (again, pushed) = push(&registry.address, &image);
        assert_eq!(pushed.sent_bytes, 0);
        figures.phase("unchanged image", ms(again));
    }
    figures.peer = Some(("docker push", peer));
    // Nothing of it is on the disk but in the registry.
    let path = folder.join("large");
    std::fs::File::create(&path).unwrap().set_len(LARGE_BYTES).unwrap();
    let large = image(vec![layer_of(path)]);
    // From here on, the peak is counted anew (`proc_pid_clear_refs(5)`).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (took, pushed) = push(&registry.address, &large);
    assert_eq!(pushed.sent_layers, 1);
    figures.more.insert("large2GiBMs", ms(took));
    figures.more.insert("large2GiBPeakMB", peak_megabytes());
    let _ = Program::new("docker").args(["image", "rm", "--force", &named]).run();
    drop((images, registry));
    environment.clear();
    figures
}

fn push(registry: &str, image: &Image) -> (Duration, registry::Pushed) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let started = Instant::now();
    let pushed = runtime
        .block_on(registry::push_with(registry, &image.clone().into(), "ours", "dev", &PushOptions::default(), &Progress::default()))
        .unwrap();
    (started.elapsed(), pushed)
}

fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn layer(folder: &Path, name: &str, bytes: u64) -> Layer {
    let path = folder.join(name);
    random(&path, bytes);
    layer_of(path)
}

fn layer_of(path: PathBuf) -> Layer {
    let said = Program::new("sha256sum").args([&path]).run().ok();
    let digest = format!("sha256:{}", said.split_whitespace().next().unwrap());
    Layer::uncompressed(digest, path.metadata().unwrap().len(), path)
}

fn image(layers: Vec<Layer>) -> Image {
    let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}});
    let config = config.to_string().into_bytes();
    let descriptor = |kind: &str, digest: &str, size: u64| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
    let blank = Image {
        reference: "devloop.local/ours:dev".into(),
        manifest_digest: String::new(),
        architecture: "amd64".into(),
        layers,
        config,
        manifest: Vec::new(),
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &blank.config_digest(), blank.config.len() as u64),
        "layers": blank.layers.iter().map(|layer| descriptor("layer.v1.tar", &layer.digest, layer.size)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    // The configuration's digest of an image that consists of the manifest.
    let manifest_digest = Image { config: manifest.clone(), ..blank.clone() }.config_digest();
    Image { manifest_digest, manifest, ..blank }
}

/// The registry that environments have, on a port of its own.
struct Server {
    address: String,
    _running: Running,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let port = devloop_tests::free_port();
        let address = format!("localhost:{port}");
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: 'localhost:{port}'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n",
            folder.join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let running = Program::new("docker-registry").args(["serve".as_ref(), config.as_os_str()]).start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(registry::wait_until_serving(&address)).unwrap();
        Self { address, _running: running }
    }
}
