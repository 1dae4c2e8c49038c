//! How long a kind cluster takes to come up through us, registry included, next
//! to kind alone.

use crate::figures::Figures;
use crate::measure::{On, environment, ms};
use devloop_tests::environment::{Engine, Environment};
use devloop_tests::program::Program;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// In turn, with the same image of nodes.
pub(crate) fn fresh(runs: usize) -> Figures {
    let environment = environment(On::Embedded).on(Engine::Kind { workers: 0 });
    let peer = Kind::new(&environment);
    let mut figures = Figures::default();
    let mut peer_samples = Vec::new();
    for _ in 0..runs {
        let arguments = environment.up_arguments().into_iter().chain(["-o", "json"].map(str::to_owned));
        let started = Instant::now();
        let report = environment.devenv(arguments).run().ok();
        figures.samples.push(ms(started.elapsed()));
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        for (name, value) in report["milestonesMs"].as_object().unwrap() {
            figures.phase(name, value.as_f64().unwrap());
        }
        environment.down();
        peer_samples.push(ms(peer.create()));
        peer.delete();
    }
    let difference = crate::figures::percentile(&figures.samples, 50.0) - crate::figures::percentile(&peer_samples, 50.0);
    figures.more.insert("differenceMs", difference);
    figures.peer = Some(("kind create cluster", peer_samples));
    environment.clear();
    figures
}

/// `kind create cluster` until its node is ready, as `up` waits for it.
pub(crate) struct Kind {
    config: PathBuf,
    kubeconfig: PathBuf,
}

/// No name of an environment of ours.
const NAME: &str = "devloop-bench-peer";

impl Kind {
    pub(crate) fn new(environment: &Environment) -> Self {
        let folder = environment.scratch("kind");
        let config = folder.join("kind.yaml");
        // Without this, kubelets don't start on machines that lack a capability.
        let text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nfeatureGates: {KubeletInUserNamespace: true}\n";
        std::fs::write(&config, text).unwrap();
        let kind = Self { config, kubeconfig: folder.join("kubeconfig") };
        kind.delete();
        kind
    }

    pub(crate) fn create(&self) -> Duration {
        let mut create = self.kind(&["create", "cluster", "--name", NAME, "--wait", "180s", "--config"]).args([&self.config]);
        if let Some(image) = std::env::var_os("KIND_NODE_IMAGE") {
            create = create.args(["--image".into(), image]);
        }
        let started = Instant::now();
        create.run().ok();
        started.elapsed()
    }

    pub(crate) fn delete(&self) {
        self.kind(&["delete", "cluster", "--name", NAME]).run().ok();
    }

    fn kind(&self, arguments: &[&str]) -> Program {
        Program::new("kind").args(arguments).env("KUBECONFIG", &self.kubeconfig)
    }
}
