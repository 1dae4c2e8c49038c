//! A changed file in an image with a large base until a new pod serves it, next
//! to what people do by hand; a rebuild of many services without a change; and the
//! memory that a large image takes.

use crate::arrivals::Arrivals;
use crate::figures::Figures;
use crate::load::random;
use crate::measure::{On, environment, ms, until_served};
use crate::route::Route;
use devloop_core::image;
use devloop_core::project::{FileMapping, ImageSpec};
use devloop_tests::environment::{Engine, Environment};
use devloop_tests::program::Program;
use devloop_tests::shop::Shop;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What never changes, and what does.
const BASE_BYTES: u64 = 200 << 20;
const CHANGED_BYTES: u64 = 20 << 20;
const PORT: u16 = 30_081;
const PEER_PORT: u16 = 30_082;
/// Where the app itself listens, and what it is asked for.
const POD_PORT: u16 = 8080;
const MARKER: &str = "/assets/marker.txt";
const PEER_BASE: &str = "devloop-bench-shop-base:1";
const PEER: &str = "devloop-bench-shop";

/// Ours and the peer's in turn, on one kind cluster: until the new pod itself serves
/// what changed, and until the Service does, which is the kubelet's next look at the
/// pod's readiness and kube-proxy's next round later.
pub(crate) fn changed(runs: usize) -> Figures {
    let environment = environment(On::Embedded).on(Engine::Kind { workers: 0 });
    environment.up();
    let ours = Ours::new(&environment);
    ours.change("first");
    ours.rebuild();
    let peer = Peer::new(&environment, &ours.shop.folder);
    let path = "jsonpath={.items[0].metadata.name} {.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    let answer = environment.kubectl(["get", "nodes", "-o", path]).run().ok();
    let (name, node) = answer.split_once(' ').unwrap();
    let _route = Route::to_pods(&environment);
    let until_served = |port: u16, text: &str, work: &dyn Fn()| {
        let arrivals = Arrivals::at(name);
        let started = Instant::now();
        std::thread::scope(|scope| {
            let pod = scope.spawn(move || arrivals.until_one_serves(POD_PORT, MARKER, text, started));
            work();
            let service = until_served(&format!("{node}:{port}"), MARKER, text, started);
            (ms(pod.join().unwrap()), ms(service))
        })
    };
    let mut figures = Figures::default();
    let mut peers = Vec::new();
    for run in 0..=runs {
        let text = format!("run {run} of ours");
        ours.change(&text);
        let report = RefCell::default();
        let (pod, service) = until_served(PORT, &text, &|| *report.borrow_mut() = ours.rebuild());
        let text = format!("run {run} of the peer");
        peer.change(&text);
        let (peer_pod, peer_service) = until_served(PEER_PORT, &text, &|| peer.build_and_load(run));
        // The first one meets cold caches on both sides.
        if run > 0 {
            figures.samples.push(pod);
            figures.phase("until its Service serves it", service);
            for (phase, value) in report.take()["services"][0]["phasesMs"].as_object().unwrap() {
                figures.phase(phase, value.as_f64().unwrap());
            }
            figures.phase("until the peer's Service does", peer_service);
            peers.push(peer_pod);
        }
    }
    figures.peer = Some(("docker build, kind load, kubectl set image", peers));
    drop(peer);
    environment.clear();
    figures
}

/// `kubectl rebuild` of 20 services, when nothing has changed.
pub(crate) fn unchanged(runs: usize, on: On) -> Figures {
    const SERVICES: usize = 20;
    let environment = environment(on);
    environment.up();
    let shop = Shop::copy(&environment, "bench-noop");
    let manifest = std::fs::read_to_string(shop.folder.join("k8s/shop.yaml")).unwrap();
    let project = std::fs::read_to_string(shop.folder.join("devloop.yaml")).unwrap();
    let (head, service) = project.split_once("services:\n").unwrap();
    let mut services = String::new();
    for number in 0..SERVICES {
        let name = format!("shop-{number}");
        let own = renamed(&manifest, &name);
        std::fs::create_dir_all(shop.folder.join(&name)).unwrap();
        std::fs::write(shop.folder.join(&name).join("shop.yaml"), own).unwrap();
        let own = service
            .replace("- name: shop\n", &format!("- name: {name}\n"))
            .replace("name: shop\n      base", &format!("name: {name}\n      base"));
        services.push_str(&own.replace("[k8s]", &format!("[{name}]")).replace("deploy/shop", &format!("deploy/{name}")));
    }
    std::fs::write(shop.folder.join("devloop.yaml"), format!("{head}services:\n{services}")).unwrap();
    let report = rebuild(&shop);
    assert_eq!(report["services"].as_array().unwrap().len(), SERVICES, "{report}");
    let mut figures = Figures::default();
    for run in 0..=runs {
        let started = Instant::now();
        let report = rebuild(&shop);
        let took = started.elapsed();
        assert!(report["services"].as_array().unwrap().iter().all(|service| service["rolledOut"] == false), "{report}");
        if run > 0 {
            figures.samples.push(ms(took));
        }
    }
    environment.clear();
    figures
}

