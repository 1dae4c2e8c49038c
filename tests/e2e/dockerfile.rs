//! `kubectl rebuild` of images that Dockerfiles describe, by a real Docker engine.

use crate::Case;
use crate::clusters::{current, shared};
use devloop_core::dockerfile::{Built, Request, build};
use devloop_core::project::DockerfileBuild;
use devloop_tests::docker::{docker, import_toolbox};
use devloop_tests::eventually;
use devloop_tests::example::Example;
use devloop_tests::program::{Program, Said};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

/// What the example is built upon, made here: no registry is reached.
const BASE: &str = "busybox:1.37";

/// On clusters with a Docker engine.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("dockerfile::builds_delivers_and_rolls_out", builds),
        ("dockerfile::mistakes_are_shown_and_change_nothing", mistakes),
        ("dockerfile::context_is_what_docker_takes", context),
        ("dockerfile::secrets_are_read_and_not_kept", secrets),
        ("dockerfile::classic_builder_makes_it_too", classic),
        ("dockerfile::a_build_that_is_interrupted_ends", interrupted),
    ]
}

/// Where there is none.
pub(crate) fn cases_without_engine() -> Vec<Case> {
    vec![("dockerfile::no_engine_is_an_error", no_engine)]
}

fn example() -> Example {
    let example = Example::copy(&shared(), "dockerfile-web", "dockerfile-web");
    shared().apply_manifest(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n", example.namespace));
    example
}

/// The engine of the tests, also where the cluster's environment has none.
fn engine() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned())
}

fn import_base() {
    let folder = tempfile::tempdir().unwrap();
    import_toolbox(folder.path(), BASE);
}

fn rebuild(example: &Example, more: &[&str]) -> Program {
    let words = example.arguments().into_iter().chain(more.iter().map(|word| (*word).to_owned()));
    shared().plugin("kubectl-rebuild", words).env("DOCKER_HOST", engine())
}

fn report(said: Said) -> Value {
    let report: Value = serde_json::from_str(&said.ok()).unwrap();
    report["services"][0].clone()
}

fn ask(example: &Example, path: &str) -> String {
    let path = format!("/api/v1/namespaces/{}/services/dockerfile-web:80/proxy{path}", example.namespace);
    eventually("it answers", Duration::from_secs(30), || {
        let said = shared().kubectl(["get", "--raw", &path]).run();
        if said.status.success() { Ok(said.stdout) } else { Err(said.stderr) }
    })
}

fn steps(service: &Value) -> Vec<(String, bool)> {
    let steps = service["steps"].as_array().into_iter().flatten();
    steps.map(|step| (step["name"].as_str().unwrap().to_owned(), step["cached"].as_bool().unwrap())).collect()
}

fn builds() {
    import_base();
    let example = example();
    let first = report(rebuild(&example, &["-o", "json"]).run());
    assert!(steps(&first).iter().any(|(name, _)| name.contains("RUN cat head.html")), "{first}");
    assert!(ask(&example, "/index.html").contains("hello from devloop.yaml"));
    let pod = example.pod();
    // Nothing changed: nobody is asked to build. (A builder that is nowhere would say it
    // more plainly, but kind's nodes are reached by the same engine.)
    let again = report(rebuild(&example, &["-o", "json"]).run());
    assert_eq!((&again["image"], &again["rolledOut"]), (&first["image"], &Value::Bool(false)), "{again}");
    assert_eq!((steps(&again), example.pod().name), (Vec::new(), pod.name));
    // What the build doesn't read is no change.
    example.write("notes.txt", "ignored");
    assert_eq!(steps(&report(rebuild(&example, &["-o", "json"]).run())), Vec::new());
    example.write("version", "dockerfile-web 2");
    let second = report(rebuild(&example, &["-o", "json"]).run());
    assert!(steps(&second).iter().any(|(name, cached)| name.contains("RUN cat head.html") && *cached), "{second}");
    assert!(second["sentBytes"].as_u64().unwrap() < 100_000, "only the layer of the version is sent: {second}");
    assert!(ask(&example, "/version").contains("dockerfile-web 2"));
    let affected = rebuild(&example, &["affected", "--since", "HEAD"]).run();
    assert!(affected.status.success() || affected.stderr.contains("repository"), "{}", affected.stderr);
}

