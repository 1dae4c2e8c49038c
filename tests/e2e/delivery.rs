//! Where `kubectl rebuild` brings images, and what becomes of them there.

use crate::Case;
use crate::clusters::{current, shared};
use crate::rebuild::shop;
use devloop_tests::docker;
use devloop_tests::environment::{Engine, Environment};
use devloop_tests::program::{Program, Said};
use devloop_tests::shop::Shop;
use serde_json::Value;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("delivery::the_way_is_chosen_and_said", chosen),
        ("delivery::pushed_image_runs_by_its_digest", pushed),
        ("delivery::only_what_nothing_uses_is_removed", collected),
        ("delivery::bad_requests_are_errors", bad_requests),
    ]
}

/// Where nodes can't be reached.
pub(crate) fn api_cases() -> Vec<Case> {
    vec![("delivery::pushed_image_runs_by_its_digest", pushed), ("delivery::registries_are_left_alone", left_alone)]
}

fn run(shop: &Shop, more: &[&str]) -> Said {
    let arguments = shop.context().into_iter().chain(shop.file()).chain(more.iter().map(|word| (*word).to_owned()));
    shop.environment.plugin("kubectl-rebuild", arguments).run()
}

fn image(more: &[&str]) -> Vec<Value> {
    let context = shared().context();
    let arguments = ["image"].iter().chain(more).copied().chain(["-o", "json", "--context", &context]);
    serde_json::from_str(&shared().plugin("kubectl-rebuild", arguments).run().ok()).unwrap()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("{row}"))
}

fn deployed(namespace: &str) -> String {
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    shared().kubectl(["get", "deployment", "shop", "-n", namespace, "-o", path]).run().ok()
}

/// The registry's `HOST:PORT`, as any tool finds it (KEP-1755).
pub(crate) fn registry(environment: &Environment) -> String {
    let path = r"jsonpath={.data.localRegistryHosting\.v1}";
    let hosting = environment.kubectl(["get", "configmap", "local-registry-hosting", "-n", "kube-public", "-o", path]).run().ok();
    let hosting: Value = serde_yaml_ng::from_str(&hosting).unwrap();
    hosting["host"].as_str().unwrap_or_else(|| panic!("{hosting}")).to_owned()
}

fn chosen() {
    shop().greet(&format!("chosen on {}", current().name()));
    let said = run(&shop(), &["-v"]);
    assert!(said.status.success(), "{}", said.stderr);
    assert!(said.stderr.contains("what a way would cost"), "{}", said.stderr);
    // Which one it is depends on how fast this machine is at either.
    let line = said.stderr.lines().find(|line| line.starts_with("images go ")).unwrap_or_else(|| panic!("{}", said.stderr));
    assert!(line.contains("by import into ") && line.contains("through registry localhost:"), "{line}");
    let by_import = line.starts_with("images go by import");
    assert_eq!(deployed("default").starts_with("devloop.local/"), by_import, "{line}");
}

/// In a namespace of its own, so that the shared deployment stays as it is.
fn pushed() {
    let registry = registry(&shared());
    let namespace = "delivery-pushed";
    shared().kubectl(["create", "namespace", namespace]).run().ok();
    let copy = Shop::copy(&shared(), "pushed");
    let place = format!("{registry}/team/{}", current().name());
    let said = run(&copy, &["--push", &place, "-n", namespace, "-o", "json"]);
    let report: Value = serde_json::from_str(&said.ok()).unwrap();
    let (name, digest) = (text(&report["services"][0], "image"), text(&report["services"][0], "digest"));
    assert!(name.starts_with(&format!("{place}/shop:")) && name.ends_with(&format!("@{digest}")), "{name}");
    assert_eq!(deployed(namespace), name);
    // The registry has it under its tag, asked with a stock tool.
    let tag = name.split('@').next().unwrap().rsplit(':').next().unwrap();
    let url = format!("http://{place}/shop/manifests/{tag}").replace(&registry, &format!("{registry}/v2"));
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let head = Program::new("curl").args(["--silent", "--fail", "--head", "--header", accept, &url]).run().ok();
    assert!(head.to_lowercase().contains(&format!("docker-content-digest: {digest}")), "{head}");
    let again: Value = serde_json::from_str(&run(&copy, &["--push", &place, "-n", namespace, "-o", "json"]).ok()).unwrap();
    assert_eq!((&again["services"][0]["sentBytes"], &again["services"][0]["rolledOut"]), (&Value::from(0), &Value::from(false)), "{again}");
    let rows = image(&["ls"]);
    let row = rows
        .iter()
        .find(|row| text(row, "digest") == digest && text(row, "place").starts_with("registry "))
        .unwrap_or_else(|| panic!("{rows:?}"));
    assert!(row["usedBy"].as_array().unwrap().iter().any(|user| user.as_str().unwrap().starts_with("pod/delivery-pushed/")), "{row}");
    // A whole name, with a tag of one's own.
    let one = format!("{registry}/other/web:dev");
    let report: Value = serde_json::from_str(&run(&copy, &["--registry", &one, "-n", namespace, "-o", "json"]).ok()).unwrap();
    assert_eq!(text(&report["services"][0], "image"), format!("{one}@{digest}"));
    shared().kubectl(["delete", "namespace", namespace, "--wait=false"]).run().ok();
}

