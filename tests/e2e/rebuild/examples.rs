//! `kubectl rebuild` of an example of each language, straight to the nodes and through
//! the registry. What comes of it is looked at by tools that know nothing of devloop.

use crate::clusters::current;
use crate::delivery::{on_kind_node, registry};
use crate::{Case, shared};
use devloop_core::image::local_architecture;
use devloop_tests::example::Example;
use devloop_tests::program::{Program, Said};
use devloop_tests::{eventually, images};
use serde_json::Value;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("rebuild::examples::go", go),
        ("rebuild::examples::node", node),
        ("rebuild::examples::python", python),
        ("rebuild::examples::two_images_of_a_rust_workspace", workspace),
        ("rebuild::examples::an_index_of_two_platforms", platforms),
    ]
}

/// A copy of an example in a namespace of its own.
struct App(Example);

impl App {
    fn new(name: &str, namespace: &str) -> Self {
        let example = Example::copy(&shared(), name, &format!("rebuild-{namespace}"));
        shared().apply_manifest(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n", example.namespace));
        Self(example)
    }

    /// Built upon this machine's own runtime: no registry is reached.
    fn upon_own_base(self, base: &str, entrypoint: &str, program: &str) -> Self {
        let (archive, _) = images::base(&self.0.name, &self.0.folder);
        std::fs::copy(archive, self.0.folder.join("base.tar")).unwrap();
        self.0.edit("devloop.yaml", base, "oci:base.tar");
        self.0.edit("devloop.yaml", entrypoint, &format!("cmd: [{program}]"));
        self
    }

    fn run(&self, more: &[&str]) -> Said {
        let arguments = self.0.arguments().into_iter().chain(more.iter().map(|word| (*word).to_owned()));
        shared().plugin("kubectl-rebuild", arguments).run()
    }

    /// Rebuilds; answers what is reported of the services.
    fn rebuild(&self, more: &[&str]) -> Vec<Value> {
        let report: Value = serde_json::from_str(&self.run(&[&["-o", "json"][..], more].concat()).ok()).unwrap();
        report["services"].as_array().unwrap().clone()
    }

    /// What a service answers has this text.
    fn serves(&self, service: &str, path: &str, text: &str) {
        let path = format!("/api/v1/namespaces/{}/services/{service}:80/proxy{path}", self.0.namespace);
        eventually(&format!("{service} answers {text:?}"), Duration::from_secs(60), || {
            let said = shared().kubectl(["get", "--raw", &path]).run();
            if said.stdout.contains(text) { Ok(()) } else { Err(format!("{}{}", said.stdout, said.stderr)) }
        });
    }

    /// What the kubelet says that a service's pods run.
    fn image_id(&self, service: &str) -> String {
        let label = format!("app.kubernetes.io/name={service}");
        let path = "jsonpath={.items[?(@.status.phase==\"Running\")].status.containerStatuses[0].imageID}";
        self.0.kubectl(&["get", "pods", "-l", &label, "-o", path]).run().ok()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// Where the test's images are pushed to.
fn place() -> String {
    format!("{}/examples/{}", registry(&shared()), current().name())
}

/// Asks skopeo about an image in the registry: `words` are what goes before its name.
fn skopeo(service: &Value, words: &[&str]) -> Value {
    let (name, digest) = service["image"].as_str().unwrap().split_once('@').unwrap();
    // It takes a tag or a digest.
    let image = format!("docker://{}@{digest}", &name[..name.rfind(':').unwrap()]);
    let said = Program::new("skopeo").args(words.iter().chain(&["--tls-verify=false", &image])).run().ok();
    serde_json::from_str(&said).unwrap()
}

/// The same image on the nodes and in the registry: what it is made of, what runs,
/// and what changes with the code.
fn both_ways(app: &App, services: &[&str], code: &str, greeting: &str) {
    let first = app.rebuild(&["--via", "node"]);
    for (service, report) in services.iter().zip(&first) {
        app.serves(service, "/version", &format!("hello from {service}"));
        if let Some(names) = on_kind_node() {
            assert!(names.contains(&report["image"].as_str().unwrap().to_owned()), "{names:?}");
        }
    }
    let ids: Vec<String> = services.iter().map(|service| app.image_id(service)).collect();
    let pushed = app.rebuild(&["--push", &place()]);
    for ((service, before), id) in pushed.iter().zip(&first).zip(&ids) {
        assert_eq!(service["digest"], before["digest"], "the same image, whichever way it goes");
        let manifest = skopeo(service, &["inspect", "--raw"]);
        let config = manifest["config"]["digest"].as_str().unwrap();
        assert!(id.contains(config) || id.contains(service["digest"].as_str().unwrap()), "{id} {manifest}");
        let image = skopeo(service, &["inspect"]);
        assert_eq!((&image["Digest"], &image["Os"]), (&service["digest"], &Value::from("linux")), "{image}");
        assert_eq!(image["Architecture"], local_architecture(), "{image}");
    }
    // Nothing to do is nothing done, and a change is about whoever has the code.
    assert!(app.rebuild(&["--push", &place()]).iter().all(|service| service["rolledOut"] == false && service["sentBytes"] == 0));
    let changed = format!("{greeting} once more on {}", current().name());
    app.0.edit(code, greeting, &changed);
    let again = app.rebuild(&["--push", &place()]);
    app.serves(services[0], "/version", &changed);
    assert_ne!(again[0]["digest"], first[0]["digest"]);
    assert!(again[1..].iter().all(|service| service["rolledOut"] == false), "{again:?}");
}

fn go() {
    let app = App::new("go-web", "go");
    both_ways(&app, &["go-web"], "cmd/web/greeting.go", "hello from go-web");
    app.serves("go-web", "/", "A page of go-web");
}

fn node() {
    let app = App::new("node-web", "node").upon_own_base("node:22-slim", "entrypoint: [node, /app/src/server.js]", "/app/src/server.js");
    both_ways(&app, &["node-web"], "src/greeting.js", "hello from node-web");
    app.serves("node-web", "/", "A page of node-web");
}

fn python() {
    let app =
        App::new("python-web", "python").upon_own_base("python:3.13-slim", "entrypoint: [python3, /app/src/app.py]", "/app/src/app.py");
    both_ways(&app, &["python-web"], "src/greeting.py", "hello from python-web");
    app.serves("python-web", "/", "A page of python-web");
}

fn workspace() {
    let app = App::new("market", "market");
    both_ways(&app, &["orders", "stock"], "orders/src/greeting.rs", "hello from orders");
    app.serves("orders", "/", "A page of orders");
    // What both are made of is about both, as git tells it.
    app.0.write(".gitignore", "target\n");
    let git = |arguments: &[&str]| Program::new("git").args(["-c", "user.name=a", "-c", "user.email=a@b.c"]).args(arguments);
    for arguments in [&["init", "--quiet"][..], &["add", "."], &["commit", "--quiet", "--message", "all"]] {
        git(arguments).current_dir(&app.0.folder).run().ok();
    }
    let affected = || app.run(&["affected", "--since", "HEAD"]).ok();
    assert_eq!(affected(), "");
    app.0.edit("stock/src/main.rs", "3 apples", "4 apples");
    assert_eq!(affected(), "stock\n");
    app.0.edit("common/src/lib.rs", "\"the market\"", "\"our market\"");
    assert_eq!(affected(), "orders\nstock\n");
    devloop_core::files::remove_all(&app.0.folder.join(".git")).unwrap();
    let rebuilt = app.rebuild(&["--push", &place()]);
    assert!(rebuilt.iter().all(|service| service["rolledOut"] == true), "{rebuilt:?}");
    app.serves("stock", "/", "stock of our market: 4 apples");
}

fn platforms() {
    let app = App::new("go-web", "platforms");
    let (own, other) = (local_architecture(), if local_architecture() == "arm64" { "amd64" } else { "arm64" });
    let both = format!("linux/{other},linux/{own}");
    let pushed = app.rebuild(&["--platform", &both, "--push", &place()]).remove(0);
    assert_eq!(pushed["platforms"], serde_json::json!([format!("linux/{other}"), format!("linux/{own}")]), "{pushed}");
    app.serves("go-web", "/version", "hello from go-web");
    let index = skopeo(&pushed, &["inspect", "--raw"]);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json", "{index}");
    let named: Vec<&str> =
        index["manifests"].as_array().unwrap().iter().map(|part| part["platform"]["architecture"].as_str().unwrap()).collect();
    assert_eq!(named, [other, own]);
    for architecture in [own, other] {
        let image = skopeo(&pushed, &["--override-arch", architecture, "inspect"]);
        assert_eq!(image["Architecture"], architecture, "{image}");
    }
    let again = app.rebuild(&["--platform", &both, "--push", &place()]).remove(0);
    assert_eq!((&again["digest"], &again["sentBytes"], &again["rolledOut"]), (&pushed["digest"], &Value::from(0), &Value::from(false)));
    // A node gets what it can run, under the index's name.
    app.rebuild(&["--platform", &both, "--via", "node"]);
    app.serves("go-web", "/version", "hello from go-web");
    // What it can't is told, and nothing is changed.
    let error = app.run(&["--platform", &format!("linux/{other}"), "--via", "node"]).fails_with(1);
    assert!(error.contains(&format!("is for {other}, the node is {own}")), "{error}");
    app.serves("go-web", "/version", "hello from go-web");
}