fn generation(example: &Example) -> String {
    example.kubectl(&["get", "deployment", "dockerfile-web", "-o", "jsonpath={.metadata.generation}"]).run().ok()
}

fn mistakes() {
    import_base();
    let example = example();
    rebuild(&example, &[]).run().ok();
    let before = generation(&example);
    example.edit("Dockerfile", "EXPOSE 8080", "EXPSE 8080");
    let error = rebuild(&example, &[]).run().fails_with(1);
    assert!(error.contains("Dockerfile:14: ") && error.contains("14 | EXPSE 8080"), "{error}");
    assert_eq!(error.matches("EXPSE 8080").count(), 1, "the line is shown once:\n{error}");
    example.edit("Dockerfile", "EXPSE 8080", "RUN echo the last words && exit 3");
    let error = rebuild(&example, &[]).run().fails_with(1);
    assert!(error.contains("Dockerfile:14: ") && error.contains("exit code 3") && error.contains("\n  the last words"), "{error}");
    example.edit("Dockerfile", "RUN echo the last words && exit 3", "COPY missing /");
    let error = rebuild(&example, &[]).run().fails_with(1);
    assert!(error.contains("missing"), "{error}");
    example.edit("Dockerfile", "COPY missing /", "EXPOSE 8080");
    example.write(".dockerignore", "a[\n");
    let error = rebuild(&example, &[]).run().fails_with(1);
    assert!(error.contains(".dockerignore") && error.contains("a["), "{error}");
    assert_eq!(generation(&example), before);
}

/// Builds in this process; answers the image.
fn by_library(root: &Path) -> Built {
    let cache = root.parent().unwrap().join("cache");
    std::fs::create_dir_all(cache.join("builds")).unwrap();
    let spec = DockerfileBuild::of(".".into(), "Dockerfile".into());
    let request = Request { root, build: &spec, name: "tricky", cache: &cache, docker_config: None, cluster: None };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(build(&request, &|_| {})).unwrap()
}

fn names(tar: &Path) -> BTreeSet<String> {
    let listed = Program::new("tar").args(["--list", "--file"]).args([tar]).run().ok();
    listed.lines().map(|line| line.trim_start_matches("./").trim_end_matches('/').to_owned()).filter(|line| !line.is_empty()).collect()
}