/// What the node has, asked with a stock tool where one is at hand.
pub(crate) fn on_kind_node() -> Option<Vec<String>> {
    let Engine::Kind { .. } = shared().engine else { return None };
    let node = format!("{}-control-plane", shared().name);
    let names = docker::docker(["exec", &node, "ctr", "--namespace", "k8s.io", "images", "ls", "-q"]).run().ok();
    Some(names.lines().map(str::to_owned).collect())
}

fn collected() {
    let kept: Vec<String> = on_kind_node()
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !name.contains("devloop.local/") && !name.starts_with("sha256:"))
        // Deliveries of the other tests by way of the registry, which nothing may use any more.
        .filter(|name| {
            !["localhost:5001/team/", "localhost:5001/other/", "localhost:5001/examples/"].iter().any(|place| name.starts_with(place))
        })
        .collect();
    // One that is replaced, and whose ReplicaSet goes.
    shop().greet(&format!("to be removed on {}", current().name()));
    shop().rebuild();
    let old = deployed("default");
    shop().greet(&format!("stays on {}", current().name()));
    shop().rebuild();
    let new = deployed("default");
    let on_nodes = |rows: &[Value], name: &str| -> Vec<Value> {
        rows.iter().filter(|row| text(row, "image") == name && !text(row, "place").starts_with("registry ")).cloned().collect()
    };
    let rows = image(&["ls"]);
    let row = on_nodes(&rows, &new)[0].clone();
    assert!(row["bytes"].as_u64().unwrap() > 100_000 && row["ageSeconds"].as_u64().unwrap() < 600, "{row}");
    assert!(row["usedBy"].as_array().unwrap().iter().any(|user| user.as_str().unwrap().starts_with("pod/default/shop-")), "{row}");
    // A ReplicaSet is there to roll back to.
    let fate = |rows: &[Value], name: &str| text(&on_nodes(rows, name)[0], "fate").to_owned();
    assert_eq!(fate(&image(&["gc", "--older-than", "1ms"]), &old), "inUse");
    let sets = shared()
        .kubectl([
            "get",
            "replicasets",
            "-l",
            "app.kubernetes.io/name=shop",
            "-o",
            "jsonpath={range .items[?(@.spec.replicas==0)]}{.metadata.name} {end}",
        ])
        .run()
        .ok();
    shared().kubectl(["delete", "replicaset"].into_iter().chain(sets.split_whitespace())).run().ok();
    // Its pods end within the grace period.
    devloop_tests::eventually("nothing uses the old image", std::time::Duration::from_secs(60), || {
        let rows = image(&["gc", "--older-than", "1ms", "--dry-run"]);
        if fate(&rows, &old) == "remove" { Ok(()) } else { Err(format!("{:?}", on_nodes(&rows, &old))) }
    });
    assert_eq!(fate(&image(&["gc"]), &old), "tooYoung", "what came just now stays by default");
    assert_eq!(on_nodes(&image(&["ls"]), &old).len(), 1, "nothing was removed yet");
    let rows = image(&["gc", "--older-than", "1ms"]);
    assert_eq!((fate(&rows, &old), fate(&rows, &new)), ("remove".to_owned(), "inUse".to_owned()));
    // What the node itself lives on is no rebuild's.
    assert!(
        rows.iter()
            .filter(|row| text(row, "image").starts_with("devloop.local/") && !text(row, "image").contains("/shop:"))
            .all(|row| text(row, "fate") != "remove"),
        "{rows:?}"
    );
    let rows = image(&["ls"]);
    assert!(on_nodes(&rows, &old).is_empty() && on_nodes(&rows, &new).len() == 1, "{rows:?}");
    if let Some(names) = on_kind_node() {
        assert!(names.contains(&new) && !names.contains(&old), "{names:?}");
        assert!(kept.iter().all(|name| names.contains(name)), "{kept:?} {names:?}");
    }
    // It still runs, and the old one comes back when its sources do.
    assert!(crate::rebuild::ask("/api/version").contains("stays on"));
    shop().greet(&format!("to be removed on {}", current().name()));
    let report = shop().rebuild();
    assert_eq!(text(&report["services"][0], "image"), old);
    assert!(crate::rebuild::ask("/api/version").contains("to be removed on"));
}

fn left_alone() {
    shop();
    let rows = image(&["gc", "--older-than", "1ms"]);
    assert!(!rows.is_empty() && rows.iter().all(|row| text(row, "place").starts_with("registry ")), "{rows:?}");
    assert!(rows.iter().all(|row| matches!(text(row, "fate"), "inUse" | "inRegistry")), "{rows:?}");
}

fn bad_requests() {
    let error = run(&shop(), &["--push", "nowhere"]).fails_with(2);
    assert!(error.contains("--push \"nowhere\" names no registry"), "{error}");
    let before = deployed("default");
    let error = run(&shop(), &["--push", "localhost:1/x"]).fails_with(1);
    assert!(error.contains("localhost:1") && error.contains("Hint:"), "{error}");
    assert_eq!(deployed("default"), before);
    let error = shared().plugin("kubectl-rebuild", ["image", "gc", "--older-than", "soon"]).run().fails_with(2);
    assert!(error.contains("--older-than"), "{error}");
}
