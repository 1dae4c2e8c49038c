//! `kubectl debug-attach` on the Go example: from scratch, not root, with a root
//! that can't be written. With a real debugger and a real client of it. Other runtimes
//! have files of their own.

mod interpreted;
mod live;
mod native;
mod tools;
mod trace;

use crate::clusters::Cluster;
use crate::{Named, shared};
use devloop_tests::dap::Dap;
use devloop_tests::example::{Example, Pod};
use devloop_tests::proxy::Proxy;
use devloop_tests::session::Session;
use devloop_tests::toolbox::IMAGE;
use devloop_tests::{container, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const GREETING: &str = "hello from go-web";
/// The statement that answers a request, and the one after it.
const STATEMENT: &str = "fmt.Fprintln(answer, greeting)";

/// On a cluster, in a way to the container.
type Test = fn(Cluster, &'static str);

/// What is particular to a way is tested once in full, on the embedded cluster; what
/// nodes make of it, on kind by its node; and that it works at all, everywhere.
pub(crate) fn cases(cluster: Cluster) -> Vec<Named> {
    let mut cases = Vec::new();
    for way in ways(cluster).iter().copied() {
        let mut add = |name: &str, test: Test| {
            cases.push(Named::new(format!("debug_attach::by_{way}::{name}"), move || test(cluster, way)));
        };
        add("a_breakpoint_by_its_local_path_is_hit_and_left", breakpoint);
        if way == "api" {
            add("a_restricted_namespace_is_respected", restricted);
        }
        let extent = Extent::of(cluster, way);
        if extent >= Extent::Nodes {
            add("whatever_ends_it_the_app_runs_on", ends);
            add("breakpoints_outlive_a_swap_which_waits_for_them", live::swaps);
        }
        if extent == Extent::Full {
            add("it_is_an_editors_adapter_on_stdin", stdio);
            add("what_blocks_is_named", faults);
            trace::add(&mut add);
            add("what_takes_the_place_of_the_process_is_attached_to", live::replaced);
            if way == "node" {
                add("probes_that_would_end_it_are_paused", live::probes);
            }
        }
        tools::add(&mut add, extent);
        // Of several nodes, one has the process, and through nothing but the API it is as by
        // that of any cluster.
        if matches!(cluster, Cluster::Embedded | Cluster::Kind) {
            interpreted::add(&mut add, way, extent);
            native::add(&mut add, way, extent);
        }
    }
    cases
}

/// The ways to a container that a cluster has.
fn ways(cluster: Cluster) -> &'static [&'static str] {
    match cluster {
        Cluster::Embedded | Cluster::Kind => &["node", "api"],
        Cluster::Kind3 => &["node"],
        Cluster::Api => &["api"],
    }
}

/// How much of a way is tested on a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// That it works.
    Basic,
    /// What nodes may make a difference to: signals, files and processes of theirs.
    Nodes,
    /// All that is particular to it.
    Full,
}

impl Extent {
    fn of(cluster: Cluster, way: &str) -> Self {
        match cluster {
            Cluster::Embedded => Self::Full,
            Cluster::Kind if way == "node" => Self::Nodes,
            Cluster::Kind | Cluster::Kind3 | Cluster::Api => Self::Basic,
        }
    }
}

/// The example, deployed.
struct Stage {
    example: Example,
    proxy: Proxy,
    way: &'static str,
}

impl Stage {
    fn new(cluster: Cluster, way: &'static str) -> Self {
        let environment = shared();
        let namespace = format!("debug-{way}");
        environment.kubectl(["delete", "namespace", &namespace, "--ignore-not-found"]).run().ok();
        let example = Example::copy(&environment, "go-web", &namespace);
        // A probe must not come upon the breakpoints that are meant for the test.
        example.edit("k8s/go-web.yaml", "path: /version", "path: /");
        example.deploy(&cluster.needs().environment());
        Self { example, proxy: Proxy::start(&environment), way }
    }

    fn program(&self, more: &[&str]) -> devloop_tests::program::Program {
        let (context, folder) = (self.example.environment.context(), self.example.folder.display().to_string());
        let own = ["deploy/go-web", "--context", &context, "-n", &self.example.namespace, "--via", self.way, "--sources", &folder];
        self.example.environment.plugin("kubectl-debug_attach", own.iter().chain(more))
    }

    /// Attaches; answers the session and what it said.
    fn attach(&self, more: &[&str]) -> (Session, Value) {
        let arguments: Vec<&str> = ["-o", "json", "--editor", "none"].iter().chain(more).copied().collect();
        let mut session = Session::launch(self.program(&arguments));
        let attached = session.wait_for("attached");
        (session, attached)
    }

