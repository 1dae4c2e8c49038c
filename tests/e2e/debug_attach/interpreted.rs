//! `kubectl debug-attach` on Python, Node and Java, with real clients of their
//! debuggers.

use super::{Test, live};
use crate::clusters::Cluster;
use crate::shared;
use devloop_tests::dap::Dap;
use devloop_tests::example::{Example, Pod};
use devloop_tests::inspector::Inspector;
use devloop_tests::program::{Program, Running};
use devloop_tests::proxy::Proxy;
use devloop_tests::session::Session;
use devloop_tests::{container, eventually, free_port};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// An example, and where the app is to stop.
#[derive(Clone, Copy)]
struct App {
    name: &'static str,
    file: &'static str,
    /// A statement that runs for each request of the test's, and for no probe.
    statement: &'static str,
}

const PYTHON: App = App { name: "python-web", file: "src/app.py", statement: "self.send_response(200)" };
const NODE: App = App { name: "node-web", file: "src/server.js", statement: "response.end(`${greeting}" };
const JAVA: App = App { name: "java-web", file: "src/Web.java", statement: "exchange.sendResponseHeaders(200, length);" };

pub(super) fn add(add: &mut impl FnMut(&str, Test), way: &str, in_full: bool) {
    add("python_stops_at_a_breakpoint_and_runs_on", python);
    if in_full {
        add("python_starts_anew_under_its_debugger_once_it_runs_on", python_anew);
    }
    add("node_stops_at_a_breakpoint_and_its_inspector_is_closed", node);
    if in_full {
        add("node_starts_anew_once_it_runs_on", node_anew);
    }
    if way == "node" && in_full {
        add("a_supervised_program_starts_anew_once_it_runs_on", supervised_anew);
    }
    add("java_is_started_again_for_a_debugger_and_once_more", java);
}

/// The example, deployed.
struct Stage {
    app: App,
    example: Example,
    way: &'static str,
}

impl Stage {
    fn new(cluster: Cluster, way: &'static str, app: App) -> Self {
        let environment = shared();
        let namespace = format!("debug-{}-{way}", app.name);
        environment.kubectl(["delete", "namespace", &namespace, "--ignore-not-found"]).run().ok();
        let example = Example::copy(&environment, app.name, &namespace);
        let manifest = format!("k8s/{}.yaml", app.name);
        if std::fs::read_to_string(example.folder.join(&manifest)).unwrap().contains("path: /version") {
            // A probe must not come upon the breakpoints that are meant for the test.
            example.edit(&manifest, "path: /version", "path: /");
        }
        example.deploy(&cluster.needs().environment());
        Self { app, example, way }
    }

    fn program(&self, more: &[&str]) -> Program {
        let (context, folder) = (self.example.environment.context(), self.example.folder.display().to_string());
        let target = format!("deploy/{}", self.app.name);
        let own = [&target, "--context", &context, "-n", &self.example.namespace, "--via", self.way, "--sources", &folder];
        self.example.environment.plugin("kubectl-debug_attach", own.iter().chain(more))
    }

    /// Attaches; answers the session and what it said.
    fn attach(&self, more: &[&str]) -> (Session, Value) {
        let arguments: Vec<&str> = ["-o", "json", "--editor", "none"].iter().chain(more).copied().collect();
        let mut session = Session::launch(self.program(&arguments));
        let attached = session.wait_for("attached");
        assert_eq!(attached["via"].as_str(), Some(self.way), "{attached}");
        (session, attached)
    }

    fn file(&self) -> PathBuf {
        self.example.folder.join(self.app.file)
    }

