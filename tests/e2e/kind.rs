//! What is kind's own: stock tools see what we report, the registry convention,
//! several nodes, nodes that are killed, an engine that goes away.

use crate::Case;
use crate::clusters::shared;
use devloop_tests::docker::{self, CutSocket};
use devloop_tests::environment::{Engine, Environment};
use devloop_tests::program::Program;
use devloop_tests::{eventually, toolbox};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// On a cluster of one node.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("kind::stock_tools_agree_with_status", stock_tools_agree),
        ("kind::registry_by_the_convention", registry),
        ("kind::image_of_docker_is_loaded_once", load_from_docker),
        ("kind::nodes_are_reached_by_docker_exec_too", by_exec),
        ("kind::cluster_without_its_journal_is_adopted", adopted),
    ]
}

/// On a cluster of three nodes.
pub(crate) fn multi_node_cases() -> Vec<Case> {
    vec![
        ("kind::stock_tools_agree_with_status", stock_tools_agree),
        ("kind::every_node_gets_the_image", every_node),
        ("kind::pods_of_different_nodes_reach_each_other", across_nodes),
        ("kind::killed_node_comes_back", killed_node),
    ]
}

/// Clusters of their own, after everything else.
pub(crate) fn fault_cases() -> Vec<Case> {
    vec![
        ("kind::requests_that_kind_would_refuse_are_errors", refused),
        ("kind::kubeconfig_in_the_way_is_an_error", kubeconfig_in_the_way),
        ("kind::two_ups_at_once_make_one_cluster", two_ups),
        ("kind::engine_that_stops_during_up_leaves_nothing", engine_stops),
    ]
}

fn own() -> Environment {
    Environment::new("own", "e2e-own").on(Engine::Kind { workers: 0 })
}

fn status(environment: &Environment) -> Value {
    let said = environment.devenv(["status", "--name", &environment.name, "-o", "json"]).run().ok();
    serde_json::from_str::<Value>(&said).unwrap()[0].clone()
}

