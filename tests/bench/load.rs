//! An image from Docker onto the nodes of a kind cluster, next to kind itself.

use crate::figures::Figures;
use crate::measure::{On, environment, ms};
use devloop_tests::environment::{Engine, Environment};
use devloop_tests::program::Program;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// The image as a developer has it: much that stays, one layer that changes.
const BASE_BYTES: u64 = 200 << 20;
const LAYER_BYTES: u64 = 20 << 20;
const BASE: &str = "devloop-bench-base:1";
pub(crate) const IMAGE: &str = "devloop-bench:dev";

/// One changed layer into a cluster of one node.
pub(crate) fn one_node(runs: usize) -> Figures {
    changed(0, runs)
}

/// One changed layer into a cluster of three.
pub(crate) fn three_nodes(runs: usize) -> Figures {
    changed(2, runs)
}

/// Ours and kind's in turn, each with a layer that no node has seen; then the
/// unchanged image again.
fn changed(workers: u16, runs: usize) -> Figures {
    let environment = environment(On::Embedded).on(Engine::Kind { workers });
    environment.up();
    let images = Images::new(&environment);
    let mut figures = Figures::default();
    let mut peer = Vec::new();
    for run in 0..=runs {
        images.change();
        let (took, report) = ours(&environment);
        let nodes = report["nodes"].as_array().unwrap();
        assert!(nodes.len() == usize::from(workers) + 1 && nodes.iter().all(|node| node["error"].is_null()), "{report}");
        // Nothing but the changed layer, once the base is there.
        assert!(run == 0 || nodes.iter().all(|node| node["sentLayers"] == 1), "{report}");
        images.check(&environment);
        let (again, report) = ours(&environment);
        assert!(report["nodes"].as_array().unwrap().iter().all(|node| node["alreadyPresent"] == true), "{report}");
        images.change();
        let started = Instant::now();
        let kind = Program::new("kind").args(["load", "docker-image", IMAGE, "--name", &environment.name]);
        kind.run().ok();
        let other = started.elapsed();
        images.check(&environment);
        // The first one brings the base, which isn't what is measured.
        if run > 0 {
            figures.samples.push(ms(took));
            figures.phase("unchanged image", ms(again));
            peer.push(ms(other));
        }
    }
    figures.peer = Some(("kind load docker-image", peer));
    drop(images);
    environment.clear();
    figures
}

fn ours(environment: &Environment) -> (Duration, serde_json::Value) {
    let started = Instant::now();
    let report = environment.devenv(["load", IMAGE, "--name", &environment.name, "-o", "json"]).run().ok();
    (started.elapsed(), serde_json::from_str(&report).unwrap())
}

/// The images, gone from the engine when dropped.
pub(crate) struct Images {
    folder: std::path::PathBuf,
}

impl Images {
    pub(crate) fn new(environment: &Environment) -> Self {
        let folder = environment.scratch("load");
        random(&folder.join("base"), BASE_BYTES);
        let archive = folder.join("base.tar");
        Program::new("tar").args(["--create", "--file"]).args([&archive]).current_dir(&folder).args(["base"]).run().ok();
        docker(&["import", archive.to_str().unwrap(), BASE]);
        std::fs::remove_file(archive).unwrap();
        std::fs::remove_file(folder.join("base")).unwrap();
        std::fs::write(folder.join("Dockerfile"), format!("FROM {BASE}\nCOPY app /app\n")).unwrap();
        Self { folder }
    }

    /// Makes the image anew, with other bytes in its last layer.
    pub(crate) fn change(&self) {
        random(&self.folder.join("app"), LAYER_BYTES);
        let before = docker(&["images", "--quiet", "--no-trunc", IMAGE]);
        // The builder that every engine has.
        let build = Program::new("docker").args(["build", "--quiet", "--tag", IMAGE]).args([&self.folder]).env("DOCKER_BUILDKIT", "0");
        build.run().ok();
        // It has no name any more.
        if !before.trim().is_empty() {
            docker(&["image", "rm", before.trim()]);
        }
    }

    /// Stock tools agree that every node has the image that Docker has.
    fn check(&self, environment: &Environment) {
        let id = docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]);
        let nodes = docker(&["ps", "--quiet", "--filter", &format!("label=io.x-k8s.kind.cluster={}", environment.name)]);
        for node in nodes.split_whitespace() {
            let filter = format!("name==docker.io/library/{IMAGE}");
            let shown = docker(&["exec", node, "ctr", "--namespace", "k8s.io", "images", "check", &filter]);
            assert!(shown.trim_end().ends_with("true"), "{node}: {shown}");
            let digest = shown.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
            let manifest = docker(&["exec", node, "ctr", "--namespace", "k8s.io", "content", "get", digest]);
            assert!(manifest.contains(id.trim()), "{node} has another image: {manifest}");
        }
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let _ = Program::new("docker").args(["image", "rm", "--force", IMAGE, BASE]).run();
    }
}

fn docker(arguments: &[&str]) -> String {
    Program::new("docker").args(arguments).run().ok()
}

/// Bytes that no compression makes smaller.
pub(crate) fn random(path: &Path, bytes: u64) {
    let mut source = std::fs::File::open("/dev/urandom").unwrap().take(bytes);
    let mut file = std::fs::File::create(path).unwrap();
    std::io::copy(&mut source, &mut file).unwrap();
    file.flush().unwrap();
}