/// How much memory an image of 2 GiB takes: half of it is its base, an archive of which
/// the nodes have nothing, half is a file of the project.
pub(crate) fn large(runs: usize, on: On) -> Figures {
    const HALF_BYTES: u64 = 1 << 30;
    let environment = environment(on);
    environment.up();
    let shop = Shop::copy(&environment, "bench-large");
    let sparse = |path: &Path| std::fs::File::create(path).unwrap().set_len(HALF_BYTES).unwrap();
    let scratch = environment.scratch("large");
    sparse(&scratch.join("data"));
    let files = vec![FileMapping { from: "data".into(), to: "/opt/base".into() }];
    let spec = ImageSpec { name: "large-base".into(), files, ..ImageSpec::default() };
    let base = image::assemble(&scratch.join("cache"), &spec, &image::Ingredients::of(&scratch)).unwrap();
    base.write_archive(&[], std::fs::File::create(shop.folder.join("base.tar")).unwrap()).unwrap();
    std::fs::create_dir_all(shop.folder.join("assets")).unwrap();
    sparse(&shop.folder.join("assets/data"));
    shop.edit("devloop.yaml", "base: scratch", "base: oci:base.tar");
    shop.edit("devloop.yaml", "      files:\n", "      files:\n        - from: assets\n          to: /srv/static/assets\n");
    let mut figures = Figures::default();
    for (name, way, peak) in [("import", ["--via", "node"], "importPeakMB"), ("push", ["--via", "api"], "pushPeakMB")] {
        let mut most: f64 = 0.0;
        for run in 0..runs {
            std::fs::write(shop.folder.join("assets/marker.txt"), format!("{name} {run}")).unwrap();
            let arguments = shop.context().into_iter().chain(shop.file()).chain(way.map(str::to_owned));
            let started = Instant::now();
            most = most.max(peak_megabytes(environment.plugin("kubectl-rebuild", arguments)));
            let took = ms(started.elapsed());
            figures.samples.push(took);
            figures.phase(name, took);
        }
        figures.more.insert(peak, most);
    }
    environment.clear();
    figures
}

/// Runs a program to its end; answers the most memory that it had, in megabytes.
fn peak_megabytes(program: Program) -> f64 {
    let mut running = program.start();
    let path = format!("/proc/{}/status", running.child.id());
    let mut kilobytes = 0.0;
    // The kernel keeps the peak: the last look before the end is near enough.
    while running.child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kilobytes = peak.unwrap_or(kilobytes);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(running.child.wait().unwrap().success(), "the program failed");
    kilobytes / 1024.0
}

fn rebuild(shop: &Shop) -> serde_json::Value {
    let arguments = shop.context().into_iter().chain(shop.file()).chain(["-o".to_owned(), "json".to_owned()]);
    serde_json::from_str(&shop.environment.plugin("kubectl-rebuild", arguments).run().ok()).unwrap()
}

/// The manifests under another name.
fn renamed(manifest: &str, name: &str) -> String {
    manifest
        .replace("name: shop\n", &format!("name: {name}\n"))
        .replace("name: shop-config\n", &format!("name: {name}-config\n"))
        .replace("image: shop\n", &format!("image: {name}\n"))
}

/// At a port of the nodes.
fn at_port(manifest: &str, port: u16) -> String {
    manifest
        .replace("type: ClusterIP", "type: NodePort")
        .replace("targetPort: http\n", &format!("targetPort: http\n      nodePort: {port}\n"))
}

