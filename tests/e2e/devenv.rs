//! `kubectl devenv`, command by command.

use crate::clusters::{Cluster, current};
use crate::rebuild::{get, shop};
use crate::{Case, shared};
use devloop_tests::eventually;
use devloop_tests::program::Program;
use serde_json::Value;
use std::time::Duration;

/// On any cluster that we bring up.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("devenv::up_again_is_a_no_op", up_again),
        ("devenv::kubeconfig_alone_is_enough", kubeconfig),
        ("devenv::load_refuses_what_is_no_image", load_refuses),
        ("devenv::auto_finds_what_is_up", auto),
        ("devenv::doctor_finds_what_is_broken", doctor),
    ]
}

/// After the example was rebuilt several times.
pub(crate) fn late_cases() -> Vec<Case> {
    vec![("devenv::registry_is_a_way_to_the_nodes", registry), ("devenv::prune_removes_what_its_dry_run_says", prune)]
}

/// On the embedded one: its components are ours.
pub(crate) fn embedded_cases() -> Vec<Case> {
    let own: Vec<Case> = vec![
        ("devenv::status_for_people_and_tools", status),
        ("devenv::logs_of_a_component", logs),
        ("devenv::works_as_a_kubectl_plugin", as_plugin),
    ];
    [cases(), own].concat()
}

/// On a cluster that others run.
pub(crate) fn api_cases() -> Vec<Case> {
    vec![
        ("devenv::up_again_is_a_no_op", up_again),
        ("devenv::kubeconfig_alone_is_enough", kubeconfig),
        ("devenv::foreign_cluster_is_only_remembered", foreign),
    ]
}

fn up_again() {
    let running = || shared().directory().status().unwrap().map(|status| status.supervisor_pid);
    let pid = running();
    let arguments = shared().up_arguments().into_iter().chain(["-o".to_owned(), "json".to_owned()]);
    let report: serde_json::Value = serde_json::from_str(&shared().devenv(arguments).run().ok()).unwrap();
    assert_eq!(report["alreadyUp"], true, "{report}");
    assert_eq!(running(), pid);
}

fn auto() {
    let report = shared().devenv(["up", "--provider", "auto", "-o", "json"]).run().ok();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["alreadyUp"], &report["context"]), (&Value::from(true), &Value::from(shared().context())));
    let other = if current() == Cluster::Embedded { "kind" } else { "embedded" };
    let error = shared().devenv(["up", "--provider", other]).run();
    assert!(!error.status.success() && error.stderr.contains(&shared().name), "{}", error.stderr);
}

fn doctor() {
    let run = |program: Program| {
        let said = program.run();
        let findings: Vec<Value> = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let blocks = findings.iter().any(|finding| finding["severity"] == "blocks");
        assert_eq!(said.status.code(), Some(i32::from(blocks)), "{said:?}");
        findings
    };
    let ask = || shared().devenv(["doctor", "-o", "json"]);
    let of = |findings: &[Value], id: &str| findings.iter().filter(|finding| finding["id"] == id).cloned().collect::<Vec<_>>();
    let findings = run(ask());
    assert!(!findings.iter().any(|finding| finding["severity"] == "blocks"), "{findings:#?}");
    assert!(of(&findings, "registry-from-node").iter().all(|finding| finding["severity"] == "ok"), "{findings:#?}");
    // A context that leads nowhere, and an engine that nobody serves.
    let kubeconfig = shared().scratch("doctor").join("config");
    std::fs::copy(shared().kubeconfig(), &kubeconfig).unwrap();
    shared().kubectl(["config", "set-context", "lost", "--cluster=nothing"]).env("KUBECONFIG", &kubeconfig).run().ok();
    let findings = run(ask().env("KUBECONFIG", &kubeconfig).env("DOCKER_HOST", "unix:///nowhere/docker.sock"));
    let lost = of(&findings, "dangling-context");
    assert!(lost.iter().any(|finding| finding["subject"] == "lost" && !finding["fix"].is_null()), "{findings:#?}");
    let engine = of(&findings, "docker");
    assert!(engine.iter().any(|finding| finding["severity"] != "ok" && !finding["fix"].is_null()), "{findings:#?}");
}

fn registry() {
    let image = |arguments: [&str; 2]| {
        let all = shop().context().into_iter().chain(shop().file()).chain(arguments.map(str::to_owned));
        shared().plugin("kubectl-rebuild", all).run().ok();
        shared().kubectl(["get", "deployment", "shop", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]).run().ok()
    };
    assert!(image(["--via", "api"]).starts_with("localhost:"));
    assert!(get("/api/version").run().ok().contains(&shop().greeting()));
    assert!(image(["--via", "node"]).starts_with("devloop.local/"));
}