    /// The line of the statement.
    fn line(&self) -> usize {
        let text = std::fs::read_to_string(self.file()).unwrap();
        1 + text.lines().position(|line| line.contains(self.app.statement)).unwrap()
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

    #[track_caller]
    fn answers(&self, request: JoinHandle<Result<String, String>>) {
        let body = request.join().unwrap().unwrap();
        assert!(body.contains(&format!("hello from {}", self.app.name)), "{body}");
    }

    /// The app answers, is the same process as before, and nobody traces it.
    #[track_caller]
    fn runs_on(&self, before: &Pod) {
        self.answers(self.ask(before));
        assert_eq!(&self.example.pod(), before, "the container was restarted");
        let status = std::fs::read_to_string(format!("/proc/{}/status", container::process(&before.container).unwrap())).unwrap();
        assert!(status.contains("TracerPid:\t0\n") && !status.contains("State:\tT"), "{status}");
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

fn python(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, PYTHON);
    let pod = stage.example.pod();
    let (mut session, attached) = stage.attach(&[]);
    assert!(attached["runtime"].as_str().unwrap().starts_with("Python 3."), "{attached}");
    assert_eq!(
        (&attached["sourcesFound"], &attached["substitutePath"][0]["remote"]),
        (&attached["sourcesAll"], &json!("/app")),
        "{attached}"
    );
    stage.answers(stage.ask(&pod));
    // An editor that says that it goes, and one that vanishes.
    for is_polite in [true, false] {
        let (mut editor, thread, frame, request) = stop_python(&stage, &pod, port(&attached));
        assert_eq!(
            (frame["source"]["path"].as_str(), frame["line"].as_u64()),
            (stage.file().to_str(), Some(stage.line() as u64)),
            "{frame}"
        );
        let body = editor.variable(&frame, "body");
        assert!(body["value"].as_str().unwrap().contains("hello from python-web"), "{body}");
        editor.ask("next", json!({"threadId": thread}));
        let (_, after) = editor.stopped("step");
        assert_eq!(after["line"], stage.line() + 1, "{after}");
        if is_polite {
            editor.ask("continue", json!({"threadId": thread}));
            // One that asks to kill the app doesn't.
            editor.send("disconnect", json!({"terminateDebuggee": true}));
        }
        drop(editor);
        stage.answers(request);
        session.wait_for("left");
    }
    assert!(session.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
    // What was put there is used again; and the command is killed with the app stopped.
    let (session, again) = stage.attach(&[]);
    assert_eq!((&again["port"], &again["stoppedMs"]), (&attached["port"], &json!(0.0)), "{again}");
    let (_editor, _, _, request) = stop_python(&stage, &pod, port(&again));
    session.end(Signal::SIGKILL);
    stage.answers(request);
    stage.runs_on(&pod);
    // As an editor's adapter.
    let mut running = stage.program(&["--dap-stdio"]).input("").start();
    let mut editor = Dap::over(running.child.stdout.take().unwrap(), running.child.stdin.take().unwrap());
    editor.attach(&stage.file(), stage.line());
    let request = stage.ask(&pod);
    let (thread, _) = editor.stopped("breakpoint");
    editor.ask("continue", json!({"threadId": thread}));
    stage.answers(request);
    editor.send("disconnect", json!({}));
    drop(editor);
    let status = eventually("the command ends", SOON, || running.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
    assert!(status.success(), "{status}");
    stage.runs_on(&pod);
    python_prompt(&stage, &pod);
}

/// By the command line, as a terminal would have it.
fn python_prompt(stage: &Stage, pod: &Pod) {
    let port = free_port().to_string();
    let mut running = stage.program(&["--cli", "--port", &port, "--editor", "none"]).input("").start();
    let (mut stdin, mut stdout) = (running.child.stdin.take().unwrap(), BufReader::new(running.child.stdout.take().unwrap()));
    let mut said = String::new();
    let mut say = |words: &str, answer: &str| {
        writeln!(stdin, "{words}").unwrap();
        said.clear();
        while !said.contains(answer) {
            assert_ne!(stdout.read_line(&mut said).unwrap(), 0, "{words}: {said}");
        }
        said.clone()
    };
    let at = format!("{}:{}", stage.file().display(), stage.line());
    say("n", "*** the process runs");
    say("b nothing.py:1", "No such file");
    say(&format!("b {at}"), &format!("Breakpoint 1 at {at}"));
    let request = stage.ask(pod);
    say("c", &format!("-> {}", stage.app.statement));
    say("p self.path", "'/version'");
    say("!number = 40 + 2", "");
    say("p number + 1", "43");
    say("nonsense", "NameError");
    assert!(say("w", "> ").contains("process_request_thread"));
    say("u", "handle_one_request");
    say("d", &format!("({}) do_GET", stage.line()));
    say("d", "*** this is the newest frame");
    say("l", &format!("{:>4} B->", stage.line()));
    say("n", &format!("({}) do_GET", stage.line() + 1));
    say("cl", "");
    for _ in 0..2 {
        // Ctrl-C, while it waits.
        let line = format!("__prompt {port}");
        let halts = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            Program::new("pkill").args(["--signal", "INT", "--full", &line]).run().ok();
        });
        say("c", "> ");
        halts.join().unwrap();
    }
    say("q", "");
    stage.answers(request);
    let status = eventually("the command ends", SOON, || running.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
    assert!(status.success(), "{status}");
    stage.runs_on(pod);
}

/// Attaches an editor, and makes the app stop at the breakpoint.
#[track_caller]
fn stop_python(stage: &Stage, pod: &Pod, port: u16) -> (Dap, u64, Value, JoinHandle<Result<String, String>>) {
    let mut editor = Dap::connect(port);
    editor.attach(&stage.file(), stage.line());
    let request = stage.ask(pod);
    let (thread, frame) = editor.stopped("breakpoint");
    (editor, thread, frame, request)
}

/// The debugger comes back to a program that was started again in place, which waits for
/// who stands at a breakpoint.
fn python_anew(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, PYTHON);
    let pod = stage.example.pod();
    let mut reload = stage.example.hot_reload(&["--via", way]);
    let (mut session, attached) = stage.attach(&[]);
    let (mut editor, thread, _, request) = stop_python(&stage, &pod, port(&attached));
    editor.ask("continue", json!({"threadId": thread}));
    stage.answers(request);
    stage.example.edit("src/greeting.py", "hello from python-web", "hello from python-web, anew");
    reload.wait_for("restarted");
    live::starts_over(editor, &mut session, true, &attached);
    let (mut editor, thread, frame, request) = stop_python(&stage, &pod, port(&attached));
    assert_eq!(frame["line"], stage.line(), "{frame}");
    stage.example.edit("src/greeting.py", "anew", "once more");
    let halted = reload.wait_for("halted");
    assert_eq!(halted["pods"], json!([pod.name]), "{halted}");
    // Stepping is not running.
    editor.ask("next", json!({"threadId": thread}));
    editor.stopped("step");
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains("hello from python-web, anew"));
    reload.wait_for("restarted");
    live::starts_over(editor, &mut session, true, &attached);
    eventually("the new greeting", SOON, || match stage.ask(&pod).join().unwrap()? {
        body if body.contains("once more") => Ok(()),
        body => Err(body),
    });
    assert!(session.end(Signal::SIGINT).success());
    assert!(reload.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
}

/// A supervisor ends its program as little.
fn supervised_anew(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, PYTHON);
    let mut reload = stage.example.hot_reload(&["--via", way, "--supervise"]);
    let pod = stage.example.pod();
    let (mut session, attached) = stage.attach(&[]);
    let (mut editor, thread, _, request) = stop_python(&stage, &pod, port(&attached));
    stage.example.edit("src/greeting.py", "hello from python-web", "hello from python-web, supervised");
    reload.wait_for("halted");
    editor.ask("continue", json!({"threadId": thread}));
    let body = request.join().unwrap().unwrap();
    assert!(!body.contains("supervised"), "{body}");
    reload.wait_for("restarted");
    live::starts_over(editor, &mut session, false, &attached);
    eventually("the new greeting", SOON, || match stage.ask(&pod).join().unwrap()? {
        body if body.contains("supervised") => Ok(()),
        body => Err(body),
    });
    assert!(session.end(Signal::SIGINT).success());
    assert!(reload.end(Signal::SIGINT).success());
}

fn node_anew(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, NODE);
    let pod = stage.example.pod();
    let mut reload = stage.example.hot_reload(&["--via", way]);
    let (mut session, attached) = stage.attach(&[]);
    let mut tools = Inspector::connect(port(&attached));
    tools.ask("Debugger.enable", json!({}));
    tools.ask("Debugger.setBreakpointByUrl", json!({"url": "file:///app/src/server.js", "lineNumber": stage.line() - 1}));
    let request = stage.ask(&pod);
    tools.event("Debugger.paused");
    stage.example.edit("src/greeting.js", "hello from node-web", "hello from node-web, anew");
    let halted = reload.wait_for("halted");
    assert_eq!(halted["pods"], json!([pod.name]), "{halted}");
    tools.ask("Debugger.resume", json!({}));
    let body = request.join().unwrap().unwrap();
    assert!(!body.contains("anew"), "{body}");
    reload.wait_for("restarted");
    drop(tools);
    let again = session.wait_for("attached");
    assert_eq!(again["port"], attached["port"], "{again}");
    eventually("the new greeting", SOON, || match stage.ask(&pod).join().unwrap()? {
        body if body.contains("anew") => Ok(()),
        body => Err(body),
    });
    assert!(session.end(Signal::SIGINT).success());
    assert!(reload.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
}

fn node(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, NODE);
    let pod = stage.example.pod();
    let (mut session, attached) = stage.attach(&[]);
    assert_eq!(attached["runtime"], "Node", "{attached}");
    let rule = &attached["substitutePath"][0];
    let file = stage.file().display().to_string().replace(rule["local"].as_str().unwrap(), rule["remote"].as_str().unwrap());
    assert_eq!(file, "/app/src/server.js");
    for is_polite in [true, false] {
        let mut tools = Inspector::connect(port(&attached));
        tools.ask("Debugger.enable", json!({}));
        // Lines count from 0 there.
        let line = stage.line() - 1;
        let set = tools.ask("Debugger.setBreakpointByUrl", json!({"url": format!("file://{file}"), "lineNumber": line}));
        assert_eq!(set["locations"][0]["lineNumber"], line, "{set}");
        let request = stage.ask(&pod);
        let frame = tools.event("Debugger.paused")["callFrames"][0].clone();
        assert_eq!(frame["location"]["lineNumber"], line, "{frame}");
        let value = tools.ask("Debugger.evaluateOnCallFrame", json!({"callFrameId": frame["callFrameId"], "expression": "pathname"}));
        assert_eq!(value["result"]["value"], "/version", "{value}");
        tools.ask("Debugger.stepOver", json!({}));
        let after = tools.event("Debugger.paused")["callFrames"][0].clone();
        assert_eq!(after["location"]["lineNumber"], line + 1, "{after}");
        if is_polite {
            tools.ask("Debugger.resume", json!({}));
        }
        drop(tools);
        stage.answers(request);
        session.wait_for("left");
    }
    assert!(session.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
    // Nothing listens in the pod any more but the app.
    eventually("the inspector is closed", SOON, || {
        let process = container::process(&pod.container)?;
        let sockets = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).map_err(|error| error.to_string())?;
        if sockets.contains(":240D 00000000:0000 0A") { Err(sockets) } else { Ok(()) }
    });
}

