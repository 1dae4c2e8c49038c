//! What `kubectl rebuild` does to a cluster, and takes back: differences, what is
//! left over, rollouts that fail, and saves.

use super::shop;
use crate::clusters::current;
use crate::{Case, shared};
use devloop_tests::program::{Program, Said};
use devloop_tests::shop::Shop;
use devloop_tests::{eventually, repository};
use nix::sys::signal::Signal;
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        ("rebuild::deploy::diff_shows_what_would_change_and_hides_secrets", diff),
        ("rebuild::deploy::prune_removes_what_was_applied_and_nothing_else", prune),
        ("rebuild::deploy::rollback_puts_back_what_ran_before", rollback),
        ("rebuild::deploy::causes_of_a_rollout_that_fails_are_told", causes),
        ("rebuild::deploy::kustomize_and_new_kinds_are_applied_in_order", kustomize),
        ("rebuild::deploy::watch_rolls_out_what_is_saved", watch),
    ]
}

/// What concerns nodes, of which it needs but one.
pub(super) fn node_cases() -> Vec<Case> {
    vec![("rebuild::deploy::taints_are_named_and_nodes_that_start_are_waited_for", taints)]
}

/// A copy of the example with a namespace of its own.
struct Copy {
    shop: Shop,
    namespace: String,
}

impl Copy {
    fn new(name: &str) -> Self {
        // What they have in common is compiled once.
        shop();
        let copy = Self { shop: Shop::copy(&shared(), &format!("deploy-{name}")), namespace: format!("deploy-{name}") };
        shared().kubectl(["create", "namespace", &copy.namespace]).run().ok();
        copy
    }

    fn program(&self, more: &[&str]) -> Program {
        let own = self.shop.context().into_iter().chain(self.shop.file()).chain(["-n".to_owned(), self.namespace.clone()]);
        let arguments = own.chain(["--via", shared().way()].into_iter().chain(more.iter().copied()).map(str::to_owned));
        shared().plugin("kubectl-rebuild", arguments).env("CARGO_TARGET_DIR", repository().join("target/shops/e2e/target"))
    }

    fn rebuild(&self, more: &[&str]) -> Said {
        self.program(more).run()
    }

    fn kubectl(&self, arguments: &[&str]) -> Said {
        shared().kubectl(["-n", &self.namespace].into_iter().chain(arguments.iter().copied())).run()
    }

    fn template(&self) -> String {
        self.kubectl(&["get", "deployment", "shop", "-o", "jsonpath={.spec}"]).ok()
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.shop.folder.join(path), text).unwrap();
    }

    fn ask(&self, path: &str) -> Result<String, String> {
        let said = shared().kubectl(["get", "--raw", &format!("/api/v1/namespaces/{}/services/shop:80/proxy{path}", self.namespace)]).run();
        if said.status.success() { Ok(said.stdout) } else { Err(said.stderr) }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        shared().kubectl(["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]).run();
    }
}

fn diff() {
    let copy = Copy::new("diff");
    let said = copy.rebuild(&["--diff"]);
    assert_eq!(said.status.code(), Some(1), "{}", said.stderr);
    assert!(said.stdout.contains("--- /dev/null") && copy.kubectl(&["get", "deployments"]).ok().is_empty(), "{}", said.stdout);
    copy.write("k8s/secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {password: first-secret}\n");
    copy.rebuild(&[]).ok();
    let said = copy.rebuild(&["--diff"]);
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(0), ""), "{}", said.stderr);

    copy.write("k8s/secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {password: second-secret}\n");
    copy.shop.edit("k8s/shop.yaml", "Free delivery this week", "Closed");
    let before = copy.kubectl(&["get", "configmaps,secrets,deployments", "-o", "jsonpath={.items[*].metadata.resourceVersion}"]).ok();
    let said = copy.rebuild(&["--diff"]);
    assert_eq!(said.status.code(), Some(1), "{}", said.stderr);
    assert!(said.stdout.lines().any(|line| line.starts_with('+') && line.contains("Closed")), "{}", said.stdout);
    assert!(said.stdout.contains("-  password: '*** (") && said.stdout.contains("+  password: '*** ("), "{}", said.stdout);
    for secret in ["second-secret", "c2Vjb25kLXNlY3JldA", "Zmlyc3Qtc2VjcmV0"] {
        assert!(!said.stdout.contains(secret), "{}", said.stdout);
    }
    assert!(!said.stdout.contains("managedFields"), "{}", said.stdout);
    let after = copy.kubectl(&["get", "configmaps,secrets,deployments", "-o", "jsonpath={.items[*].metadata.resourceVersion}"]).ok();
    assert_eq!(before, after);
    // A mistake is neither a difference nor none.
    copy.write("k8s/secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringDat: {}\n");
    let error = copy.rebuild(&["--diff"]).fails_with(2);
    assert!(error.contains("secret.yaml:1") && error.contains("stringDat"), "{error}");
}