fn prune() {
    for number in 0..2 {
        shop().greet(&format!("built {number}"));
        shop().rebuild();
    }
    let prune = |more: &[&str]| -> Value {
        let environment = shared();
        let arguments = ["prune", "--name", &environment.name, "-o", "json"].into_iter().chain(more.iter().copied());
        serde_json::from_str(&environment.devenv(arguments).run().ok()).unwrap()
    };
    let images = |report: &Value| {
        let items = report["items"].as_array().unwrap().iter().filter(|item| item["what"] == "image");
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Containers of other tests' pods may still be coming and going.
    let planned = eventually("a dry run changes nothing", Duration::from_secs(60), || {
        let (planned, again) = (images(&prune(&["--dry-run"])), images(&prune(&["--dry-run"])));
        let has_old = planned.iter().any(|name| name.starts_with("devloop.local/shop:"));
        if has_old && planned == again { Ok(planned) } else { Err(format!("{planned:?}, then {again:?}")) }
    });
    let done = prune(&[]);
    assert!(planned.iter().all(|image| images(&done).contains(image)), "{planned:?}, {done:#}");
    assert!(done["freedBytes"].as_u64().unwrap() > 0, "{done:#}");
    eventually("nothing more can go", Duration::from_secs(120), || {
        let left = images(&prune(&["--dry-run"]));
        assert!(left.iter().all(|image| !planned.contains(image)), "it was removed: {left:?}");
        prune(&[]);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // What runs was not touched.
    shared().kubectl(["rollout", "restart", "deployment/shop"]).run().ok();
    shared().kubectl(["rollout", "status", "deployment/shop", "--timeout=60s"]).run().ok();
}

/// `down` of a context forgets it and leaves the cluster as it is.
fn foreign() {
    shared().kubectl(["create", "configmap", "theirs"]).run().ok();
    shared().down();
    shared().kubectl(["delete", "configmap", "theirs"]).run().ok();
    let error = shared().devenv(["status", "--name", &shared().name]).run().fails_with(1);
    assert!(error.contains("there is no environment"), "{error}");
    shared().up();
}

fn status() {
    let text = shared().devenv(["status"]).run().ok();
    for component in
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns", "containerd"]
    {
        let line =
            text.lines().find(|line| line.contains(&format!(" {component} "))).unwrap_or_else(|| panic!("{component} is missing:\n{text}"));
        assert!(line.contains("running"), "{line}");
    }
    let json: serde_json::Value = serde_json::from_str(&shared().devenv(["status", "--name", "e2e", "-o", "json"]).run().ok()).unwrap();
    assert_eq!(json[0]["status"]["phase"], "ready");
    assert_eq!(json[0]["context"], "devloop-e2e");
    let error = shared().devenv(["status", "--name", "nobody"]).run().fails_with(1);
    assert!(error.contains("there is no environment \"nobody\"") && error.contains("Hint: bring it up"), "{error}");
}

fn logs() {
    let text = shared().devenv(["logs", "kubelet", "--tail", "5"]).run().ok();
    assert_eq!(text.lines().count(), 5);
    let error = shared().devenv(["logs", "../environment"]).run().fails_with(1);
    assert!(error.contains("has no log") && error.contains("kubelet"), "{error}");
    // Followed: a new line shows up, and Ctrl-C ends it well.
    let mut follow = shared().devenv(["logs", "kube-apiserver", "-f", "--tail", "0"]).start();
    shared().kubectl(["get", "--raw", "/apis/nothing.example/v1"]).run();
    shared().kubectl(["create", "namespace", "noise"]).run().ok();
    shared().kubectl(["delete", "namespace", "noise"]).run().ok();
    std::thread::sleep(Duration::from_millis(300));
    follow.signal(nix::sys::signal::Signal::SIGINT);
    let status =
        eventually("logs -f ends", Duration::from_secs(5), || follow.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned()));
    assert!(status.success(), "{status}");
}

fn kubeconfig() {
    let folder = shared().scratch("kubeconfig");
    let path = folder.join("config");
    std::fs::write(&path, shared().devenv(["kubeconfig"]).run().ok()).unwrap();
    let nodes = shared().kubectl(["get", "nodes", "-o", "name"]).env("KUBECONFIG", &path).run().ok();
    assert_eq!(nodes, shared().kubectl(["get", "nodes", "-o", "name"]).run().ok());
    assert!(nodes.starts_with("node/"), "{nodes}");
}

fn load_refuses() {
    let folder = shared().scratch("load");
    let missing = folder.join("missing.tar");
    let error = shared().devenv(["load".as_ref(), missing.as_os_str()]).run().fails_with(2);
    assert!(error.contains("missing.tar does not exist"), "{error}");
    let images = || shared().kubectl(["get", "nodes", "-o", "jsonpath={.items[0].status.images}"]).run().ok();
    let before = images();
    let text = folder.join("text.tar");
    std::fs::write(&text, "this is not a tar archive").unwrap();
    shared().devenv(["load".as_ref(), text.as_os_str()]).run().fails_with(1);
    let whole = devloop_tests::toolbox::archive(&folder);
    let bytes = std::fs::read(&whole).unwrap();
    let cut = folder.join("cut.tar");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let error = shared().devenv(["load".as_ref(), cut.as_os_str()]).run().fails_with(1);
    assert!(error.contains("Error: could not load"), "{error}");
    assert_eq!(images(), before);
}

fn as_plugin() {
    let listed = shared().apply(devloop_tests::program::Program::new("kubectl").args(["plugin", "list"])).run();
    for plugin in ["kubectl-devenv", "kubectl-rebuild", "kubectl-hot_reload", "kubectl-logs_tail", "kubectl-debug_attach"] {
        assert!(listed.stdout.contains(plugin), "{}{}", listed.stdout, listed.stderr);
    }
    let help = shared().apply(devloop_tests::program::Program::new("kubectl").args(["hot-reload", "--help"])).run().ok();
    assert!(help.contains("Usage: kubectl hot-reload"), "{help}");
}
