//! Python: its debug adapter, as an editor has it and by the command line.

use super::{App, SOON, Stage, port};
use crate::clusters::Cluster;
use crate::debug_attach::live;
use devloop_tests::dap::Dap;
use devloop_tests::dialogue::Dialogue;
use devloop_tests::example::Pod;
use devloop_tests::program::Program;
use devloop_tests::{eventually, free_port};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::thread::JoinHandle;
use std::time::Duration;

const PYTHON: App = App { name: "python-web", file: "src/app.py", statement: "self.send_response(200)" };
/// What the command line says when it waits for words, and when for the process.
const PROMPT: &str = "(debug) ";
const RUNS: &str = "The process runs.";

pub(super) fn stops(cluster: Cluster, way: &'static str) {
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
        let (mut editor, thread, frame, request) = stop(&stage, &pod, port(&attached));
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
    let (_editor, _, _, request) = stop(&stage, &pod, port(&again));
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
    prompt(&stage, &pod);
}

/// By the command line, as a terminal would have it.
fn prompt(stage: &Stage, pod: &Pod) {
    let port = free_port().to_string();
    let mut prompt = Dialogue::start(stage.program(&["--cli", "--port", &port, "--editor", "none"]));
    prompt.hear(PROMPT);
    let at = format!("{}:{}", stage.file().display(), stage.line());
    say(&mut prompt, "n", "*** the process runs");
    say(&mut prompt, "b nothing.py:1", "No such file");
    say(&mut prompt, &format!("b {at}"), &format!("Breakpoint 1 at {at}"));
    // What is asked of it before it waits may stop it before.
    prompt.ask("c", RUNS);
    let request = stage.ask(pod);
    let said = prompt.hear(PROMPT);
    assert!(said.contains(&format!("-> {}", stage.app.statement)), "{said}");
    say(&mut prompt, "p self.path", "'/version'");
    say(&mut prompt, "!number = 40 + 2", "");
    say(&mut prompt, "p number + 1", "43");
    say(&mut prompt, "nonsense", "NameError");
    // What takes its time is not waited for.
    prompt.tell("__import__('time').sleep(5)");
    let said = eventually("it is interrupted", SOON, || {
        interrupt(&port);
        prompt.heard(PROMPT, Duration::from_millis(200)).ok_or_else(|| "no prompt".to_owned())
    });
    assert!(said.contains("*** interrupted"), "{said}");
    let stack = prompt.ask("w", PROMPT);
    assert!(stack.contains("> ") && stack.contains("process_request_thread"), "{stack}");
    say(&mut prompt, "u", "handle_one_request");
    say(&mut prompt, "d", &format!("({}) do_GET", stage.line()));
    say(&mut prompt, "d", "*** this is the newest frame");
    say(&mut prompt, "l", &format!("{:>4} B->", stage.line()));
    say(&mut prompt, "n", &format!("({}) do_GET", stage.line() + 1));
    say(&mut prompt, "cl", "");
    for _ in 0..2 {
        prompt.ask("c", RUNS);
        interrupt(&port);
        let said = prompt.hear(PROMPT);
        assert!(said.contains("> "), "{said}");
    }
    prompt.tell("q");
    stage.answers(request);
    let status = prompt.ended();
    assert!(status.success(), "{status}");
    stage.runs_on(pod);
}

/// Ctrl-C.
fn interrupt(port: &str) {
    Program::new("pkill").args(["--signal", "INT", "--full", &format!("__prompt {port}")]).run().ok();
}

#[track_caller]
fn say(prompt: &mut Dialogue, words: &str, wanted: &str) {
    let said = prompt.ask(words, PROMPT);
    assert!(said.contains(wanted), "{words}: {said}");
}

/// Attaches an editor, and makes the app stop at the breakpoint.
#[track_caller]
fn stop(stage: &Stage, pod: &Pod, port: u16) -> (Dap, u64, Value, JoinHandle<Result<String, String>>) {
    Dap::stop(port, &stage.file(), stage.line(), || stage.ask(pod))
}

/// The debugger comes back to a program that was started again in place, which waits for
/// who stands at a breakpoint.
pub(super) fn anew(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, PYTHON);
    let pod = stage.example.pod();
    let mut reload = stage.example.hot_reload(&["--via", way]);
    let (mut session, attached) = stage.attach(&[]);
    let (mut editor, thread, _, request) = stop(&stage, &pod, port(&attached));
    editor.ask("continue", json!({"threadId": thread}));
    stage.answers(request);
    stage.example.edit("src/greeting.py", "hello from python-web", "hello from python-web, anew");
    reload.wait_for("restarted");
    live::starts_over(editor, &mut session, true, &attached);
    let (mut editor, thread, frame, request) = stop(&stage, &pod, port(&attached));
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
    stage.serves(&pod, "once more");
    assert!(session.end(Signal::SIGINT).success());
    assert!(reload.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
}

/// A supervisor ends its program as little.
pub(super) fn supervised(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, PYTHON);
    let mut reload = stage.example.hot_reload(&["--via", way, "--supervise"]);
    let pod = stage.example.pod();
    let (mut session, attached) = stage.attach(&[]);
    let (mut editor, thread, _, request) = stop(&stage, &pod, port(&attached));
    stage.example.edit("src/greeting.py", "hello from python-web", "hello from python-web, supervised");
    reload.wait_for("halted");
    editor.ask("continue", json!({"threadId": thread}));
    let body = request.join().unwrap().unwrap();
    assert!(!body.contains("supervised"), "{body}");
    reload.wait_for("restarted");
    live::starts_over(editor, &mut session, false, &attached);
    stage.serves(&pod, "supervised");
    assert!(session.end(Signal::SIGINT).success());
    assert!(reload.end(Signal::SIGINT).success());
}
