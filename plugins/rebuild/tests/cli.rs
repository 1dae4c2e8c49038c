//! The command line as a user meets it, where no cluster is needed: help, and
//! requests that can't be carried out.

use std::path::Path;
use std::process::Command;

/// Runs the plugin in `folder` with nothing of this machine around it.
fn run(folder: &Path, arguments: &[&str]) -> String {
    run_with(folder, arguments, |command| command.env_clear().env("HOME", folder).env("PATH", "/nonexistent"))
}

/// Runs it with the tools of this machine, but no cluster.
fn run_with_tools(folder: &Path, arguments: &[&str]) -> String {
    run_with(folder, arguments, |command| command.env("KUBECONFIG", "/nonexistent"))
}

fn run_with(folder: &Path, arguments: &[&str], prepare: impl FnOnce(&mut Command) -> &mut Command) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-rebuild"));
    let output = prepare(command.args(arguments).current_dir(folder)).output().expect("the test set-up works");
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
    Hint: nothing could be worked out instead: there are no manifests in k8s/, deploy/ or manifests/
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
    insta::assert_snapshot!(run(folder.path(), &["affected", "--since", "HEAD"]), @r"
    Error: could not run git
    Caused by: No such file or directory (os error 2)
    Hint: install git, or put it on PATH
    [exit status: 1]
    ");
    for wrong in [&["--watch", "--diff"][..], &["--diff", "--prune"], &["--rollback", "--dry-run"], &["affected"], &["--since", "HEAD"]] {
        let said = run(folder.path(), wrong);
        assert!(said.ends_with("[exit status: 2]"), "{wrong:?}: {said}");
    }
    std::fs::write(folder.path().join("devloop.yaml"), PROJECT.replace("target:", "traget:")).unwrap();
    insta::assert_snapshot!(run(folder.path(), &[]), @r#"
    Error: [FOLDER]/devloop.yaml:6:33: services[0].deploy: unknown field `traget`, expected one of `manifests`, `helm`, `images`, `target`, `container`
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
    std::fs::write(folder.path().join("devloop.yaml"), PROJECT.replace("scratch", "oci:../x")).unwrap();
    insta::assert_snapshot!(run(folder.path(), &[]), @r#"
    Error: [FOLDER]/devloop.yaml:5:32: services[0].image.base: path "../x" leads outside the folder of devloop.yaml
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
    std::fs::write(folder.path().join("k8s/kustomization.yaml"), "resources: [shop.yaml]\n").unwrap();
    insta::assert_snapshot!(run(folder.path(), &[]), @r"
    Error: kustomize can't make the manifests of k8s
    Caused by: neither kubectl nor kustomize is on PATH
    Hint: install kubectl, or write the manifests to a file and name it
    [exit status: 1]
    ");
    std::fs::write(folder.path().join("devloop.yaml"), PROJECT.replace("manifests: [k8s]", "helm: { chart: ./chart }")).unwrap();
    insta::assert_snapshot!(run(folder.path(), &[]), @r"
    Error: helm can't make the manifests of ./chart
    Caused by: helm is not on PATH
    Hint: install Helm from https://helm.sh, or name manifests instead
    [exit status: 1]
    ");
    let folder = project(DEPLOYMENT);
    std::fs::remove_dir_all(folder.path().join("k8s")).unwrap();
    insta::assert_snapshot!(run(folder.path(), &[]), @r"
    Error: could not read k8s
    Caused by: No such file or directory (os error 2)
    [exit status: 1]
    ");
}

/// Two packages that share a third, with manifests, in a git repository.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("the test set-up works");
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the test set-up works");
        std::fs::write(path, text).expect("the test set-up works");
    };
    write("Cargo.toml", "[workspace]\nresolver = \"2\"\nmembers = [\"shop\", \"cart\", \"kit\"]\n");
    write(".gitignore", "target\nCargo.lock\n");
    for (name, dependency, file) in [("shop", "kit = { path = \"../kit\" }", "main.rs"), ("cart", "", "main.rs"), ("kit", "", "lib.rs")] {
        let manifest = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n{dependency}\n");
        write(&format!("{name}/Cargo.toml"), &manifest);
        write(&format!("{name}/src/{file}"), if file == "main.rs" { "fn main() {}\n" } else { "" });
        write(&format!("k8s/{name}.yaml"), &DEPLOYMENT.replace("shop", name));
    }
    git(folder.path(), &["init", "-q"]);
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "-qm", "one"]);
    folder
}

fn git(folder: &Path, arguments: &[&str]) {
    let own = ["-c", "user.name=a", "-c", "user.email=a@b", "-C"];
    let status = Command::new("git").args(own).arg(folder).args(arguments).status().expect("git is there");
    assert!(status.success(), "{arguments:?}");
}

#[test]
fn affected_services_are_named_with_the_reason() {
    let folder = repository();
    let affected = |more: &[&str]| run_with_tools(folder.path(), &[&["affected", "--since", "HEAD", "-q"], more].concat());
    insta::assert_snapshot!(affected(&[]), @"[exit status: 0]");
    std::fs::write(folder.path().join("kit/src/lib.rs"), "// new\n").expect("the test set-up works");
    std::fs::write(folder.path().join("README.md"), "new\n").expect("the test set-up works");
    insta::assert_snapshot!(affected(&[]), @r"
    shop
    [exit status: 0]
    ");
    insta::assert_snapshot!(affected(&["-o", "json"]), @r#"
    [{"service":"shop","reasons":[{"file":"kit/src/lib.rs","via":["kit","shop"]}]}]
    [exit status: 0]
    "#);
    std::fs::write(folder.path().join("cart/src/new.rs"), "").expect("the test set-up works");
    insta::assert_snapshot!(affected(&[]), @r"
    shop
    cart
    [exit status: 0]
    ");
    insta::assert_snapshot!(run_with_tools(folder.path(), &["affected", "--since", "nowhere", "-q"]), @r#"
    Error: no revision "nowhere" in [FOLDER]
    Hint: name a commit, branch or tag, such as HEAD~1 or origin/main; a shallow clone lacks older ones (`git fetch --unshallow`)
    [exit status: 2]
    "#);
}

#[test]
fn a_project_without_a_file_is_worked_out_and_said() {
    let folder = repository();
    insta::assert_snapshot!(run_with_tools(folder.path(), &[]), @r#"
    shop: cargo's binary shop of package shop is image "shop" of deployment/shop (k8s/shop.yaml:1)
    cart: cargo's binary cart of package cart is image "cart" of deployment/cart (k8s/cart.yaml:1)
    Error: no kubeconfig context is chosen
    Hint: name one with --context, or bring up a cluster with `kubectl devenv up`
    [exit status: 1]
    "#);
    for name in ["shop", "cart", "kit"] {
        let manifest = DEPLOYMENT.replace("shop", name).replace(&format!("image: {name}"), "image: other");
        std::fs::write(folder.path().join(format!("k8s/{name}.yaml")), manifest).expect("the test set-up works");
    }
    insta::assert_snapshot!(run_with_tools(folder.path(), &[]), @r"
    Error: no devloop.yaml in [FOLDER] or a folder above it
    Hint: write a devloop.yaml in the project's root, or name one with -f FILE
    Hint: nothing could be worked out instead: no program here has the name of an image in the manifests (programs: shop, cart; images: other)
    [exit status: 2]
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