fn java(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, JAVA);
    let template = || stage.example.kubectl(&["get", "deploy/java-web", "-o", "jsonpath={.spec.template}"]).run().ok();
    let before = template();
    let error = stage.program(&[]).run().fails_with(1);
    assert!(error.contains("can't be debugged as it is") && error.contains("--restart"), "{error}");
    assert_eq!(template(), before);
    let (mut session, attached) = stage.attach(&["--restart"]);
    assert!(attached["runtime"].as_str().unwrap().starts_with("JVM 17."), "{attached}");
    stage.example.rolled_out();
    let pod = stage.example.pod();
    stage.answers(stage.ask(&pod));
    let mut debugger = Jdb::attach(port(&attached));
    debugger.tell(&format!("stop at Web:{}", stage.line()), "Set breakpoint Web");
    let request = stage.ask(&pod);
    debugger.hear(&format!("Web.answer(), line={}", stage.line()));
    debugger.tell("locals", "length = 20");
    debugger.tell("next", &format!("Web.answer(), line={}", stage.line() + 1));
    // It vanishes with the app stopped.
    drop(debugger);
    stage.answers(request);
    session.wait_for("left");
    stage.runs_on(&pod);
    assert!(session.end(Signal::SIGINT).success());
    assert_eq!(template(), before);
    stage.example.rolled_out();
    stage.answers(stage.ask(&stage.example.pod()));
}

