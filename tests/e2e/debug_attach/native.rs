//! `kubectl debug-attach` on Rust and C++: stripped, in images from scratch, not root;
//! the C++ one with a root that can't be written. With LLDB's own adapter.

use super::{Extent, Test, live};
use crate::clusters::Cluster;
use crate::shared;
use devloop_tests::dap::Dap;
use devloop_tests::example::{Example, Pod};
use devloop_tests::proxy::Proxy;
use devloop_tests::session::Session;
use devloop_tests::{container, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// An example, and what of it is debugged.
#[derive(Clone, Copy, Debug)]
struct Subject {
    name: &'static str,
    /// What begins the name of its runtime.
    runtime: &'static str,
    file: &'static str,
    /// On the line of the breakpoint.
    statement: &'static str,
    /// What leads there.
    path: &'static str,
    /// A variable there, and what its value has in it.
    variable: (&'static str, &'static str),
    /// One of the caller.
    outer: (&'static str, &'static str),
}

const RUST: Subject = Subject {
    name: "shop",
    runtime: "Rust 1.",
    file: "src/reply.rs",
    statement: r#"Self::new(status, "application/json""#,
    path: "/api/version",
    variable: ("status", "200"),
    // As rustc's own pretty printers show it.
    outer: ("path", "\"/api/version\""),
};

const CPP: Subject = Subject {
    name: "cpp-web",
    runtime: "C/C++, GCC",
    file: "main.cpp",
    statement: r#"reply("200 OK", greeting)"#,
    path: "/version",
    variable: ("greeting", "hello from cpp-web"),
    outer: ("connection", ""),
};

pub(super) fn add(add: &mut impl FnMut(&str, Test), way: &str, extent: Extent) {
    add("shop_stops_at_its_local_path_and_runs_on", |cluster, way| breakpoint(cluster, way, RUST));
    add("cpp_web_stops_at_its_local_path_and_runs_on", |cluster, way| breakpoint(cluster, way, CPP));
    if way == "api" {
        add("a_restricted_namespace_is_respected_by_lldb", restricted);
    }
    if extent == Extent::Full {
        add("whatever_ends_lldb_the_app_runs_on", ends);
    }
    if extent >= Extent::Nodes && way == "node" {
        add("rust_is_swapped_under_lldb", swap);
    }
}

/// An example, deployed.
struct Stage {
    example: Example,
    proxy: Proxy,
    subject: Subject,
    way: &'static str,
}

impl Stage {
    fn new(cluster: Cluster, way: &'static str, subject: Subject) -> Self {
        let environment = shared();
        let namespace = format!("debug-{}-{way}", subject.name);
        environment.kubectl(["delete", "namespace", &namespace, "--ignore-not-found"]).run().ok();
        let example = Example::copy(&environment, subject.name, &namespace);
        if subject.name == RUST.name {
            example.edit("Cargo.toml", "debug = \"line-tables-only\"", "debug = true");
        } else {
            // A probe must not come upon the breakpoints that are meant for the test.
            example.edit("k8s/cpp-web.yaml", "path: /version", "path: /");
        }
        example.deploy(&cluster.needs().environment());
        Self { example, proxy: Proxy::start(&environment), subject, way }
    }

    fn program(&self, more: &[&str]) -> devloop_tests::program::Program {
        let (context, folder) = (self.example.environment.context(), self.example.folder.display().to_string());
        let target = format!("deploy/{}", self.subject.name);
        let own = [&target, "--context", &context, "-n", &self.example.namespace, "--via", self.way, "--sources", &folder];
        self.example.environment.plugin("kubectl-debug_attach", own.iter().chain(more))
    }

    fn attach(&self) -> (Session, Value) {
        let mut session = Session::launch(self.program(&["-o", "json", "--editor", "none"]));
        let attached = session.wait_for("attached");
        (session, attached)
    }

    fn file(&self) -> PathBuf {
        self.example.folder.join(self.subject.file)
    }

    fn line(&self) -> usize {
        let text = std::fs::read_to_string(self.file()).unwrap();
        1 + text.lines().position(|line| line.contains(self.subject.statement)).unwrap()
    }

    /// Asks the app, in its own time.
    fn ask(&self, pod: &Pod) -> JoinHandle<Result<String, String>> {
        let (environment, namespace, pod) = (self.example.environment.clone(), self.example.namespace.clone(), pod.name.clone());
        let path = self.subject.path;
        std::thread::spawn(move || {
            let answer = Proxy::start(&environment).get(&namespace, &pod, path).map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
        })
    }

    /// Attaches an editor, and makes the app stop at the breakpoint.
    #[track_caller]
    fn stop(&self, pod: &Pod, attached: &Value) -> (Dap, u64, Value, JoinHandle<Result<String, String>>) {
        let port = u16::try_from(attached["port"].as_u64().unwrap()).unwrap();
        Dap::stop(port, &self.file(), self.line(), || self.ask(pod))
    }

    /// The app answers, is the same process as before, and nobody traces it.
    #[track_caller]
    fn runs_on(&self, before: &Pod) {
        // More than once: a breakpoint that was left would end it.
        for _ in 0..3 {
            eventually("the app answers", SOON, || {
                let path = self.subject.path;
                let answer = self.proxy.get(&self.example.namespace, &before.name, path).map_err(|error| error.to_string())?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
            });
        }
        assert_eq!(&self.example.pod(), before, "the container was restarted");
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

fn breakpoint(cluster: Cluster, way: &'static str, subject: Subject) {
    let stage = Stage::new(cluster, way, subject);
    let pod = stage.example.pod();
    let (mut session, attached) = stage.attach();
    assert_eq!(attached["via"], way, "{attached}");
    assert!(attached["runtime"].as_str().unwrap().starts_with(subject.runtime), "{attached}");
    assert!(attached.get("stoppedMs").is_none(), "{attached}");
    // Without an editor nothing stops it.
    assert!(stage.ask(&pod).join().unwrap().is_ok());
    let (mut editor, thread, frame, request) = stage.stop(&pod, &attached);
    assert!(session.wait_for("joined")["stoppedMs"].as_f64().unwrap() > 0.0);
    assert_eq!(frame["source"]["path"].as_str(), stage.file().to_str(), "{frame}");
    assert_eq!(frame["line"], stage.line(), "{frame}");
    let value = editor.variable(&frame, subject.variable.0);
    assert!(value["value"].as_str().unwrap().contains(subject.variable.1), "{value}");
    let stack = editor.ask("stackTrace", json!({"threadId": thread, "startFrame": 1, "levels": 1}));
    let value = editor.variable(&stack["stackFrames"][0], subject.outer.0);
    assert!(value["value"].as_str().unwrap().contains(subject.outer.1), "{value}");
    let after = editor.next_line(thread, stage.line());
    assert_eq!(after["line"], stage.line() + 1, "{after}");
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().is_ok());
    // An editor that asks to kill the app doesn't, and its breakpoint goes with it.
    editor.ask("disconnect", json!({"terminateDebuggee": true}));
    session.wait_for("left");
    assert!(stage.ask(&pod).join().unwrap().is_ok());
    // So does that of one that vanishes while the app is stopped.
    let (editor, _, _, request) = stage.stop(&pod, &attached);
    drop(editor);
    session.wait_for("left");
    assert!(request.join().unwrap().is_ok());
    assert!(session.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
}

fn ends(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, CPP);
    let pod = stage.example.pod();
    // Each time while the app is stopped at a breakpoint.
    for signal in [Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM] {
        let (session, attached) = stage.attach();
        let (_editor, _, _, request) = stage.stop(&pod, &attached);
        let status = session.end(signal);
        assert_eq!(status.success(), signal != Signal::SIGKILL, "{signal}: {status}");
        assert!(request.join().unwrap().is_ok(), "{signal}");
        stage.runs_on(&pod);
    }
    // And while it runs, with a breakpoint in its code.
    let (session, attached) = stage.attach();
    let mut editor = Dap::connect(u16::try_from(attached["port"].as_u64().unwrap()).unwrap());
    editor.attach(&stage.file(), stage.line());
    session.end(Signal::SIGKILL);
    stage.runs_on(&pod);
    // Somebody kills gdbserver, with a breakpoint in the app's code.
    let (mut session, attached) = stage.attach();
    let mut editor = Dap::connect(u16::try_from(attached["port"].as_u64().unwrap()).unwrap());
    editor.attach(&stage.file(), stage.line());
    let process = container::process(&pod.container).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok()).filter(|pid| *pid > 0);
    kill(Pid::from_raw(tracer.unwrap()), Signal::SIGKILL).unwrap();
    drop(editor);
    session.wait_for("left");
    // Until the agent has taken the breakpoint out, nobody handles it.
    std::thread::sleep(Duration::from_secs(1));
    stage.runs_on(&pod);
    // The next editor finds all as it was.
    let (mut editor, thread, _, request) = stage.stop(&pod, &attached);
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().is_ok());
    session.end(Signal::SIGINT);
    stage.runs_on(&pod);
}