    fn file(&self) -> PathBuf {
        self.example.folder.join("cmd/web/main.go")
    }

    /// The line of the statement that answers a request.
    fn line(&self) -> usize {
        let text = std::fs::read_to_string(self.file()).unwrap();
        1 + text.lines().position(|line| line.contains(STATEMENT)).unwrap()
    }

    /// Asks the app, in its own time.
    fn ask(&self, pod: &Pod) -> JoinHandle<Result<String, String>> {
        let (environment, namespace, pod) = (self.example.environment.clone(), self.example.namespace.clone(), pod.name.clone());
        std::thread::spawn(move || {
            let proxy = Proxy::start(&environment);
            let answer = proxy.get(&namespace, &pod, "/version").map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
        })
    }

    /// The app answers, is the same process as before, and nobody traces it.
    #[track_caller]
    fn runs_on(&self, before: &Pod) {
        eventually("the app answers", SOON, || {
            let answer = self.proxy.get(&self.example.namespace, &before.name, "/version").map_err(|error| error.to_string())?;
            if answer.status == 200 && answer.body.contains(GREETING) { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        assert_eq!(&self.example.pod(), before, "the container was restarted");
        // The nodes of all of these are processes of this machine.
        let process = container::process(&before.container).unwrap();
        eventually("nobody traces the app", SOON, || {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).map_err(|error| error.to_string())?;
            if status.contains("TracerPid:\t0\n") && !status.contains("State:\tT") { Ok(()) } else { Err(status) }
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.example.remove();
    }
}

fn port(attached: &Value) -> u16 {
    u16::try_from(attached["port"].as_u64().unwrap()).unwrap()
}

/// Attaches an editor, and makes the app stop at the breakpoint.
#[track_caller]
fn stop(stage: &Stage, pod: &Pod, port: u16) -> (Dap, u64, Value, JoinHandle<Result<String, String>>) {
    Dap::stop(port, &stage.file(), stage.line(), || stage.ask(pod))
}

fn breakpoint(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let (session, attached) = stage.attach(&[]);
    assert_eq!((attached["via"].as_str(), attached["container"].as_str()), (Some(way), Some("web")), "{attached}");
    assert!(attached["runtime"].as_str().unwrap().starts_with("Go 1."), "{attached}");
    assert_eq!(attached["substitutePath"][0]["remote"], "example.com/go-web", "{attached}");
    assert_eq!(attached["sourcesFound"], attached["sourcesAll"], "{attached}");
    // A port that accepts is not enough: the app answers while the debugger is there.
    assert!(stage.ask(&pod).join().unwrap().unwrap().contains(GREETING));
    let (mut editor, thread, frame, request) = stop(&stage, &pod, port(&attached));
    assert_eq!(frame["source"]["path"].as_str(), stage.file().to_str(), "{frame}");
    assert_eq!(frame["line"], stage.line(), "{frame}");
    let answer = editor.variable(&frame, "answer");
    assert!(answer["value"].as_str().unwrap().contains("net/http"), "{answer}");
    editor.ask("next", json!({"threadId": thread}));
    let (_, after) = editor.stopped("step");
    assert_eq!(after["line"], stage.line() + 1, "{after}");
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains(GREETING));
    // An editor that asks to kill the app doesn't, and its breakpoint goes with it.
    editor.send("disconnect", json!({"terminateDebuggee": true}));
    let mut session = session;
    assert_eq!(session.wait_for("left")["breakpoints"], 1);
    assert!(stage.ask(&pod).join().unwrap().unwrap().contains(GREETING));
    // So does that of one that vanishes while the app is stopped.
    let (editor, _, _, request) = stop(&stage, &pod, port(&attached));
    drop(editor);
    assert_eq!(session.wait_for("left")["breakpoints"], 1);
    assert!(request.join().unwrap().unwrap().contains(GREETING));
    assert!(session.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
    // The same port the next time, and the same ephemeral container.
    let (session, again) = stage.attach(&[]);
    assert_eq!((&again["port"], &again["ephemeral"]), (&attached["port"], &attached["ephemeral"]));
    assert_eq!(again["ephemeral"].is_string(), way == "api", "{again}");
    session.end(Signal::SIGINT);
    stage.runs_on(&pod);
}

fn ends(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    // Each time while the app is stopped at a breakpoint.
    for signal in [Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM] {
        let (session, attached) = stage.attach(&[]);
        let (_editor, _, _, request) = stop(&stage, &pod, port(&attached));
        let status = session.end(signal);
        assert_eq!(status.success(), signal != Signal::SIGKILL, "{signal}: {status}");
        assert!(request.join().unwrap().unwrap().contains(GREETING), "{signal}");
        stage.runs_on(&pod);
    }
    // Somebody kills the debugger, with a breakpoint in the app's code.
    let (mut session, attached) = stage.attach(&[]);
    let mut editor = Dap::connect(port(&attached));
    editor.attach(&stage.file(), stage.line());
    let process = container::process(&pod.container).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok()).filter(|pid| *pid > 0);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(tracer.unwrap()), Signal::SIGKILL).unwrap();
    let status = eventually("the session ends", SOON, || session.running.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
    assert_eq!(status.code(), Some(1), "{}", session.describe());
    stage.runs_on(&pod);
    // The pod goes away under the debugger's hands, stopped as it is.
    let (mut session, attached) = stage.attach(&["--once"]);
    let (_editor, _, _, _request) = stop(&stage, &pod, port(&attached));
    stage.example.kubectl(&["delete", "pod", &pod.name, "--timeout=60s"]).run().ok();
    let status = eventually("the session ends", Duration::from_secs(60), || {
        session.skip();
        session.running.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(status.code(), Some(1), "{}", session.describe());
    stage.example.rolled_out();
    stage.runs_on(&stage.example.pod());
}

fn stdio(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let mut running = stage.program(&["--dap-stdio"]).input("").start();
    let mut editor = Dap::over(running.child.stdout.take().unwrap(), running.child.stdin.take().unwrap());
    editor.attach(&stage.file(), stage.line());
    let request = stage.ask(&pod);
    let (thread, frame) = editor.stopped("breakpoint");
    assert_eq!(frame["source"]["path"].as_str(), stage.file().to_str(), "{frame}");
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains(GREETING));
    editor.ask("disconnect", json!({}));
    let status = eventually("the command ends", SOON, || running.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
    assert!(status.success(), "{status}");
    stage.runs_on(&pod);
}

fn faults(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let planned = stage.program(&["--dry-run"]).run().ok();
    assert!(planned.contains("would stop the process for the moment of attaching"), "{planned}");
    let listed: Value = serde_json::from_str(&stage.program(&["--list", "-o", "json"]).run().ok()).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!((&listed[0]["pid"], &listed[0]["chosen"], &listed[0]["symbols"]), (&json!(1), &json!(true), &json!(true)), "{listed}");
    let error = stage.program(&["-c", "nobody"]).run().fails_with(1);
    assert!(error.contains("its containers: web"), "{error}");
    let error = stage.program(&["--pid", "4711"]).run().fails_with(1);
    assert!(error.contains("has no process 4711"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = stage.program(&["--port", &taken.local_addr().unwrap().port().to_string()]).run().fails_with(1);
    assert!(error.contains("can't be opened") && error.contains("--port"), "{error}");
    // A second debugger, beside one that stays as it is.
    let (session, attached) = stage.attach(&[]);
    let error = stage.program(&[]).run().fails_with(1);
    assert!(error.contains("another debugger is attached") && error.contains("dlv"), "{error}");
    let (mut editor, thread, _, request) = stop(&stage, &pod, port(&attached));
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains(GREETING));
    session.end(Signal::SIGINT);
    stage.runs_on(&pod);
    // What can't be attached to is named.
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: sleeper, namespace: {}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, args: [\"-c\", \"sleep 3600; true\"]}}]\n",
        stage.example.namespace
    );
    stage.example.environment.apply_manifest(&manifest);
    stage.example.kubectl(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]).run().ok();
    let context = stage.example.environment.context();
    let arguments = ["pod/sleeper", "--context", &context, "-n", &stage.example.namespace, "--via", way];
    let error = stage.example.environment.plugin("kubectl-debug_attach", arguments).run().fails_with(1);
    assert!(error.contains("can't be attached to"), "{error}");
}

/// Nothing that the level `restricted` forbids is asked for.
fn restricted(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    stage.example.environment.kubectl(["label", "namespace", &stage.example.namespace, label]).run().ok();
    let (session, attached) = stage.attach(&[]);
    let (mut editor, thread, frame, request) = stop(&stage, &pod, port(&attached));
    assert_eq!(frame["line"], stage.line(), "{frame}");
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains(GREETING));
    session.end(Signal::SIGINT);
    stage.runs_on(&pod);
}
