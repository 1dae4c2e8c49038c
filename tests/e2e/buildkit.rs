//! `kubectl rebuild` by real BuildKit daemons, each by its address.

use crate::Case;
use crate::clusters::shared;
use devloop_tests::buildkit::{self, Daemon};
use devloop_tests::docker::docker;
use devloop_tests::eventually;
use devloop_tests::example::Example;
use devloop_tests::program::Program;
use devloop_tests::ssh::Server;
use serde_json::Value;
use std::time::Duration;

/// Wherever nodes are reached.
pub(crate) fn cases() -> Vec<Case> {
    vec![("buildkit::one_in_the_cluster_builds", in_the_cluster)]
}

/// Without a Docker engine.
pub(crate) fn cases_without_engine() -> Vec<Case> {
    vec![("buildkit::one_on_this_machine_builds", on_this_machine)]
}

/// With one.
pub(crate) fn cases_with_engine() -> Vec<Case> {
    vec![("buildkit::one_in_a_container_builds", in_a_container)]
}

/// Nothing is pulled, and nothing is run.
const DOCKERFILE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY version /srv/version\nUSER 65532:65532\nEXPOSE 8080\n\
                          ENTRYPOINT [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/srv\"]\n";

fn example(name: &str) -> Example {
    let example = Example::copy(&shared(), "dockerfile-web", name);
    shared().apply_manifest(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"));
    example.write("Dockerfile", DOCKERFILE);
    example.write(".dockerignore", "docker\n");
    std::fs::copy("/bin/busybox", example.folder.join("busybox")).unwrap();
    example
}

fn rebuild(example: &Example, words: &[&str]) -> Program {
    let words = example.arguments().into_iter().chain(words.iter().map(|word| (*word).to_owned()));
    // Where it is looked for first.
    let own = example.folder.join("bin");
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
    shared().plugin("kubectl-rebuild", words).env("DOCKER_CONFIG", example.folder.join("docker")).env("PATH", path)
}

/// Rebuilds by each of these builders, which share what was built.
fn built_by(example: &Example, builders: &[String]) {
    let mut before = "file: Dockerfile".to_owned();
    for (number, builder) in builders.iter().enumerate() {
        let after = format!("file: Dockerfile\n        builder: {builder}");
        example.edit("devloop.yaml", &before, &after);
        before = after;
        let version = format!("{} by builder {number}", example.namespace);
        example.write("version", &version);
        let words = ["--via", shared().way(), "-o", "json"];
        let report: Value = serde_json::from_str(&rebuild(example, &words).run().ok()).unwrap();
        let service = &report["services"][0];
        let steps = service["steps"].as_array().unwrap_or_else(|| panic!("{service}"));
        let copied =
            |name: &str| steps.iter().find(|step| step["name"].as_str().unwrap().contains(name)).unwrap_or_else(|| panic!("{steps:?}"));
        assert_eq!(copied("COPY version")["cached"], false, "{builder}: {steps:?}");
        let path = format!("/api/v1/namespaces/{}/services/dockerfile-web:80/proxy/version", example.namespace);
        eventually("it answers", Duration::from_secs(30), || {
            let said = shared().kubectl(["get", "--raw", &path]).run();
            if said.stdout.contains(&version) { Ok(()) } else { Err(format!("{builder}: {}{}", said.stdout, said.stderr)) }
        });
    }
}

fn on_this_machine() {
    let example = example("buildkit-here");
    let folder = shared().scratch("buildkit");
    let daemon = Daemon::start(&folder);
    // As `docker buildx create --driver remote` keeps it.
    let instances = example.folder.join("docker/buildx/instances");
    std::fs::create_dir_all(&instances).unwrap();
    let instance =
        format!(r#"{{"Name":"far","Driver":"remote","Nodes":[{{"Name":"far0","Endpoint":"tcp://127.0.0.1:{}"}}]}}"#, daemon.port);
    std::fs::write(instances.join("far"), instance).unwrap();
    let unix = format!("unix://{}", daemon.socket.display());
    // What `buildctl` finds on the machine that ssh gets to.
    let path = format!("{}:/usr/bin:/bin", buildkit::programs().display());
    let server = Server::start(&folder.join("ssh"), &[("PATH", &path), ("BUILDKIT_HOST", &unix)]);
    let bin = example.folder.join("bin");
    std::os::unix::fs::symlink(server.client("user"), &bin).unwrap();
    let ssh = format!("ssh://127.0.0.1:{}", server.port);
    built_by(&example, &[unix, format!("tcp://127.0.0.1:{}", daemon.port), ssh.clone(), "buildx://far".to_owned()]);
    drop(daemon);
    // It is gone, and that is said.
    example.write("version", "nobody builds it");
    let error = rebuild(&example, &[]).run().fails_with(1);
    assert!(["buildx://far", "Connection refused", "Hint: see whether it runs"].iter().all(|part| error.contains(part)), "{error}");
    example.edit("devloop.yaml", "buildx://far", &ssh);
    let error = rebuild(&example, &[]).run().fails_with(1);
    assert!(error.contains(&ssh) && error.contains("connect: no such file or directory"), "{error}");
    std::fs::remove_file(&bin).unwrap();
    std::os::unix::fs::symlink(server.client("stranger"), &bin).unwrap();
    let error = rebuild(&example, &[]).run().fails_with(1);
    assert!(error.contains("Permission denied (publickey)"), "{error}");
    example.remove();
}

fn in_the_cluster() {
    let example = example("buildkit-pod");
    let folder = shared().scratch("buildkit-image");
    shared().devenv(["load".as_ref(), buildkit::archive(&folder).as_os_str()]).run().ok();
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: buildkitd, namespace: {}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - name: buildkitd\n    image: {}\n    imagePullPolicy: Never\n    securityContext: {{capabilities: {{add: [SYS_ADMIN]}}}}\n    \
         readinessProbe: {{exec: {{command: [buildctl, debug, workers]}}, periodSeconds: 1, timeoutSeconds: 5}}\n",
        example.namespace,
        buildkit::IMAGE,
    );
    shared().apply_manifest(&manifest);
    example.kubectl(&["wait", "--for=condition=Ready", "pod/buildkitd", "--timeout=90s"]).run().ok();
    built_by(&example, &[format!("kube-pod://buildkitd?namespace={}", example.namespace)]);
    example.remove();
}

fn in_a_container() {
    let example = example("buildkit-container");
    let folder = shared().scratch("buildkit-image");
    buildkit::import(&folder);
    let name = "devloop-e2e-buildkitd";
    let _ = docker(["rm", "--force", name]).run();
    docker(["run", "--detach", "--name", name, "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", buildkit::IMAGE])
        .run()
        .ok();
    eventually("BuildKit listens", Duration::from_secs(60), || {
        let said = docker(["exec", name, "buildctl", "debug", "workers"]).run();
        if said.status.success() { Ok(()) } else { Err(said.stderr) }
    });
    built_by(&example, &[format!("docker-container://{name}")]);
    docker(["rm", "--force", name]).run().ok();
    example.remove();
}
