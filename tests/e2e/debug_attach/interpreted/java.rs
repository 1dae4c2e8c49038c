//! Java: a debug agent that it is started again with, and the development kit's own
//! debugger.

use super::{App, Stage, port};
use crate::clusters::Cluster;
use devloop_tests::dialogue::Dialogue;
use devloop_tests::program::Program;
use nix::sys::signal::Signal;

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
    let address = format!("com.sun.jdi.SocketAttach:hostname=127.0.0.1,port={}", port(&attached));
    let mut debugger = Dialogue::start(Program::new("jdb").args(["-connect", &address]));
    debugger.hear("> ");
    debugger.ask(&format!("stop at Web:{}", stage.line()), "Set breakpoint Web");
    let request = stage.ask(&pod);
    debugger.hear(&format!("Web.answer(), line={}", stage.line()));
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
