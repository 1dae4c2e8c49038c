//! Images built upon others, wherever these are: the example in Node, on an image
//! of nothing but its runtime.

use crate::Case;
use crate::clusters::{current, shared};
use crate::delivery::registry;
use devloop_tests::example::copy_example;
use devloop_tests::program::{Program, Said};
use devloop_tests::{eventually, images};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("image_base::a_file_of_the_project", of_a_file),
        ("image_base::what_a_node_has_is_not_sent", of_the_cluster),
        ("image_base::a_registry", of_a_registry),
        ("image_base::another_platform_is_refused", of_another_platform),
    ]
}

/// Where there is a Docker engine.
pub(crate) fn docker_cases() -> Vec<Case> {
    vec![("image_base::the_docker_engine", of_docker)]
}

/// What a base of Node is larger than.
const BASE_BYTES: u64 = 10_000_000;

/// What the example's page has.
const PAGE: &str = "A page of node-web";

/// A copy of the example that is built upon a base.
struct App {
    folder: PathBuf,
    namespace: String,
}

impl App {
    fn new(name: &str, base: &str) -> Self {
        let folder = devloop_tests::repository().join("target/examples").join(format!("node-web-{name}"));
        copy_example("node-web", &folder);
        let namespace = format!("image-base-{name}");
        shared().apply_manifest(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"));
        let lock = r#"{"name": "web", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {"": {"name": "web", "version": "1.0.0"}}}"#;
        std::fs::write(folder.join("package-lock.json"), lock).unwrap();
        std::fs::write(folder.join("package.json"), r#"{"name": "web", "version": "1.0.0"}"#).unwrap();
        // What it needs is nothing, but a layer all the same.
        let npm = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join("npm").is_file());
        let build = if npm { "    build: { node: {} }\n" } else { "" };
        let project = format!(
            "apiVersion: devloop/v1\nservices:\n  - name: node-web\n{build}    image:\n      name: node-web\n      base: '{base}'\n      \
             cmd: [/app/src/server.js]\n      files: [{{ from: src, to: /app/src }}, {{ from: public, to: /app/public }}]\n      \
             labels: {{ example: node }}\n      ports: [8080]\n    deploy: {{ manifests: [k8s], target: deploy/node-web }}\n"
        );
        std::fs::write(folder.join("devloop.yaml"), project).unwrap();
        Self { folder, namespace }
    }

    fn run(&self, more: &[&str]) -> Said {
        let file = self.folder.join("devloop.yaml").display().to_string();
        let context = shared().context();
        let arguments = ["--file", &file, "--context", &context, "--namespace", &self.namespace];
        shared().plugin("kubectl-rebuild", arguments.iter().chain(more)).run()
    }

    /// Rebuilds; answers what is reported of the service.
    fn rebuild(&self, more: &[&str]) -> Value {
        let report: Value = serde_json::from_str(&self.run(&[&["-o", "json"][..], more].concat()).ok()).unwrap();
        report["services"][0].clone()
    }

    /// The page that the pods serve has this text.
    fn serves(&self, text: &str) {
        let path = format!("/api/v1/namespaces/{}/services/node-web:80/proxy/", self.namespace);
        eventually("the page is served", Duration::from_secs(60), || {
            let said = shared().kubectl(["get", "--raw", &path]).run();
            if said.stdout.contains(text) { Ok(()) } else { Err(format!("{}{}", said.stdout, said.stderr)) }
        });
    }

    /// Changes the page and rebuilds: only that is sent.
    fn changes(&self, more: &[&str]) {
        let text = format!("changed on {} in {}", current().name(), self.namespace);
        let page = self.folder.join("public/index.html");
        let before = std::fs::read_to_string(&page).unwrap();
        std::fs::write(&page, before.replacen("<h1>", &format!("<h1>{text} "), 1)).unwrap();
        let service = self.rebuild(more);
        assert!(service["sentBytes"].as_u64().unwrap() < 200_000, "{service}");
        self.serves(&text);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // The cluster may be gone already.
        let _ = shared().kubectl(["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]).run();
    }
}

/// The base, made once; with the name that it has in its archive.
fn base() -> (PathBuf, String) {
    static BASE: Mutex<Option<(PathBuf, String)>> = Mutex::new(None);
    let folder = devloop_tests::repository().join("devenv/examples/node-web");
    BASE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| images::base("node-web", &folder)).clone()
}

fn of_a_file() {
    let app = App::new("file", "oci:base.tar");
    std::fs::copy(base().0, app.folder.join("base.tar")).unwrap();
    let service = app.rebuild(&["--via", "node"]);
    assert!(service["image"].as_str().unwrap().starts_with("devloop.local/node-web:"), "{service}");
    app.serves(PAGE);
    app.changes(&["--via", "node"]);
    // The same again is nothing at all.
    assert_eq!(app.rebuild(&["--via", "node"])["sentBytes"], 0);
}

fn of_the_cluster() {
    let (archive, name) = base();
    shared().devenv(["load".as_ref(), archive.as_os_str()]).run().ok();
    let app = App::new("cluster", &format!("cluster:{name}"));
    let service = app.rebuild(&["--via", "node"]);
    let sent = service["sentBytes"].as_u64().unwrap();
    assert!(archive.metadata().unwrap().len() > BASE_BYTES && sent < BASE_BYTES / 10, "{service}");
    app.serves(PAGE);
    app.changes(&["--via", "node"]);
    let unknown = App::new("unknown", "cluster:devloop.local/nothing:1");
    let error = unknown.run(&["--via", "node"]).fails_with(1);
    assert!(error.contains("no node of the cluster has devloop.local/nothing:1"), "{error}");
}

fn of_a_registry() {
    let (archive, _) = base();
    let place = format!("{}/bases/node", registry(&shared()));
    let source = format!("oci-archive:{}", archive.display());
    let insecure = "--dest-tls-verify=false";
    Program::new("skopeo").args(["--insecure-policy", "copy", insecure, &source, &format!("docker://{place}:1")]).run().ok();
    let app = App::new("registry", &format!("{place}:1"));
    let to = format!("{}/apps", registry(&shared()));
    let service = app.rebuild(&["--push", &to]);
    app.serves(PAGE);
    app.changes(&["--push", &to]);
    let image = service["image"].as_str().unwrap().split('@').next().unwrap().to_owned();
    // A tool that knows nothing of devloop reads what it is.
    let inspected = Program::new("skopeo").args(["inspect", "--tls-verify=false", &format!("docker://{image}")]).run().ok();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], service["digest"], "{inspected}");
    assert_eq!(inspected["Labels"]["example"], "node", "{inspected}");
    let of_base = Program::new("skopeo").args(["inspect", "--tls-verify=false", &format!("docker://{place}:1")]).run().ok();
    let of_base: Value = serde_json::from_str(&of_base).unwrap();
    let (layers, below) = (inspected["Layers"].as_array().unwrap(), of_base["Layers"].as_array().unwrap());
    assert_eq!(&layers[..below.len()], &below[..], "the base's layers are untouched");
    let none = App::new("none", &format!("{place}:none"));
    let error = none.run(&["--push", &to]).fails_with(1);
    assert!(error.contains("has no such image"), "{error}");
}