fn prune() {
    let copy = Copy::new("prune");
    copy.write("k8s/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\n---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Mi}}}\n");
    copy.rebuild(&[]).ok();
    // Somebody else's, with our mark on it.
    let label = copy.kubectl(&["get", "configmap", "extra", "-o", r"jsonpath={.metadata.labels.applyset\.kubernetes\.io/part-of}"]).ok();
    assert!(label.starts_with("applyset-"), "{label}");
    copy.kubectl(&["create", "configmap", "theirs"]).ok();
    copy.kubectl(&["label", "configmap", "theirs", &format!("applyset.kubernetes.io/part-of={label}")]).ok();
    std::fs::remove_file(copy.shop.folder.join("k8s/extra.yaml")).unwrap();

    let names = || copy.kubectl(&["get", "configmap,persistentvolumeclaim,deployment", "-o", "name"]).ok();
    let said = copy.rebuild(&[]);
    assert!(
        said.status.success() && said.stderr.contains("configmap/extra") && said.stderr.contains("--prune removes it"),
        "{}",
        said.stderr
    );
    assert!(names().contains("configmap/extra"), "{}", names());
    let said = copy.rebuild(&["--prune", "--dry-run"]);
    assert!(said.status.success() && names().contains("configmap/extra"), "{}", said.stderr);

    let said = copy.rebuild(&["--prune", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&said.ok()).unwrap();
    assert_eq!(report["pruned"], serde_json::json!(["configmap/extra"]), "{report}");
    assert_eq!(report["leftovers"], serde_json::json!(["persistentvolumeclaim/data"]), "{report}");
    assert_eq!(report["services"][0]["rolledOut"], false, "{report}");
    let left = names();
    assert!(!left.contains("configmap/extra"), "{left}");
    for kept in ["configmap/theirs", "persistentvolumeclaim/data", "configmap/shop-config", "deployment.apps/shop"] {
        assert!(left.contains(kept), "{kept} is gone: {left}");
    }
}

fn rollback() {
    let copy = Copy::new("rollback");
    copy.rebuild(&[]).ok();
    let (template, sets) = (copy.template(), copy.kubectl(&["get", "replicasets", "-o", "name"]).ok());
    let config = copy.kubectl(&["get", "configmap", "shop-config", "-o", "jsonpath={.data}"]).ok();
    copy.shop.edit("devloop.yaml", "ports: [8080]", "ports: [8080]\n      env: { SHOP_LISTEN: nonsense }");
    copy.shop.edit("k8s/shop.yaml", "Free delivery this week", "Closed");
    copy.shop.edit("k8s/shop.yaml", "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 6\n      hostname: other");
    let error = copy.rebuild(&["--rollback", "--timeout", "60s"]).fails_with(1);
    assert!(error.contains("rolled back") && error.contains("deployment/shop") && error.contains("nonsense"), "{error}");
    assert!(!error.contains("rollout undo"), "{error}");
    assert_eq!(copy.template(), template);
    assert_eq!(copy.kubectl(&["get", "configmap", "shop-config", "-o", "jsonpath={.data}"]).ok(), config);
    copy.kubectl(&["rollout", "status", "deployment/shop", "--timeout=60s"]).ok();
    // The former ReplicaSet runs again; only the failed one came in addition.
    let now = copy
        .kubectl(&[
            "get",
            "replicasets",
            "-o",
            "jsonpath={range .items[?(@.spec.replicas>0)]}replicaset.apps/{.metadata.name}{\"\\n\"}{end}",
        ])
        .ok();
    assert_eq!(now, sets);
    assert!(copy.ask("/api/version").unwrap().contains(&copy.shop.greeting()));
    // Without the mistake it goes on from there.
    copy.shop.edit("devloop.yaml", "\n      env: { SHOP_LISTEN: nonsense }", "");
    copy.rebuild(&["--rollback"]).ok();
}

fn causes() {
    let copy = Copy::new("causes");
    copy.shop.edit("k8s/shop.yaml", "path: /readyz", "path: /nowhere");
    let error = copy.rebuild(&["--timeout", "12s"]).fails_with(1);
    assert!(error.contains("is not ready") && error.to_lowercase().contains("readiness probe failed"), "{error}");
    copy.kubectl(&["delete", "deployment", "shop"]).ok();
    copy.kubectl(&["create", "quota", "none", "--hard=pods=0"]).ok();
    let error = copy.rebuild(&["--timeout", "40s"]).fails_with(1);
    assert!(error.contains("exceeded quota: none") && error.contains("describe quota"), "{error}");
    copy.kubectl(&["delete", "quota", "none"]).ok();
    copy.shop.edit("k8s/shop.yaml", "cpu: 10m", "cpu: '900'");
    let error = copy.rebuild(&["--timeout", "40s"]).fails_with(1);
    assert!(error.contains("no node takes pod") && error.contains("Insufficient cpu"), "{error}");
}

/// A taint on all nodes, taken away when dropped.
struct Taint(&'static str);

impl Taint {
    fn put(taint: &'static str) -> Self {
        shared().kubectl(["taint", "nodes", "--all", taint]).run().ok();
        Self(taint)
    }
}

impl Drop for Taint {
    fn drop(&mut self) {
        shared().kubectl(["taint", "nodes", "--all", &format!("{}-", self.0)]).run();
    }
}

fn taints() {
    let copy = Copy::new("taints");
    copy.rebuild(&[]).ok();
    let theirs = Taint::put("example.com/dedicated=gpu:NoSchedule");
    copy.shop.edit("k8s/shop.yaml", "cpu: 10m", "cpu: 11m");
    let error = copy.rebuild(&["--timeout", "90s"]).fails_with(1);
    assert!(error.contains("has example.com/dedicated=gpu:NoSchedule"), "{error}");
    drop(theirs);
    let starts = Taint::put("node.cloudprovider.kubernetes.io/uninitialized=true:NoSchedule");
    copy.shop.edit("k8s/shop.yaml", "cpu: 11m", "cpu: 12m");
    let program = copy.program(&["--timeout", "90s"]);
    let rebuilding = std::thread::spawn(move || program.run());
    // For longer than what does not pass is waited for.
    std::thread::sleep(Duration::from_secs(14));
    assert!(!rebuilding.is_finished());
    drop(starts);
    rebuilding.join().unwrap().ok();
}

const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.NAMESPACE.example.com}
spec:
  group: NAMESPACE.example.com
  scope: Namespaced
  names: {kind: Fleet, plural: fleets, singular: fleet}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {image: {type: string}}}}}}
