//! `kubectl rebuild` on the example service.

mod deploy;
pub(crate) mod examples;

use crate::clusters::{Cluster, current};
use crate::{Case, shared};
use devloop_tests::program::Program;
use devloop_tests::shop::Shop;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

pub(crate) fn node_cases() -> Vec<Case> {
    deploy::node_cases()
}

pub(crate) fn cases() -> Vec<Case> {
    [basics(), deploy::cases()].concat()
}

/// What the number of nodes may make a difference to.
pub(crate) fn basics() -> Vec<Case> {
    vec![
        ("rebuild::builds_delivers_and_rolls_out", builds),
        ("rebuild::equal_digest_means_no_rollout", unchanged),
        ("rebuild::two_at_once_end_well", two_at_once),
        ("rebuild::code_that_does_not_compile_changes_nothing", does_not_compile),
        ("rebuild::unreadable_manifest_changes_nothing", bad_manifest),
        ("rebuild::image_that_does_not_exist_is_the_cause", no_such_image),
        ("rebuild::crash_is_reported_with_its_last_lines", crash),
        ("rebuild::bad_requests_are_errors", bad_requests),
    ]
}

/// The example on the shared environment, deployed once on each cluster.
pub(crate) fn shop() -> Shop {
    static SHOPS: Mutex<BTreeMap<Cluster, Shop>> = Mutex::new(BTreeMap::new());
    let deploy = || {
        let shop = Shop::copy(&shared(), "e2e");
        shop.rebuild();
        shop
    };
    SHOPS.lock().unwrap_or_else(PoisonError::into_inner).entry(current()).or_insert_with(deploy).clone()
}

/// Asks the Service, through the API.
pub(crate) fn get(path: &str) -> Program {
    shared().kubectl(["get", "--raw", &format!("/api/v1/namespaces/default/services/shop:80/proxy{path}")])
}

pub(crate) fn ask(path: &str) -> String {
    get(path).run().ok()
}

fn generation() -> String {
    shared()
        .kubectl(["get", "deployment", "shop", "-o", "jsonpath={.metadata.generation} {.spec.template.spec.containers[0].image}"])
        .run()
        .ok()
}

fn builds() {
    shop();
    assert!(ask("/api/version").contains(&shop().greeting()));
    let image = generation();
    // Through the API, it is the cluster's registry that has it.
    let place = if current() == Cluster::Api { "localhost:" } else { "devloop.local/" };
    assert!(image.contains(place) && image.contains("/shop:"), "{image}");
    // One that no cluster has seen, since some share a registry.
    shop().greet(&format!("hello again on {}", current().name()));
    let report = shop().rebuild();
    assert_ne!(generation(), image);
    let service = &report["services"][0];
    assert!(generation().ends_with(service["image"].as_str().unwrap()), "{report}");
    // Only the layer of the binary is sent: a fraction of the whole.
    assert!(service["sentBytes"].as_u64().unwrap() > 0, "{report}");
    let (pod, _) = shop().pod();
    assert!(ask("/api/version").contains("hello again on"), "{pod}");
    let managers = shared()
        .kubectl(["get", "deployment", "shop", "--show-managed-fields", "-o", "jsonpath={.metadata.managedFields[*].manager}"])
        .run()
        .ok();
    assert!(managers.contains("devloop"), "{managers}");
}

fn unchanged() {
    let (pod, _) = shop().pod();
    let before = generation();
    let report = shop().rebuild();
    assert_eq!(report["services"][0]["sentBytes"], 0, "{report}");
    assert_eq!(generation(), before);
    assert_eq!(shop().pod().0, pod);
}

fn rebuild(more: &[&str]) -> devloop_tests::program::Said {
    let more = ["--via", shared().way()].into_iter().chain(more.iter().copied()).map(str::to_owned);
    let arguments = shop().context().into_iter().chain(shop().file()).chain(more);
    shared().plugin("kubectl-rebuild", arguments).run()
}

fn two_at_once() {
    shop().greet(&format!("built twice on {}", current().name()));
    let digests: Vec<String> = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| shop().rebuild()["services"][0]["digest"].as_str().unwrap().to_owned()));
        both.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(digests[0], digests[1]);
    assert!(ask("/api/version").contains("built twice on"));
    assert_eq!(shop().rebuild()["services"][0]["rolledOut"], false);
}

fn does_not_compile() {
    let before = generation();
    shop().edit("src/greeting.rs", "pub(crate) const", "pub(crate) konst");
    let error = rebuild(&[]).fails_with(1);
    shop().edit("src/greeting.rs", "pub(crate) konst", "pub(crate) const");
    assert_eq!(error.matches("error: expected one of").count(), 1, "the compiler's message is shown once:\n{error}");
    assert_eq!(generation(), before);
    assert!(ask("/api/version").contains(&shop().greeting()));
}

fn bad_manifest() {
    let before = generation();
    let path = shop().folder.join("k8s/broken.yaml");
    std::fs::write(&path, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [\n").unwrap();
    let error = rebuild(&[]).fails_with(1);
    std::fs::remove_file(&path).unwrap();
    assert!(error.contains("broken.yaml"), "{error}");
    assert_eq!(generation(), before);
}

/// A copy of the manifests with one change, deployed under another name.
fn variant(name: &str, change: impl Fn(&str) -> String) -> devloop_tests::program::Said {
    let copy = Shop::copy(&shared(), name);
    for file in ["k8s/shop.yaml", "devloop.yaml"] {
        let path = copy.folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change(&text)).unwrap();
    }
    let namespace = format!("variant-{name}");
    shared().kubectl(["create", "namespace", &namespace]).run().ok();
    let arguments =
        copy.context().into_iter().chain(copy.file()).chain(["-n".to_owned(), namespace.clone(), "--timeout".to_owned(), "60s".to_owned()]);
    let said = shared().plugin("kubectl-rebuild", arguments).run();
    shared().kubectl(["delete", "namespace", &namespace, "--wait=false"]).run().ok();
    said
}

fn no_such_image() {
    let sidecar = "      containers:\n        - {name: side, image: 'devloop.local/nobody:made'}\n";
    let error = variant("image", |text| text.replace("      containers:\n", sidecar)).fails_with(1);
    assert!(error.contains("devloop.local/nobody:made") && error.contains("side"), "{error}");
    // A project whose manifests don't use its image is told so before anything
    // is applied.
    let error = variant("unused", |text| text.replace("image: shop\n", "image: other\n")).fails_with(1);
    assert!(error.contains("image \"shop\""), "{error}");
}

fn crash() {
    let error = variant("crash", |text| {
        text.replace("entrypoint: [\"/app/shop\"]", "entrypoint: [\"/app/shop\"]\n      env: {SHOP_LISTEN: nonsense}")
    })
    .fails_with(1);
    assert!(error.contains("nonsense") && error.contains("exit"), "the crash's last line is missing:\n{error}");
}

fn bad_requests() {
    let error = rebuild(&["nobody"]).fails_with(2);
    assert!(error.contains("nobody") && error.contains("shop"), "{error}");
    let missing = shared().plugin("kubectl-rebuild", ["--file", "/nowhere/devloop.yaml"]).run().fails_with(2);
    assert!(missing.contains("/nowhere/devloop.yaml"), "{missing}");
}