/// New code waits for who stands at a breakpoint, and the debugger comes back to it.
fn swap(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, RUST);
    let pod = stage.example.pod();
    let greet = |from: &str, to: &str| stage.example.edit("src/greeting.rs", from, to);
    let mut reload = stage.example.hot_reload(&["--via", way]);
    greet("hello from shop", "the first greeting");
    reload.wait_until("swap to what was saved", |event| event["event"] == "swapped" && event["generation"].is_u64());
    let (mut session, attached) = stage.attach();
    let (mut editor, thread, _, request) = stage.stop(&pod, &attached);
    greet("the first greeting", "the second greeting");
    reload.wait_for("halted");
    // The line has several places in the code.
    editor.next_line(thread, stage.line());
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains("the first greeting"));
    reload.wait_for("swapped");
    live::starts_over(editor, &mut session, true, &attached);
    let (mut editor, thread, frame, request) = stage.stop(&pod, &attached);
    assert_eq!(frame["line"], stage.line(), "{frame}");
    editor.next_line(thread, stage.line());
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains("the second greeting"));
    drop(editor);
    session.wait_for("left");
    // Nobody is connected, and nothing is in the way of the undoing.
    assert!(reload.end(Signal::SIGINT).success());
    session.wait_for("attached");
    assert!(session.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
}

/// Nothing that the level `restricted` forbids is asked for.
fn restricted(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, CPP);
    let pod = stage.example.pod();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    stage.example.environment.kubectl(["label", "namespace", &stage.example.namespace, label]).run().ok();
    let (session, attached) = stage.attach();
    let (mut editor, thread, frame, request) = stage.stop(&pod, &attached);
    assert_eq!(frame["line"], stage.line(), "{frame}");
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().is_ok());
    session.end(Signal::SIGINT);
    stage.runs_on(&pod);
}
