//! The command line as a user meets it, where no cluster is needed: help, and
//! requests that can't be carried out.

use std::path::Path;
use std::process::Command;

/// Runs the plugin in `folder` with nothing of this machine around it.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-rebuild"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", "/nonexistent")
        .output()
        .expect("the test set-up works");
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).replace(&folder.canonicalize().expect("the test set-up works").display().to_string(), "[FOLDER]")
    };
    format!("{}{}[{}]", text(&output.stdout), text(&output.stderr), output.status)
}

const PROJECT: &str = "apiVersion: devloop/v1
services:
  - name: shop
    build: { cargo: { package: shop, binary: shop } }
    image: { name: shop, base: scratch, binary: /app/shop }
    deploy: { manifests: [k8s], target: deploy/shop }
";

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: { name: shop }
spec: { template: { spec: { containers: [ { name: shop, image: shop } ] } } }
";

const KUBECONFIG: &str = "apiVersion: v1
kind: Config
current-context: elsewhere
contexts: [ { name: elsewhere, context: { cluster: elsewhere, user: me } } ]
clusters: [ { name: elsewhere, cluster: { server: 'https://127.0.0.1:1' } } ]
users: [ { name: me, user: { token: none } } ]
";

fn project(manifest: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("the test set-up works");
    std::fs::create_dir(folder.path().join("k8s")).expect("the test set-up works");
    std::fs::write(folder.path().join("devloop.yaml"), PROJECT).expect("the test set-up works");
    std::fs::write(folder.path().join("k8s/shop.yaml"), manifest).expect("the test set-up works");
    folder
}

#[test]
fn help_shows_what_it_can_do() {
    insta::assert_snapshot!(run(tempfile::tempdir().expect("the test set-up works").path(), &["--help"]));
    insta::assert_snapshot!(run(tempfile::tempdir().expect("the test set-up works").path(), &["image", "gc", "--help"]));
}

#[test]
fn a_project_is_needed() {
    insta::assert_snapshot!(run(tempfile::tempdir().expect("the test set-up works").path(), &[]), @r"
    Error: no devloop.yaml in [FOLDER] or a folder above it
    Hint: write a devloop.yaml in the project's root, or name one with -f FILE
    [exit status: 2]
    ");
}

#[test]
fn mistakes_in_a_request_are_told_apart() {
    let folder = project(DEPLOYMENT);
    insta::assert_snapshot!(run(folder.path(), &["web"]), @r#"
    Error: no service "web" in [FOLDER]/devloop.yaml
    Hint: services in it: shop
    [exit status: 2]
    "#);
    insta::assert_snapshot!(run(folder.path(), &["--timeout", "soon"]), @r#"
    Error: "soon" is not a duration for --timeout
    Hint: write a number and a unit, as in 90s, 2m or 1h30m
    [exit status: 2]
    "#);
    insta::assert_snapshot!(run(folder.path(), &["--push", "me/shop:dev"]), @r#"
    Error: --push "me/shop:dev" names no registry
    Hint: write HOST[:PORT][/PATH] for all images, or HOST[:PORT]/NAME:TAG for one, such as localhost:5001 or docker.io/me/shop:dev
    [exit status: 2]
    "#);
    insta::assert_snapshot!(run(folder.path(), &["image", "gc", "--older-than", "soon"]), @r#"
    Error: "soon" is not a duration for --older-than
    Hint: write a number and a unit, as in 90s, 2m or 1h30m
    [exit status: 2]
    "#);
    std::fs::write(folder.path().join("devloop.yaml"), PROJECT.replace("scratch", "debian")).unwrap();
    insta::assert_snapshot!(run(folder.path(), &[]), @r#"
    Error: [FOLDER]/devloop.yaml:5:32: services[0].image.base: base image "debian" can't be used: only scratch yet
    [exit status: 2]
    "#);
}

#[test]
fn manifests_are_checked_before_anything_is_built() {
    insta::assert_snapshot!(run(project("kind: [").path(), &[]), @r"
    Error: k8s/shop.yaml:2: did not find expected node content (document 1)
    [exit status: 1]
    ");
    insta::assert_snapshot!(run(project(&DEPLOYMENT.replace("image: shop", "image: web")).path(), &[]), @r#"
    Error: no container in the manifests of shop runs image "shop"
    Hint: write `image: shop` in the pod spec that is to run it
    [exit status: 1]
    "#);
    let folder = project(DEPLOYMENT);
    std::fs::remove_dir_all(folder.path().join("k8s")).unwrap();
    insta::assert_snapshot!(run(folder.path(), &[]), @r"
    Error: could not read k8s
    Caused by: No such file or directory (os error 2)
    [exit status: 1]
    ");
}

#[test]
fn a_cluster_that_does_not_answer_is_told_before_anything_is_built() {
    let folder = project(DEPLOYMENT);
    insta::assert_snapshot!(run(folder.path(), &[]), @r"
    Error: no kubeconfig context is chosen
    Hint: name one with --context, or bring up a cluster with `kubectl devenv up`
    [exit status: 1]
    ");
    std::fs::create_dir(folder.path().join(".kube")).unwrap();
    std::fs::write(folder.path().join(".kube/config"), KUBECONFIG).unwrap();
    insta::assert_snapshot!(run(folder.path(), &[]), @r#"
    Error: could not ask the cluster for its local registry
    Caused by: ServiceError: client error (Connect)
    Caused by: tcp connect error
    Caused by: Connection refused (os error 111)
    Hint: is the cluster running? see `kubectl cluster-info` and `kubectl devenv status`
    [exit status: 1]
    "#);
}
