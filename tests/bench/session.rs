//! The loop: a save that is served, a binary that is swapped.

use crate::figures::Figures;
use crate::measure::{Asked, On, environment, load_toolbox, ms, until_all_serve, until_served};
use crate::route::Route;
use devloop_tests::environment::Environment;
use devloop_tests::example::Example;
use devloop_tests::session::Session;
use devloop_tests::toolbox::IMAGE;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// The shop on a fresh environment.
pub(crate) struct Bench {
    pub(crate) environment: Environment,
    pub(crate) shop: Example,
    _route: Option<Route>,
}

impl Bench {
    pub(crate) fn start(on: On) -> Self {
        Self::prepared(on, |_| {})
    }

    /// The same, of a copy that was changed before it is deployed.
    fn prepared(on: On, prepare: fn(&Example)) -> Self {
        let environment = environment(on);
        environment.up();
        let route = (on == On::Kind).then(|| Route::to_pods(&environment));
        let shop = Example::copy(&environment, "shop", "bench");
        prepare(&shop);
        shop.deploy(&environment);
        Self { environment, shop, _route: route }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.environment.clear();
    }
}

/// A small file: saved on disk -> served by the pod; `kubectl cp` in turn.
pub(crate) fn save_static(runs: usize, on: On) -> Figures {
    saves(runs, &Bench::start(on), "node", 1)
}

/// The same through the API alone, as on any cluster.
pub(crate) fn save_static_api(runs: usize, on: On) -> Figures {
    saves(runs, &Bench::start(on), "api", 1)
}

/// The same, until the last of ten pods serves it.
pub(crate) fn save_static_ten(runs: usize, on: On) -> Figures {
    let bench = Bench::start(on);
    bench.shop.kubectl(&["scale", "deployment/shop", "--replicas=10"]).run().ok();
    bench.shop.rolled_out();
    saves(runs, &bench, "node", 10)
}

fn saves(runs: usize, bench: &Bench, via: &str, pods: usize) -> Figures {
    let mut asked: Vec<Asked> = bench.shop.pods().into_iter().map(|pod| Asked::new(pod.address)).collect();
    assert_eq!(asked.len(), pods);
    let mut session = bench.shop.hot_reload(&["--via", via]);
    let copied = Copied::new(&bench.environment);
    let mut figures = Figures::default();
    let mut peer = Vec::new();
    let page = bench.shop.folder.join("static/bench.txt");
    for run in 0..=runs {
        let text = format!("run {run} of the benchmark, {}", "x".repeat(1000));
        let started = Instant::now();
        std::fs::write(&page, &text).unwrap();
        let took = until_all_serve(&mut asked, "/bench.txt", &text, started);
        let event = session.wait_for("synced");
        let asking = until_all_serve(&mut asked, "/bench.txt", &text, Instant::now());
        let other = copied.copy(&page, &text);
        // The first one meets cold caches on both sides.
        if run > 0 {
            figures.samples.push(ms(took));
            // What of it is the measuring.
            figures.phase("ask all pods", ms(asking));
            add_phases(&mut figures, &event);
            peer.push(ms(other));
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    figures.peer = Some((if pods > 1 { "kubectl cp to one pod" } else { "kubectl cp" }, peer));
    figures
}

/// A pod with tar in it, which `kubectl cp` needs and the shop doesn't have.
pub(crate) struct Copied<'a> {
    environment: &'a Environment,
    address: String,
}

impl<'a> Copied<'a> {
    pub(crate) fn new(environment: &'a Environment) -> Self {
        load_toolbox(environment);
        let script = "mkdir -p /www && exec httpd -f -p 8080 -h /www";
        environment.kubectl(["run", "copied", "--image", IMAGE, "--image-pull-policy=Never", "--", "-c", script]).run().ok();
        environment.kubectl(["wait", "--for=condition=Ready", "pod/copied", "--timeout=60s"]).run().ok();
        let address = environment.kubectl(["get", "pod", "copied", "-o", "jsonpath={.status.podIP}"]).run().ok();
        Self { environment, address: format!("{address}:8080") }
    }

    fn copy(&self, file: &Path, text: &str) -> Duration {
        let started = Instant::now();
        self.bring(file, "bench.txt");
        until_served(&self.address, "/bench.txt", text, started)
    }

    /// Copies a file or a folder; answers how long kubectl took.
    pub(crate) fn bring(&self, path: &Path, name: &str) -> Duration {
        let started = Instant::now();
        self.environment.kubectl(["cp", path.to_str().unwrap(), &format!("copied:/www/{name}")]).run().ok();
        started.elapsed()
    }
}

/// A new binary of 20 MB: on disk -> serving; `kubectl rollout restart` in turn.
pub(crate) fn swap(runs: usize, on: On) -> Figures {
    let bench = Bench::prepared(on, pad);
    let shop = &bench.shop;
    let address = shop.pod().address;
    let mut session = shop.hot_reload(&["--via", "node"]);
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
    end(session);
    let mut peer = Vec::new();
    for _ in 0..runs.min(5) {
        let before = shop.pod().name;
        let started = Instant::now();
        shop.kubectl(&["rollout", "restart", "deployment/shop"]).run().ok();
        shop.rolled_out();
        peer.push(ms(started.elapsed()));
        assert_ne!(shop.pod().name, before);
    }
    figures.peer = Some(("kubectl rollout restart", peer));
    figures
}

/// Makes the shop's binary as large as those of larger services.
fn pad(shop: &Example) {
    let mut padding = Vec::new();
    std::fs::File::open("/dev/urandom").unwrap().take(19 << 20).read_to_end(&mut padding).unwrap();
    std::fs::write(shop.folder.join("src/padding.bin"), padding).unwrap();
    let main = "#[used]\nstatic PADDING: &[u8] = include_bytes!(\"padding.bin\");\n\nfn main() -> ExitCode {";
    shop.edit("src/main.rs", "fn main() -> ExitCode {", main);
}

/// Ends a session as Ctrl-C does, and waits until it has put all back.
pub(crate) fn end(session: Session) {
    session.end(nix::sys::signal::Signal::SIGINT);
}

pub(crate) fn add_phases(figures: &mut Figures, event: &serde_json::Value) {
    for (name, value) in event["phasesMs"].as_object().into_iter().flatten() {
        figures.phase(name, value.as_f64().unwrap_or(f64::NAN));
    }
}