fn kind(arguments: &[&str]) -> String {
    Program::new(docker::kind()).args(arguments).run().ok()
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn stock_tools_agree() {
    let environment = shared();
    let status = status(&environment);
    let names = |status: &Value| {
        let nodes = status["nodes"].as_array().unwrap_or_else(|| panic!("{status}"));
        sorted(&nodes.iter().map(|node| node["name"].as_str().unwrap()).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names(&status), sorted(&kind(&["get", "nodes", "--name", &environment.name])));
    assert!(kind(&["get", "clusters"]).lines().any(|line| line == environment.name));
    let filter = format!("label=io.x-k8s.kind.cluster={}", environment.name);
    assert_eq!(names(&status), sorted(&docker::docker(["ps", "--filter", &filter, "--format", "{{.Names}}"]).run().ok()));
    let ready = "jsonpath={range .items[?(@.status.conditions[-1].type==\"Ready\")]}{.metadata.name} {end}";
    assert_eq!(names(&status), sorted(&environment.kubectl(["get", "nodes", "-o", ready]).run().ok()));
    assert_eq!(status["context"], environment.context());
    assert_eq!(status["status"]["phase"], "ready");
}

/// The registry's `HOST:PORT`, as any tool finds it (KEP-1755).
fn registry_host(environment: &Environment) -> String {
    let path = r"jsonpath={.data.localRegistryHosting\.v1}";
    let hosting = environment.kubectl(["get", "configmap", "local-registry-hosting", "-n", "kube-public", "-o", path]).run().ok();
    let hosting: Value = serde_yaml_ng::from_str(&hosting).unwrap();
    hosting["host"].as_str().unwrap_or_else(|| panic!("{hosting}")).to_owned()
}

fn registry() {
    let environment = shared();
    let host = registry_host(&environment);
    assert!(host.starts_with("localhost:"), "{host}");
    let image = format!("{host}/toolbox:pushed");
    docker::import_toolbox(&environment.scratch("registry"), &image);
    docker::docker(["push", "--quiet", &image]).run().ok();
    let run = ["run", "pulled", "--image", &image, "--image-pull-policy=Always", "--restart=Never", "--", "/bin/sh", "-c", "echo pulled"];
    environment.kubectl(run).run().ok();
    let done = ["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/pulled", "--timeout=90s"];
    environment.kubectl(done).run().ok();
    assert_eq!(environment.kubectl(["logs", "pulled"]).run().ok(), "pulled\n");
    environment.kubectl(["delete", "pod", "pulled", "--wait=false"]).run().ok();
}

/// Whether a node's containerd has an image, asked with stock tools.
fn has_image(node: &str, image: &str) -> bool {
    docker::docker(["exec", node, "ctr", "--namespace", "k8s.io", "images", "ls", "-q"]).run().ok().lines().any(|line| line == image)
}

fn load(environment: &Environment, image: &str) -> Value {
    serde_json::from_str(&environment.devenv(["load", image, "-o", "json"]).run().ok()).unwrap()
}

fn nodes_of(environment: &Environment) -> Vec<String> {
    sorted(&kind(&["get", "nodes", "--name", &environment.name]))
}

fn load_from_docker() {
    let environment = shared();
    docker::import_toolbox(&environment.scratch("load"), "e2e/toolbox:one");
    let first = load(&environment, "e2e/toolbox:one");
    assert!(first["nodes"][0]["sentBytes"].as_u64().unwrap() > 100_000, "{first}");
    for node in nodes_of(&environment) {
        assert!(has_image(&node, "docker.io/e2e/toolbox:one"), "{node}");
    }
    let again = load(&environment, "e2e/toolbox:one");
    for node in again["nodes"].as_array().unwrap() {
        assert_eq!((&node["sentBytes"], &node["alreadyPresent"]), (&Value::from(0), &Value::from(true)), "{again}");
    }
    // The kubelet finds it by the name that Docker has for it.
    let run = ["run", "loaded", "--image=e2e/toolbox:one", "--image-pull-policy=Never", "--restart=Never", "--command", "--"];
    environment.kubectl(run.into_iter().chain(["/bin/sh", "-c", "cat /bin/name"])).run().ok();
    environment.kubectl(["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/loaded", "--timeout=60s"]).run().ok();
    assert_eq!(environment.kubectl(["logs", "loaded"]).run().ok(), "e2e/toolbox:one");
    environment.kubectl(["delete", "pod", "loaded", "--wait=false"]).run().ok();
    let error = environment.devenv(["load", "e2e/nothing:here"]).run().fails_with(1);
    assert!(error.contains("e2e/nothing:here") && error.contains("Hint:"), "{error}");
}

/// What a user has whose engine is elsewhere, or who isn't root.
fn by_exec() {
    let environment = shared();
    docker::import_toolbox(&environment.scratch("exec"), "e2e/toolbox:exec");
    environment.devenv(["load", "e2e/toolbox:exec"]).env("DEVLOOP_NODE_ACCESS", "exec").run().ok();
    for node in nodes_of(&environment) {
        assert!(has_image(&node, "docker.io/e2e/toolbox:exec"), "{node}");
    }
}

/// A cluster that stock kind made: used, and left alone by `down`.
fn adopted() {
    let environment = shared();
    // From another state folder, this is a cluster that somebody else made.
    let stranger = Environment::new("own", &environment.name).on(environment.engine);
    let before = docker::docker(["ps", "--format", "{{.ID}} {{.Names}}"]).run().ok();
    stranger.up();
    assert_eq!(stranger.kubectl(["get", "nodes", "-o", "name"]).run().ok(), environment.kubectl(["get", "nodes", "-o", "name"]).run().ok());
    stranger.down();
    assert_eq!(docker::docker(["ps", "--format", "{{.ID}} {{.Names}}"]).run().ok(), before);
    environment.kubectl(["get", "nodes"]).run().ok();
    // Its registry is the first one's, and still there.
    let hosting = ["get", "configmap", "local-registry-hosting", "-n", "kube-public"];
    environment.kubectl(hosting).run().ok();
}

fn every_node() {
    let environment = shared();
    docker::import_toolbox(&environment.scratch("every"), "e2e/toolbox:every");
    let report = load(&environment, "e2e/toolbox:every");
    assert_eq!(report["nodes"].as_array().unwrap().len(), 3, "{report}");
    for node in nodes_of(&environment) {
        assert!(has_image(&node, "docker.io/e2e/toolbox:every"), "{node}");
    }
    // A node that lost it gets it again; the others get nothing.
    let lost = &nodes_of(&environment)[1];
    docker::docker(["exec", lost, "ctr", "--namespace", "k8s.io", "images", "rm", "docker.io/e2e/toolbox:every"]).run().ok();
    let again = load(&environment, "e2e/toolbox:every");
    for node in again["nodes"].as_array().unwrap() {
        assert_eq!(node["alreadyPresent"], Value::from(node["name"] != lost.as_str()), "{again}");
    }
    assert!(has_image(lost, "docker.io/e2e/toolbox:every"));
}

fn across_nodes() {
    let environment = shared();
    environment.apply_manifest(&format!(
        "\
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: across}}
spec:
  selector: {{matchLabels: {{app: across}}}}
  template:
    metadata: {{labels: {{app: across}}}}
    spec:
      terminationGracePeriodSeconds: 0
      tolerations: [{{operator: Exists}}]
      containers:
      - name: main
        image: {}
        imagePullPolicy: Never
        args: [\"-c\", \"mkdir -p /www && echo hello from $HOSTNAME > /www/index.html && exec httpd -f -p 8080 -h /www\"]
---
apiVersion: v1
kind: Service
metadata: {{name: across}}
spec:
  selector: {{app: across}}
  ports: [{{port: 80, targetPort: 8080}}]
",
        toolbox::IMAGE
    ));
    environment.kubectl(["rollout", "status", "daemonset/across", "--timeout=90s"]).run().ok();
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{\"\\n\"}{end}";
    let pods = environment.kubectl(["get", "pods", "-l", "app=across", "-o", path]).run().ok();
    let pods: Vec<(&str, &str)> = pods.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(pods.len(), 3, "{pods:?}");
    for (from, _) in &pods {
        for (to, address) in &pods {
            let answer = environment.kubectl(["exec", from, "--", "get", &format!("http://{address}:8080")]).run().ok();
            assert_eq!(answer, format!("hello from {to}\n"));
        }
        // The rules for a Service get to each node in its own time.
        eventually("the Service answers on every node", SOON, || {
            let said = environment.kubectl(["exec", from, "--", "get", "http://across.default.svc.cluster.local"]).run();
            if said.status.success() { Ok(()) } else { Err(said.stderr) }
        });
    }
    environment.kubectl(["delete", "daemonset/across", "service/across", "--wait=false"]).run().ok();
}

fn killed_node() {
    let environment = shared();
    let node = nodes_of(&environment).into_iter().find(|node| node.contains("worker")).unwrap();
    docker::docker(["kill", &node]).run().ok();
    let stopped = status(&environment);
    let of = |status: &Value| status["nodes"].as_array().unwrap().iter().find(|known| known["name"] == node.as_str()).unwrap().clone();
    assert_ne!(of(&stopped)["state"], "running", "{stopped}");
    environment.up();
    assert_eq!(of(&status(&environment))["state"], "running");
    environment.kubectl(["wait", "--for=condition=Ready", "node", &node, "--timeout=90s"]).run().ok();
    let pin = format!(r#"{{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":0}}}}"#);
    let run = ["run", "back", "--image", toolbox::IMAGE, "--image-pull-policy=Never", "--overrides", &pin, "--", "-c", "sleep 3600"];
    environment.kubectl(run).run().ok();
    environment.kubectl(["wait", "--for=condition=Ready", "pod/back", "--timeout=90s"]).run().ok();
    environment.kubectl(["delete", "pod", "back", "--wait=false"]).run().ok();
}

fn refused() {
    let environment = own();
    let folder = environment.scratch("configs");
    let config = folder.join("kind.yaml");
    let up = |content: &str, more: &[&str]| {
        std::fs::write(&config, content).unwrap();
        let arguments = ["up", "--provider", "kind", "--config", config.to_str().unwrap()];
        environment.devenv(arguments.iter().chain(more)).run()
    };
    let header = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";
    let cases: [(String, &[&str], &str); 5] = [
        ("kind: Cluster\napiVersion: v1\n".into(), &[], "apiVersion"),
        ("kind: [".into(), &[], "line"),
        (format!("{header}nodes:\n- role: nonsense\n"), &[], "nodes[0].role"),
        (format!("{header}nodes:\n- role: control-plane\n"), &["--workers", "2"], "nodes"),
        (format!("{header}featureGates: {{X: true}}\n"), &["--feature-gate", "X=false"], "featureGates.X"),
    ];
    for (content, more, expected) in cases {
        let said = up(&content, more);
        assert!(matches!(said.status.code(), Some(1 | 2)), "{content}: {said:?}");
        assert!(said.stderr.contains("Error:") && said.stderr.contains(expected), "{content}: {}", said.stderr);
    }
    let missing = environment.devenv(["up", "--provider", "kind", "--config", "/nowhere/kind.yaml"]).run();
    assert!(!missing.status.success() && missing.stderr.contains("/nowhere/kind.yaml"), "{}", missing.stderr);
    environment.devenv(["up", "--provider", "kind", "--name", "Under_score"]).run().fails_with(2);
    environment.devenv(["up", "--provider", "kind", "--node-image", "devloop.local/no-such-node:1"]).run().fails_with(1);
    assert!(!kind(&["get", "clusters"]).contains(&environment.name));
    assert!(!environment.directory().root().exists(), "a request that was refused left something");
}

fn kubeconfig_in_the_way() {
    let environment = own();
    let path = environment.kubeconfig();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let theirs = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {0}\n  cluster: {{server: 'https://192.0.2.1:6443'}}\nusers: []\ncontexts:\n- name: {0}\n  context: {{cluster: {0}, user: me}}\n",
        environment.context()
    );
    std::fs::write(&path, &theirs).unwrap();
    let error = environment.devenv(environment.up_arguments()).run().fails_with(1);
    assert!(error.contains(&environment.context()) && error.contains("Hint:"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
    std::fs::remove_file(&path).unwrap();
    // Root may write anything but to a file system that is read-only.
    let script = format!(
        "mkdir -p {0} && mount -t tmpfs -o ro readonly {0} && KUBECONFIG={0}/config exec {1} {2}",
        environment.scratch("readonly").display(),
        devloop_tests::programs().join("kubectl-devenv").display(),
        environment.up_arguments().join(" ")
    );
    let error = environment.apply(Program::new("unshare").args(["--mount", "sh", "-c", &script])).run().fails_with(1);
    assert!(error.contains("scratch/readonly") && error.contains("can't be written") && error.contains("KUBECONFIG"), "{error}");
    assert!(!kind(&["get", "clusters"]).contains(&environment.name));
}

/// With what a kind cluster can be told by flags.
fn two_ups() {
    let environment = own();
    let folder = environment.scratch("mounted");
    std::fs::write(folder.join("file"), "from the host").unwrap();
    let port = devloop_tests::free_port();
    let options = [
        ["--mount".to_owned(), format!("{}:/mnt/e2e:ro", folder.display())],
        ["--port".to_owned(), format!("{port}:30080")],
        ["--feature-gate".to_owned(), "UserNamespacesSupport=false".to_owned()],
    ];
    let arguments: Vec<String> = environment.up_arguments().into_iter().chain(options.concat()).collect();
    let [mut first, mut second] = [(), ()].map(|()| environment.devenv(&arguments).start());
    assert!(first.child.wait().unwrap().success());
    assert!(second.child.wait().unwrap().success());
    let nodes = nodes_of(&environment);
    assert_eq!(nodes.len(), 1);
    environment.kubectl(["get", "nodes"]).run().ok();
    assert_eq!(docker::docker(["exec", &nodes[0], "cat", "/mnt/e2e/file"]).run().ok(), "from the host");
    docker::docker(["exec", &nodes[0], "touch", "/mnt/e2e/file"]).run().fails_with(1);
    assert_eq!(docker::docker(["port", &nodes[0], "30080/tcp"]).run().ok().trim(), format!("127.0.0.1:{port}"));
    let kubelet = docker::docker(["exec", &nodes[0], "cat", "/var/lib/kubelet/config.yaml"]).run().ok();
    assert!(kubelet.contains("UserNamespacesSupport: false"), "{kubelet}");
    // What it is made of can't be changed by another `up`: it says so.
    let error = environment.devenv(["up", "--provider", "kind", "--workers", "1"]).run();
    assert!(!error.status.success(), "{}", error.stderr);
    environment.down();
    assert!(!kind(&["get", "clusters"]).contains(&environment.name));
    assert!(!std::fs::read_to_string(environment.kubeconfig()).unwrap_or_default().contains(&environment.context()));
}

/// The engine goes away in the middle: from where a client sits, its socket
/// breaks and is refused from then on.
fn engine_stops() {
    let environment = own().sibling("e2e-cut");
    let socket = CutSocket::start(&environment.scratch("cut"));
    let mut up = environment.devenv(environment.up_arguments()).env("DOCKER_HOST", socket.docker_host()).start();
    eventually("kind has begun", SOON, || {
        let made = docker::docker(["ps", "-a", "--format", "{{.Names}}"]).run().ok();
        if made.contains(&environment.name) { Ok(()) } else { Err(made) }
    });
    socket.cut();
    let status = eventually("up ends", SOON, || up.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned()));
    assert_eq!(status.code(), Some(1));
    drop(up);
    // With the engine back, the next one makes it anew, from what was left.
    environment.up();
    environment.kubectl(["get", "nodes"]).run().ok();
    // And Ctrl-C in the middle of one leaves nothing.
    environment.down();
    let up = environment.devenv(environment.up_arguments()).start();
    eventually("kind has begun again", SOON, || {
        let made = docker::docker(["ps", "-a", "--format", "{{.Names}}"]).run().ok();
        if made.contains(&environment.name) { Ok(()) } else { Err(made) }
    });
    up.signal(Signal::SIGINT);
    let mut up = up;
    eventually("up ends on Ctrl-C", SOON, || up.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned()));
    assert!(!docker::docker(["ps", "-a", "--format", "{{.Names}}"]).run().ok().contains(&environment.name));
    assert!(!environment.directory().root().exists());
}
