//! Calls of functions as they happen (Delve's tracepoints): the process stands still
//! only for as long as it takes to read a call's arguments or results.

use super::client::Client;
use super::values;
use crate::report::Event;
use crate::runtimes::Link;
use crate::sources::{self, Rule};
use crate::trace::{Call, Named, NotTraced};
use devloop_core::agent::AgentError;
use devloop_core::{CommandError, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// A name that fits more functions than this was not meant like that.
const MOST: usize = 32;
/// How long whoever halted the process without a call has to go on.
const COURTESY: Duration = Duration::from_millis(200);
/// `service/api.VariableReturnArgument`.
const RESULT: u64 = 1 << 4;

/// Tells of every call of functions with these names, until the connection ends.
///
/// # Errors
/// When there is no such function, Delve is gone, or `tell` fails.
pub(crate) async fn trace(link: &Link<'_>, names: &[String], tell: &(impl Fn(&Event) -> Result<()> + Sync)) -> Result<(), NotTraced> {
    let mut delve = Client::connect(link.runner, link.socket).await.map_err(NotTraced::Lost)?;
    if delve.is_running().await.map_err(NotTraced::Lost)? {
        delve.ask("Command", json!({"name": "halt"})).await.map_err(NotTraced::Lost)?;
    }
    match set(&mut delve, names).await {
        Ok(functions) => tell(&Event::Tracing { functions }).map_err(NotTraced::Refused)?,
        Err(error) => {
            delve.send("Command", json!({"name": "continue"})).await.map_err(NotTraced::Lost)?;
            return Err(error);
        }
    }
    loop {
        let answer = delve.ask("Command", json!({"name": "continue"})).await.map_err(NotTraced::Lost)?;
        let (state, now) = (&answer["State"], Timestamp::now());
        if state["exited"] == true {
            return Ok(());
        }
        let threads = state["Threads"].as_array().into_iter().flatten();
        let events: Vec<Event> = threads.filter_map(|thread| event(thread, link.rules, now)).collect();
        if events.is_empty() {
            // Somebody else halted it, who may be about to detach.
            tokio::time::sleep(COURTESY).await;
        }
        for event in events {
            tell(&event).map_err(NotTraced::Refused)?;
        }
    }
}

/// Sets tracepoints; answers the functions.
async fn set(delve: &mut Client, names: &[String]) -> Result<Vec<String>, NotTraced> {
    let refused = |error| match error {
        AgentError::Unexpected(message) => NotTraced::Refused(CommandError::new("the calls can't be traced").caused_by(message)),
        error => NotTraced::Lost(error),
    };
    let mut all = Vec::new();
    for name in names {
        let answer = delve.ask("ListFunctions", json!({"Filter": pattern(name)})).await.map_err(refused)?;
        let found: Vec<String> = answer["Funcs"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        all.extend(chosen(name, found).map_err(NotTraced::Refused)?);
    }
    all.sort();
    all.dedup();
    let load = json!({"FollowPointers": true, "MaxVariableRecurse": 1, "MaxStringLen": 128, "MaxArrayValues": 8, "MaxStructFields": 16});
    for function in &all {
        let entry = json!({"Breakpoint": {"functionName": function, "continue": true, "line": -1, "LoadArgs": load}});
        delve.ask("CreateBreakpoint", entry).await.map_err(refused)?;
        let returns = delve.ask("FunctionReturnLocations", json!({"FnName": function})).await.map_err(refused)?;
        for address in returns["Addrs"].as_array().into_iter().flatten() {
            let leaving = json!({"Breakpoint": {"addr": address, "traceReturn": true, "line": -1, "LoadArgs": load}});
            delve.ask("CreateBreakpoint", leaving).await.map_err(refused)?;
        }
    }
    Ok(all)
}

/// The functions that a name may mean, as a regular expression: whole, or without its
/// first parts, and with or without the signs of a pointer's method. Pure.
fn pattern(name: &str) -> String {
    let plain = name.replace("(*", "").replace(')', "");
    let escaped: String =
        plain.chars().flat_map(|sign| (!sign.is_alphanumeric() && sign != '_').then_some('\\').into_iter().chain([sign])).collect();
    format!(r"(^|[./])(\(\*)?{}(\[\.\.\.\])?$", escaped.replace(r"\.", r"\)?\.(\(\*)?"))
}

/// The one that is called so, else all whose last part is. Pure.
fn chosen(name: &str, found: Vec<String>) -> Result<Vec<String>> {
    if found.iter().any(|function| function == name) {
        return Ok(vec![name.to_owned()]);
    }
    let hint = "name it as Go does: main.serve, or main.(*Shop).Buy; `go tool nm` lists all";
    match found.len() {
        0 => Err(CommandError::usage(format!("the program has no function {name}")).with_hint(hint)),
        count if count > MOST => {
            let some = found.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(CommandError::usage(format!("{name} may be any of {count} functions: {some} and others")).with_hint(hint))
        }
        _ => Ok(found),
    }
}

/// What a thread is at. Pure.
fn event(thread: &Value, rules: &[Rule], time: Timestamp) -> Option<Event> {
    let point = &thread["breakPoint"];
    let (is_call, is_return) = (point["continue"] == true, point["traceReturn"] == true);
    let function = [&thread["function"]["name"], &point["functionName"]].iter().find_map(|name| name.as_str())?.to_owned();
    let goroutine = thread["goroutineID"].as_u64().unwrap_or_default();
    let all = thread["breakPointInfo"]["arguments"].as_array().into_iter().flatten();
    let is_meant = |variable: &&Value| (variable["flags"].as_u64().unwrap_or_default() & RESULT != 0) == is_return;
    let call = Call {
        time,
        function,
        goroutine,
        values: all.filter(is_meant).map(named).collect(),
        file: sources::local_path(rules, thread["file"].as_str().unwrap_or_default()).display().to_string(),
        line: thread["line"].as_u64().unwrap_or_default(),
    };
    if is_return { Some(Event::Return(call)) } else { is_call.then_some(Event::Call(call)) }
}

fn named(variable: &Value) -> Named {
    // Results that have no name are called ~r0 and so on.
    let name = variable["name"].as_str().unwrap_or_default();
    Named { name: if name.starts_with('~') { String::new() } else { name.to_owned() }, value: values::text(variable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whole_or_by_their_end() {
        let cases = [
            ("main.serve", r"(^|[./])(\(\*)?main\)?\.(\(\*)?serve(\[\.\.\.\])?$"),
            ("(*Shop).Buy", r"(^|[./])(\(\*)?Shop\)?\.(\(\*)?Buy(\[\.\.\.\])?$"),
            ("a*b", r"(^|[./])(\(\*)?a\*b(\[\.\.\.\])?$"),
        ];
        for (name, wanted) in cases {
            assert_eq!(pattern(name), wanted);
        }
        let all = |count: usize| (0..count).map(|number| format!("p{number}.serve")).collect::<Vec<_>>();
        assert_eq!(chosen("serve", all(2)).unwrap(), ["p0.serve", "p1.serve"]);
        assert_eq!(chosen("p1.serve", all(2)).unwrap(), ["p1.serve"]);
        for wrong in [all(0), all(40)] {
            assert_eq!(chosen("serve", wrong).unwrap_err().status().code(), 2);
        }
    }

    #[test]
    fn calls_and_returns_are_told_apart() {
        let rules = [Rule { local: "/home/dev/shop".to_owned(), remote: "example.com/shop".to_owned() }];
        let thread = |point: Value| {
            json!({
                "goroutineID": 7, "file": "example.com/shop/main.go", "line": 3, "function": {"name": "main.buy"}, "breakPoint": point,
                "breakPointInfo": {"arguments": [
                    {"name": "n", "kind": 2, "value": "3", "flags": 8},
                    {"name": "~r0", "kind": 2, "value": "6", "flags": 16},
                ]},
            })
        };
        let call = |name: &str, value: &str| Call {
            time: Timestamp::UNIX_EPOCH,
            function: "main.buy".to_owned(),
            goroutine: 7,
            values: vec![Named { name: name.to_owned(), value: value.to_owned() }],
            file: "/home/dev/shop/main.go".to_owned(),
            line: 3,
        };
        let event = |point: Value| event(&thread(point), &rules, Timestamp::UNIX_EPOCH);
        assert_eq!(event(json!({"continue": true})), Some(Event::Call(call("n", "3"))));
        assert_eq!(event(json!({"traceReturn": true})), Some(Event::Return(call("", "6"))));
        assert_eq!(event(json!(null)), None);
        let here = |file: &str, rules: &[Rule]| sources::local_path(rules, file).display().to_string();
        assert_eq!(here("fmt/print.go", &[Rule { local: "/go/src".to_owned(), remote: String::new() }]), "/go/src/fmt/print.go");
        assert_eq!(here("/a/b.go", &rules), "/a/b.go");
    }
}
