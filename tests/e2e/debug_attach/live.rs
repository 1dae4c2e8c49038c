//! `kubectl debug-attach` beside `kubectl hot-reload`: breakpoints outlive the code that
//! they were set in, and new code waits for who stands at one.

use super::{GREETING, SOON, Stage, port, stop};
use crate::clusters::Cluster;
use devloop_tests::dap::Dap;
use devloop_tests::eventually;
use devloop_tests::example::Pod;
use devloop_tests::session::Session;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const SOURCE: &str = "cmd/web/greeting.go";

/// The editor is told to start over, and the debugger is attached to what came.
#[track_caller]
pub(super) fn starts_over(mut editor: Dap, session: &mut Session, was_replaced: bool, attached: &Value) -> Value {
    assert_eq!(editor.event("terminated")["restart"], true, "{editor:?}");
    assert_eq!(session.wait_for("gone")["replaced"], was_replaced);
    let again = session.wait_for("attached");
    assert_eq!(again["port"], attached["port"], "{again}");
    again
}

fn served(stage: &Stage, pod: &Pod, text: &str) {
    eventually(&format!("{text:?} is served"), SOON, || {
        let answer = stage.proxy.get(&stage.example.namespace, &pod.name, "/version").map_err(|error| error.to_string())?;
        if answer.body.contains(text) { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

pub(super) fn swaps(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let mut reload = stage.example.hot_reload(&["--via", way]);
    // What is built at the beginning is swapped to by now, too.
    stage.example.edit(SOURCE, GREETING, "the first greeting");
    reload.wait_until("swap to what was saved", |event| event["event"] == "swapped" && event["generation"].is_u64());
    let (mut session, attached) = stage.attach(&[]);
    // Code that is saved while the app stands at a breakpoint waits.
    let (mut editor, thread, _, request) = stop(&stage, &pod, port(&attached));
    stage.example.edit(SOURCE, "the first greeting", "the second greeting");
    let halted = reload.wait_for("halted");
    assert_eq!(halted["pods"], json!([pod.name]), "{halted}");
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains("the first greeting"));
    reload.wait_for("swapped");
    starts_over(editor, &mut session, true, &attached);
    let (mut editor, thread, frame, request) = stop(&stage, &pod, port(&attached));
    assert_eq!(frame["line"], stage.line(), "{frame}");
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains("the second greeting"));
    // While it runs, it does not.
    stage.example.edit(SOURCE, "the second greeting", "the third greeting");
    reload.wait_for("swapped");
    starts_over(editor, &mut session, true, &attached);
    served(&stage, &pod, "the third greeting");
    // Nor does its undoing, not even at a breakpoint.
    let (editor, _, _, _request) = stop(&stage, &pod, port(&attached));
    assert!(reload.end(Signal::SIGINT).success());
    starts_over(editor, &mut session, true, &attached);
    served(&stage, &pod, GREETING);
    assert!(session.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
}

pub(super) fn replaced(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let (mut session, attached) = stage.attach(&[]);
    // Stopped as it is, the pod goes away.
    let (editor, _, _, _request) = stop(&stage, &pod, port(&attached));
    stage.example.kubectl(&["delete", "pod", &pod.name, "--timeout=60s"]).run().ok();
    let again = starts_over(editor, &mut session, false, &attached);
    stage.example.rolled_out();
    let next = stage.example.pod();
    assert_eq!(again["pod"].as_str(), Some(next.name.as_str()), "{again}");
    let (mut editor, thread, _, request) = stop(&stage, &next, port(&attached));
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains(GREETING));
    assert!(session.end(Signal::SIGINT).success());
    stage.runs_on(&next);
    // Nothing comes after a pod that nobody replaces.
    let (mut session, _) = stage.attach(&[]);
    stage.example.kubectl(&["scale", "deployment/go-web", "--replicas=0"]).run().ok();
    assert_eq!(session.wait_for("gone")["replaced"], false);
    assert!(session.end(Signal::SIGINT).success());
}

pub(super) fn probes(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let probe = r#"{"httpGet":{"path":"/version","port":"http"},"periodSeconds":1,"timeoutSeconds":1,"failureThreshold":2}"#;
    let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"web","livenessProbe":{probe}}}]}}}}}}}}"#);
    stage.example.kubectl(&["patch", "deployment/go-web", "--patch", &patch]).run().ok();
    stage.example.rolled_out();
    let has_probe = || {
        let path = "jsonpath={.spec.template.spec.containers[0].livenessProbe.httpGet.path}";
        !stage.example.kubectl(&["get", "deployment/go-web", "-o", path]).run().ok().is_empty()
    };
    assert!(has_probe());
    let (session, attached) = stage.attach(&["--pause-probes"]);
    assert!(!has_probe());
    let pod = stage.example.pod();
    assert_eq!(attached["pod"].as_str(), Some(pod.name.as_str()), "{attached}");
    let (mut editor, thread, _, request) = stop(&stage, &pod, port(&attached));
    // It would have been ended by now, twice.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(stage.example.pod(), pod);
    editor.ask("continue", json!({"threadId": thread}));
    assert!(request.join().unwrap().unwrap().contains(GREETING));
    assert!(session.end(Signal::SIGINT).success());
    assert!(has_probe(), "it is not put back");
}