fn context() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    let files = [
        "a.md",
        "README.md",
        "docs/a.md",
        "docs/keep/b.md",
        "src/main.rs",
        "src/x.log",
        "src/deep/y.log",
        "node_modules/a/b.js",
        "node_modules/kept/c.js",
        "build/out",
        "build/keep.txt",
        "temp1",
        "a/temp2",
        "a/b/temp3",
        "x[1].txt",
        "with space.txt",
        ".env",
        "é.txt",
        "vendor/one/two/three.c",
        "vendor/one/two/three.h",
    ];
    for path in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    symlink("docs", root.join("link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("..", root.join("src/loop")).unwrap();
    std::fs::create_dir(root.join("empty")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("build/socket")).unwrap();
    let ignore = "# comment\n*.md\n!README.md\n/docs/*\n!docs/keep\n**/*.log\n!src/deep/*.log\nnode_modules\n!node_modules/kept\nbuild\n!build/keep.txt\n*/temp?\n\
                  x\\[1\\].txt\n  with space.txt  \nvendor/**\n!vendor/**/*.h\n";
    std::fs::write(root.join(".dockerignore"), ignore).unwrap();
    std::fs::write(root.join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    let ours: BTreeSet<String> = by_library(&root).image.layers.iter().flat_map(|layer| names(&layer.path)).collect();
    // Docker's own client sends the context of the same folder to the same engine. It may
    // have no buildx; what it leaves out is the same.
    let (tag, tar) = ("devloop.local/tricky:docker", folder.path().join("docker.tar"));
    docker(["build", "--quiet", "--no-cache", "--tag", tag, root.to_str().unwrap()]).env("DOCKER_BUILDKIT", "0").run().ok();
    let id = docker(["create", tag, "none"]).run().ok();
    docker(["export", "--output", tar.to_str().unwrap(), id.trim()]).run().ok();
    docker(["rm", id.trim()]).run().ok();
    docker(["rmi", "--force", tag]).run().ok();
    // What an engine puts into every container.
    let of_engine = ["dev", "etc", "proc", "sys", ".dockerenv"];
    let docker: BTreeSet<String> =
        names(&tar).into_iter().filter(|name| !of_engine.iter().any(|own| name == own || name.starts_with(&format!("{own}/")))).collect();
    // Docker's client without BuildKit does not look into folders that only a pattern with
    // `**` could bring back; with BuildKit it does.
    let but_vendor = |names: &BTreeSet<String>| names.iter().filter(|name| !name.starts_with("vendor/")).cloned().collect::<BTreeSet<_>>();
    assert_eq!(but_vendor(&ours), but_vendor(&docker));
    assert!(ours.contains("vendor/one/two/three.h") && ours.contains("src/deep/y.log") && !ours.contains("src/x.log"), "{ours:?}");
}

fn secrets() {
    import_base();
    let example = example();
    example.write("token", "s3cret-token");
    example.edit("Dockerfile", "RUN cat", "RUN --mount=type=secret,id=token cat /run/secrets/token > /seen\nRUN cat");
    example.edit("devloop.yaml", "        args:", "        secrets: [{ id: token, src: token }]\n        args:");
    let said = rebuild(&example, &["--dry-run"]).run();
    assert!(!said.stderr.contains("s3cret"), "{}", said.stderr);
    said.ok();
    example.edit("devloop.yaml", "src: token", "src: nowhere");
    example.write("version", "another");
    let error = rebuild(&example, &["--dry-run"]).run().fails_with(1);
    assert!(error.contains("token") && error.contains("nowhere"), "{error}");
}

fn classic() {
    import_base();
    let example = example();
    example.write("version", format!("classic on {}", current().name()));
    let service = report(rebuild(&example, &["-o", "json"]).env("DOCKER_BUILDKIT", "0").run());
    assert!(steps(&service).iter().any(|(name, _)| name.contains("RUN cat head.html")), "{service}");
    assert!(ask(&example, "/version").contains("classic on"));
    example.edit("Dockerfile", "EXPOSE 8080", "RUN echo the last words && exit 3");
    let error = rebuild(&example, &[]).env("DOCKER_BUILDKIT", "0").run().fails_with(1);
    assert!(error.contains("Dockerfile:14: ") && error.contains("exit code 3") && error.contains("\n  the last words"), "{error}");
}

fn interrupted() {
    import_base();
    for buildkit in ["1", "0"] {
        let example = example();
        // A number that no other program has. Not by a user's name: the base has no list of them.
        example.edit("Dockerfile", "COPY version", "RUN sleep 43219\nCOPY version");
        let mut running = rebuild(&example, &[]).env("DOCKER_BUILDKIT", buildkit).start();
        let sleeps = || {
            let numbers = std::fs::read_dir("/proc").unwrap().flatten();
            let lines = numbers.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
            // A shell may run its own sleep under its own name.
            lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains("sleep 43219")).count()
        };
        eventually("the step runs", Duration::from_secs(60), || {
            assert_eq!(running.child.try_wait().unwrap(), None, "the build ended by itself");
            if sleeps() > 0 { Ok(()) } else { Err("no sleep".to_owned()) }
        });
        running.signal(Signal::SIGINT);
        let status = running.child.wait().unwrap();
        assert!(!status.success(), "{status}");
        eventually("the engine ends the step", Duration::from_secs(30), || {
            if sleeps() == 0 { Ok(()) } else { Err("it still runs".to_owned()) }
        });
    }
}

fn no_engine() {
    let example = example();
    let nowhere = |more: &[&str]| rebuild(&example, more).env("DOCKER_HOST", "unix:///nowhere/docker.sock").run();
    let error = nowhere(&[]).fails_with(1);
    assert!(error.contains("could not build dockerfile-web") && error.contains("no Docker engine answers"), "{error}");
    assert!(error.contains("start Docker"), "{error}");
    example.edit("devloop.yaml", "        args:", "        builder: unix:///nowhere/buildkitd.sock\n        args:");
    let error = nowhere(&[]).fails_with(1);
    assert!(error.contains("the BuildKit daemon at unix:///nowhere/buildkitd.sock"), "{error}");
    std::fs::remove_file(example.folder.join("Dockerfile")).unwrap();
    let error = nowhere(&[]).fails_with(1);
    assert!(error.contains("there is no Dockerfile at"), "{error}");
    assert!(!example.kubectl(&["get", "deployment", "dockerfile-web"]).run().status.success());
}
