//! Java: a debug agent that it is started again with, and the development kit's own
//! debugger.

use super::{App, Stage, port};
use crate::clusters::Cluster;
use devloop_tests::dialogue::Dialogue;
use devloop_tests::example::Pod;
use devloop_tests::program::Program;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::thread::JoinHandle;

const JAVA: App = App { name: "java-web", file: "src/Web.java", statement: "exchange.sendResponseHeaders(200, length);" };

pub(super) fn restarts(cluster: Cluster, way: &'static str) {
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
    let mut debugger = jdb(&attached);
    let request = stop(&mut debugger, &stage, &pod);
    debugger.ask("locals", "length = 20");
    debugger.ask("next", &format!("Web.answer(), line={}", stage.line() + 1));
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

/// The debugger comes back to a machine that was started again in place, which waits for
/// who stands at a breakpoint.
pub(super) fn anew(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way, JAVA);
    let (mut session, attached) = stage.attach(&["--restart"]);
    stage.example.rolled_out();
    let pod = stage.example.pod();
    let mut reload = stage.example.hot_reload(&["--via", way]);
    let mut debugger = jdb(&attached);
    let request = stop(&mut debugger, &stage, &pod);
    stage.example.edit(JAVA.file, "hello from java-web", "hello from java-web, anew");
    Program::new("javac").args(["-g", "-d", "classes", JAVA.file]).current_dir(&stage.example.folder).run().ok();
    let halted = reload.wait_for("halted");
    assert_eq!(halted["pods"], json!([pod.name]), "{halted}");
    // Stepping is not running.
    debugger.ask("next", &format!("Web.answer(), line={}", stage.line() + 1));
    debugger.tell("cont");
    let body = request.join().unwrap().unwrap();
    assert!(!body.contains("anew"), "{body}");
    reload.wait_for("restarted");
    let again = session.wait_for("attached");
    assert_eq!(again["port"], attached["port"], "{again}");
    stage.serves(&pod, "anew");
    let mut debugger = jdb(&again);
    let request = stop(&mut debugger, &stage, &pod);
    debugger.tell("cont");
    stage.answers(request);
    drop(debugger);
    assert!(reload.end(Signal::SIGINT).success());
    assert!(session.end(Signal::SIGINT).success());
}

/// Attaches the development kit's debugger.
fn jdb(attached: &Value) -> Dialogue {
    let address = format!("com.sun.jdi.SocketAttach:hostname=127.0.0.1,port={}", port(attached));
    let mut debugger = Dialogue::start(Program::new("jdb").args(["-connect", &address]));
    debugger.hear("> ");
    debugger
}

/// Makes the app stop at the breakpoint.
#[track_caller]
fn stop(debugger: &mut Dialogue, stage: &Stage, pod: &Pod) -> JoinHandle<Result<String, String>> {
    debugger.ask(&format!("stop at Web:{}", stage.line()), "Set breakpoint Web");
    let request = stage.ask(pod);
    debugger.hear(&format!("Web.answer(), line={}", stage.line()));
    request
}
