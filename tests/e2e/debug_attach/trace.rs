//! Calls of functions, told as they happen.

use super::live::SOURCE;
use super::{GREETING, Stage, Test};
use crate::clusters::Cluster;
use devloop_tests::session::Session;
use nix::sys::signal::Signal;
use serde_json::Value;

pub(super) fn add(add: &mut impl FnMut(&str, Test)) {
    add("every_call_is_told_and_none_is_held", calls);
    add("calls_of_code_that_was_swapped_in_are_told", swapped);
}

/// So many requests at once.
const REQUESTS: usize = 8;
/// How often the command is killed while they come: that ended the app in one case of ten.
const KILLS: usize = 8;

fn calls(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let mut session = Session::launch(stage.program(&["--trace", "main.main.func1", "--trace", "fmt.Fprintln", "-o", "json"]));
    assert_eq!(session.wait_for("attached")["port"], Value::Null);
    let tracing = session.wait_for("tracing");
    assert_eq!(tracing["functions"], serde_json::json!(["fmt.Fprintln", "main.main.func1"]));
    let requests: Vec<_> = (0..REQUESTS).map(|_| stage.ask(&pod)).collect();
    for request in requests {
        assert!(request.join().unwrap().unwrap().contains(GREETING));
    }
    let (mut called, mut returned) = (0, 0);
    for _ in 0..4 * REQUESTS {
        let event = session.wait_until("call or return", |event| event["event"] == "call" || event["event"] == "return");
        let value = |name: &str| {
            let values = event["values"].as_array().unwrap();
            values.iter().find(|value| value["name"] == name).unwrap_or_else(|| panic!("{event}"))["value"].as_str().unwrap().to_owned()
        };
        match (event["event"].as_str().unwrap(), event["function"].as_str().unwrap()) {
            ("call", "main.main.func1") => {
                assert!(value("answer").contains("http.response"), "{event}");
                assert_eq!(event["file"].as_str(), stage.file().to_str(), "{event}");
                called += 1;
            }
            ("return", "fmt.Fprintln") => {
                assert_eq!(event["values"].as_array().unwrap().len(), 2, "{event}");
                returned += 1;
            }
            _ => {}
        }
    }
    assert_eq!((called, returned), (REQUESTS, REQUESTS));
    assert!(session.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
    for _ in 0..KILLS {
        let mut session = Session::launch(stage.program(&["--trace", "fmt.Fprintln", "-o", "json"]));
        session.wait_for("tracing");
        let requests: Vec<_> = (0..REQUESTS).map(|_| stage.ask(&pod)).collect();
        session.wait_for("call");
        session.end(Signal::SIGKILL);
        for request in requests {
            assert!(request.join().unwrap().unwrap().contains(GREETING));
        }
        stage.runs_on(&pod);
    }
    let error = stage.program(&["--trace", "main.nothing"]).run().fails_with(2);
    assert!(error.contains("the program has no function main.nothing") && error.contains("Hint:"), "{error}");
    stage.runs_on(&pod);
    let said = stage.program(&["--trace", "fmt.Fprintln", "--dry-run"]).run().ok();
    assert!(said.contains("at each call of fmt.Fprintln"), "{said}");
}

/// Nobody stands at what is traced: new code does not wait, and is traced in its turn.
fn swapped(cluster: Cluster, way: &'static str) {
    let stage = Stage::new(cluster, way);
    let pod = stage.example.pod();
    let mut reload = stage.example.hot_reload(&["--via", way]);
    stage.example.edit(SOURCE, GREETING, "the first greeting");
    reload.wait_until("swap to what was saved", |event| event["event"] == "swapped" && event["generation"].is_u64());
    let mut session = Session::launch(stage.program(&["--trace", "main.main.func1", "-o", "json"]));
    session.wait_for("tracing");
    assert!(stage.ask(&pod).join().unwrap().unwrap().contains("the first greeting"));
    session.wait_for("return");
    stage.example.edit(SOURCE, "the first greeting", "the second greeting");
    assert_eq!(session.wait_for("gone")["replaced"], true);
    session.wait_for("tracing");
    assert!(stage.ask(&pod).join().unwrap().unwrap().contains("the second greeting"));
    session.wait_for("return");
    assert!(session.end(Signal::SIGINT).success());
    assert!(reload.end(Signal::SIGINT).success());
    stage.runs_on(&pod);
}