/// The debugger of the Java development kit; ended when dropped.
struct Jdb {
    running: Running,
    heard: std::sync::mpsc::Receiver<Vec<u8>>,
    /// What it said that was not waited for yet.
    said: String,
}

impl Jdb {
    fn attach(port: u16) -> Self {
        let address = format!("com.sun.jdi.SocketAttach:hostname=127.0.0.1,port={port}");
        let mut running = Program::new("jdb").args(["-connect", &address]).input("").start();
        let mut stdout = running.child.stdout.take().unwrap();
        let (heard_tx, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut piece) {
                if heard_tx.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut jdb = Self { running, heard, said: String::new() };
        jdb.hear("> ");
        jdb
    }

    /// Says something and waits for the answer.
    #[track_caller]
    fn tell(&mut self, line: &str, answer: &str) {
        writeln!(self.running.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.hear(answer);
    }

    #[track_caller]
    fn hear(&mut self, wanted: &str) {
        while !self.said.contains(wanted) {
            match self.heard.recv_timeout(SOON) {
                Ok(piece) => self.said.push_str(&String::from_utf8_lossy(&piece)),
                Err(error) => panic!("no {wanted:?} ({error}): {}", self.said),
            }
        }
        let end = self.said.find(wanted).unwrap() + wanted.len();
        self.said.drain(..end);
    }
}
