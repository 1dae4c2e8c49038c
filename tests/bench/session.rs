//! The loop: a save that is served, a binary that is swapped.

use crate::figures::Figures;
use crate::measure::{environment, load_toolbox, ms, until_served};
use devloop_tests::environment::Environment;
use devloop_tests::session::Session;
use devloop_tests::shop::Shop;
use devloop_tests::toolbox::IMAGE;
use std::time::{Duration, Instant};

/// The example on a fresh environment, watched by a session.
struct Bench {
    environment: Environment,
    shop: Shop,
    /// The pod's address and port.
    address: String,
    session: Session,
}

impl Bench {
    fn start() -> Self {
        let environment = environment();
        environment.up();
        let shop = Shop::copy(&environment, "bench");
        shop.rebuild();
        let (_, address) = shop.pod();
        let session = shop.hot_reload(&[]);
        Self { environment, shop, address, session }
    }
}

/// A small file: saved on disk -> served by the pod; `kubectl cp` in turn.
pub(crate) fn save_static(runs: usize) -> Figures {
    let Bench { environment, shop, address, mut session } = Bench::start();
    let copied = Copied::new(&environment);
    let mut figures = Figures::default();
    let mut peer = Vec::new();
    let page = shop.folder.join("static/bench.txt");
    for run in 0..=runs {
        let text = format!("run {run} of the benchmark, {}", "x".repeat(1000));
        let started = Instant::now();
        std::fs::write(&page, &text).unwrap();
        let took = until_served(&address, "/bench.txt", &text, started);
        let event = session.wait_for("synced");
        let other = copied.copy(&page, &text);
        // The first one meets cold caches on both sides.
        if run > 0 {
            figures.samples.push(ms(took));
            add_phases(&mut figures, &event);
            peer.push(ms(other));
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    figures.peer = Some(("kubectl cp", peer));
    drop(session);
    environment.clear();
    figures
}

/// A pod with tar in it, which `kubectl cp` needs and the shop doesn't have.
struct Copied<'a> {
    environment: &'a Environment,
    address: String,
}

impl<'a> Copied<'a> {
    fn new(environment: &'a Environment) -> Self {
        load_toolbox(environment);
        let script = "mkdir -p /www && exec httpd -f -p 8080 -h /www";
        environment.kubectl(["run", "copied", "--image", IMAGE, "--image-pull-policy=Never", "--", "-c", script]).run().ok();
        environment.kubectl(["wait", "--for=condition=Ready", "pod/copied", "--timeout=60s"]).run().ok();
        let address = environment.kubectl(["get", "pod", "copied", "-o", "jsonpath={.status.podIP}"]).run().ok();
        Self { environment, address: format!("{address}:8080") }
    }

    fn copy(&self, file: &std::path::Path, text: &str) -> Duration {
        let started = Instant::now();
        self.environment.kubectl(["cp", file.to_str().unwrap(), "copied:/www/bench.txt"]).run().ok();
        until_served(&self.address, "/bench.txt", text, started)
    }
}

/// A new binary: on disk -> serving; `kubectl rollout restart` in turn.
pub(crate) fn swap(runs: usize) -> Figures {
    let Bench { environment, shop, address, mut session } = Bench::start();
    let mut figures = Figures::default();
    let mut greeting = "hello from shop".to_owned();
    for run in 0..=runs {
        let next = format!("hello from run {run}");
        shop.edit("src/greeting.rs", &greeting, &next);
        let started = Instant::now();
        let whole = until_served(&address, "/api/version", &next, started);
        let event = session.wait_for("swapped");
        let until_binary: f64 = ["watch", "settle", "compile"].iter().filter_map(|name| event["phasesMs"][name].as_f64()).sum();
        if run > 0 {
            // All that comes after the compiler: what we can make faster.
            figures.samples.push(ms(whole) - until_binary);
            figures.phase("save to serving", ms(whole));
            add_phases(&mut figures, &event);
        }
        greeting = next;
    }
    drop(session);
    let mut peer = Vec::new();
    for _ in 0..runs.min(5) {
        let (before, _) = shop.pod();
        let started = Instant::now();
        environment.kubectl(["rollout", "restart", "deployment/shop"]).run().ok();
        environment.kubectl(["rollout", "status", "deployment/shop", "--timeout=120s"]).run().ok();
        peer.push(ms(started.elapsed()));
        assert_ne!(shop.pod().0, before);
    }
    figures.peer = Some(("kubectl rollout restart", peer));
    environment.clear();
    figures
}

fn add_phases(figures: &mut Figures, event: &serde_json::Value) {
    for (name, value) in event["phasesMs"].as_object().into_iter().flatten() {
        figures.phase(name, value.as_f64().unwrap_or(f64::NAN));
    }
}