fn of_docker() {
    let (archive, name) = base();
    let saved = shared().scratch("docker-base").join("base.tar");
    let (from, to) = (format!("oci-archive:{}", archive.display()), format!("docker-archive:{}:{name}", saved.display()));
    Program::new("skopeo").args(["--insecure-policy", "copy", &from, &to]).run().ok();
    Program::new("docker").args(["load", "--input"]).args([&saved]).run().ok();
    let app = App::new("docker", &format!("docker:{name}"));
    app.rebuild(&["--via", "node"]);
    app.serves(PAGE);
    app.changes(&["--via", "node"]);
    Program::new("docker").args(["image", "rm", &name]).run().ok();
}

fn of_another_platform() {
    let app = App::new("platform", "oci:base.tar");
    std::fs::copy(base().0, app.folder.join("base.tar")).unwrap();
    let project = app.folder.join("devloop.yaml");
    let text = std::fs::read_to_string(&project).unwrap();
    std::fs::write(&project, text.replace("    build: { node: {} }\n", "")).unwrap();
    let error = app.run(&["--platform", "linux/riscv64"]).fails_with(1);
    assert!(error.contains("oci:base.tar is for ") && error.contains("the image is to run on riscv64"), "{error}");
    let error = app.run(&["--platform", "linux/z80"]).fails_with(2);
    assert!(error.contains("no platform that can be built for"), "{error}");
    let deployments = shared().kubectl(["get", "deployments", "-n", &app.namespace, "-o", "name"]).run().ok();
    assert_eq!(deployments.trim(), "", "nothing is changed in the cluster");
}