/// Other bytes, and a text to know them by.
fn change(folder: &Path, text: &str) {
    std::fs::create_dir_all(folder).unwrap();
    random(&folder.join("data"), CHANGED_BYTES);
    std::fs::write(folder.join("marker.txt"), text).unwrap();
}

/// The example with much that stays and a folder that changes.
struct Ours {
    shop: Shop,
}

impl Ours {
    fn new(environment: &Environment) -> Self {
        let shop = Shop::copy(environment, "bench-rebuild");
        std::fs::create_dir_all(shop.folder.join("base")).unwrap();
        random(&shop.folder.join("base/data"), BASE_BYTES);
        let mappings =
            "      files:\n        - from: base\n          to: /opt/base\n        - from: assets\n          to: /srv/static/assets\n";
        shop.edit("devloop.yaml", "      files:\n", mappings);
        let manifest = std::fs::read_to_string(shop.folder.join("k8s/shop.yaml")).unwrap();
        std::fs::write(shop.folder.join("k8s/shop.yaml"), at_port(&manifest, PORT)).unwrap();
        Self { shop }
    }

    fn change(&self, text: &str) {
        change(&self.shop.folder.join("assets"), text);
    }

    fn rebuild(&self) -> serde_json::Value {
        rebuild(&self.shop)
    }
}

/// The same image by Docker and kind, in a workload of its own.
struct Peer {
    environment: Environment,
    context: PathBuf,
}

impl Peer {
    fn new(environment: &Environment, project: &Path) -> Self {
        let folder = environment.scratch("peer");
        let archive = folder.join("base.tar");
        Program::new("tar").args(["--create", "--file"]).args([&archive]).current_dir(project).args(["base"]).run().ok();
        docker(&["import", archive.to_str().unwrap(), PEER_BASE]);
        std::fs::remove_file(archive).unwrap();
        // The very binary that ours has, and the changing folder where it is.
        let find = Program::new("find")
            .args([&project.join("target")])
            .args(["-type", "f", "-perm", "-100", "-name", "shop", "-not", "-path", "*/deps/*"]);
        let found = find.run().ok();
        std::fs::copy(found.lines().next().unwrap(), folder.join("shop")).unwrap();
        let dockerfile = format!(
            "FROM {PEER_BASE}\nCOPY shop /app/shop\nCOPY static /srv/static\nCOPY assets /srv/static/assets\nUSER 65532:65532\nENTRYPOINT [\"/app/shop\"]\n"
        );
        std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
        Program::new("cp").args(["--recursive"]).args([&project.join("static"), &folder.join("static")]).run().ok();
        let peer = Self { environment: environment.clone(), context: folder };
        let manifest = std::fs::read_to_string(project.join("k8s/shop.yaml")).unwrap();
        let manifest = renamed(&manifest, "peer").replace(&format!("nodePort: {PORT}"), &format!("nodePort: {PEER_PORT}"));
        peer.change("first");
        peer.image("first");
        environment.apply_manifest(&manifest.replace("image: peer\n", &format!("image: {PEER}:first\n")));
        peer.environment.kubectl(["rollout", "status", "deployment/peer", "--timeout=180s"]).run().ok();
        peer
    }

    fn change(&self, text: &str) {
        change(&self.context.join("assets"), text);
    }

    fn image(&self, tag: &str) {
        let name = format!("{PEER}:{tag}");
        // The builder that every engine has.
        Program::new("docker").args(["build", "--quiet", "--tag", &name]).args([&self.context]).env("DOCKER_BUILDKIT", "0").run().ok();
        Program::new("kind").args(["load", "docker-image", &name, "--name", &self.environment.name]).run().ok();
    }

    fn build_and_load(&self, run: usize) {
        self.image(&format!("run{run}"));
        self.environment.kubectl(["set", "image", "deployment/peer", &format!("peer={PEER}:run{run}")]).run().ok();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let names = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", PEER]);
        let names: Vec<&str> = names.lines().chain([PEER_BASE]).collect();
        let _ = Program::new("docker").args(["image", "rm", "--force"]).args(names).run();
    }
}

fn docker(arguments: &[&str]) -> String {
    Program::new("docker").args(arguments).run().ok()
}
