//! Node: its inspector, as a browser's tools have it.

use super::{App, SOON, Stage, port};
use crate::clusters::Cluster;
use devloop_tests::inspector::Inspector;
use devloop_tests::{container, eventually};
use nix::sys::signal::Signal;
use serde_json::json;

const NODE: App = App { name: "node-web", file: "src/server.js", statement: "response.end(`${greeting}" };

pub(super) fn anew(cluster: Cluster, way: &'static str) {
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
    stage.serves(&pod, "anew");
    assert!(session.end(Signal::SIGINT).success());
    assert!(reload.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
}

pub(super) fn stops(cluster: Cluster, way: &'static str) {
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