";

fn kustomize() {
    let copy = Copy::new("kustomize");
    let folder = copy.shop.folder.join("k8s/dev");
    std::fs::create_dir_all(&folder).unwrap();
    let definition = DEFINITION.replace("NAMESPACE", &copy.namespace);
    copy.write("k8s/dev/definition.yaml", &definition);
    copy.write(
        "k8s/dev/fleet.yaml",
        &format!("apiVersion: {}.example.com/v1\nkind: Fleet\nmetadata: {{name: one}}\nspec: {{image: shop}}\n", copy.namespace),
    );
    std::fs::copy(copy.shop.folder.join("k8s/shop.yaml"), folder.join("shop.yaml")).unwrap();
    copy.write("k8s/dev/kustomization.yaml", "nameSuffix: -dev\nresources: [fleet.yaml, definition.yaml, shop.yaml]\n");
    let fields = "manifests: [k8s/dev]\n      images: [{ kind: Fleet, path: spec.image }]";
    copy.shop.edit("devloop.yaml", "manifests: [k8s]", fields);
    copy.shop.edit("devloop.yaml", "deploy/shop", "deploy/shop-dev");
    let report: serde_json::Value = serde_json::from_str(&copy.rebuild(&["-o", "json"]).ok()).unwrap();
    let image = report["services"][0]["image"].as_str().unwrap();
    let fleet = copy.kubectl(&["get", &format!("fleets.{}.example.com", copy.namespace), "one-dev", "-o", "jsonpath={.spec.image}"]).ok();
    assert_eq!(fleet, image);
    let deployed = copy.kubectl(&["get", "deployment", "shop-dev", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]).ok();
    assert_eq!(deployed, image);
    shared().kubectl(["delete", "crd", &format!("fleets.{}.example.com", copy.namespace), "--wait=false"]).run().ok();
    copy.write("k8s/dev/kustomization.yaml", "resources: [gone.yaml]\n");
    let error = copy.rebuild(&[]).fails_with(1);
    assert!(error.contains("kustomize can't make the manifests") && error.contains("gone.yaml"), "{error}");
}

fn watch() {
    let copy = Copy::new("watch");
    let mut session = copy.program(&["--watch"]).start();
    let served = |greeting: &str| {
        eventually(&format!("{greeting} is served"), Duration::from_secs(180), || {
            let answer = copy.ask("/api/version")?;
            if answer.contains(greeting) { Ok(()) } else { Err(answer) }
        });
    };
    served(&copy.shop.greeting());
    copy.shop.edit("src/greeting.rs", "pub(crate) const", "pub(crate) konst");
    std::thread::sleep(Duration::from_secs(2));
    copy.shop.edit("src/greeting.rs", "pub(crate) konst", "pub(crate) const");
    let greeting = format!("watched on {}", current().name());
    copy.shop.greet(&greeting);
    served(&greeting);
    let image = copy.kubectl(&["get", "deployment", "shop", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]).ok();
    session.signal(Signal::SIGINT);
    let status = session.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(copy.kubectl(&["get", "deployment", "shop", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]).ok(), image);
    assert!(copy.ask("/api/version").unwrap().contains(&greeting));
}
