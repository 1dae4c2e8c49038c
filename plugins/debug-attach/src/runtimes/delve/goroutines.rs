//! Where all goroutines of a process are.

use super::client::Client;
use devloop_core::agent::{AgentError, Runner};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long all of it may take; the process stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many are listed at once.
const PAGE: i64 = 1000;
/// More of them are not looked at.
const MOST: usize = 20_000;
/// So many stacks are asked for at once.
const AHEAD: usize = 64;
const DEEPEST: u32 = 200;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Goroutine {
    pub(crate) id: u32,
    pub(crate) state: &'static str,
    /// The innermost first.
    pub(crate) calls: Vec<Call>,
}

/// A function, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// Halts the process, and finds out. It stands still from the answered moment on, until
/// the debugger is detached.
///
/// # Errors
/// When Delve can't be asked, or does not know.
pub(crate) async fn goroutines(runner: &Runner, socket: &str) -> Result<(Vec<Goroutine>, Instant), AgentError> {
    let work = async {
        let mut delve = Client::connect(runner, socket).await?;
        delve.ask("Command", json!({"name": "halt"})).await?;
        let halted = Instant::now();
        let listed = list(&mut delve).await?;
        let mut all = Vec::new();
        for some in listed.chunks(AHEAD) {
            let mut questions = Vec::new();
            for (id, _) in some {
                questions.push(delve.send("Stacktrace", json!({"Id": id, "Depth": DEEPEST, "Full": false})).await?);
            }
            for ((id, state), question) in some.iter().zip(questions) {
                // One whose stack makes no sense has none.
                let answer = delve.answer(question).await.unwrap_or_default();
                let calls = answer["Locations"].as_array().into_iter().flatten().map(call).collect();
                all.push(Goroutine { id: *id, state, calls });
            }
        }
        Ok((all, halted))
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(AgentError::TimedOut(PATIENCE)))
}

async fn list(delve: &mut Client) -> Result<Vec<(u32, &'static str)>, AgentError> {
    let (mut all, mut start) = (Vec::new(), 0);
    while all.len() < MOST {
        let answer = delve.ask("ListGoroutines", json!({"Start": start, "Count": PAGE})).await?;
        let some = answer["Goroutines"].as_array().into_iter().flatten();
        all.extend(some.filter_map(|one| Some((u32::try_from(one["id"].as_u64()?).ok()?, state(one["status"].as_u64()?)?))));
        match answer["Nextg"].as_i64() {
            Some(next) if next > start => start = next,
            _ => break,
        }
    }
    Ok(all)
}

/// `runtime/runtime2.go`: `_Gidle`, `_Grunnable`, ...; none of what is dead.
fn state(status: u64) -> Option<&'static str> {
    match status & 0xfff {
        0 => Some("new"),
        1 => Some("ready to run"),
        2 => Some("running"),
        3 => Some("in a system call"),
        4 => Some("waiting"),
        8 => Some("its stack is being copied"),
        9 => Some("preempted"),
        _ => None,
    }
}

fn call(location: &Value) -> Call {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Call {
        function: Some(text(&location["function"]["name"])).filter(|name| !name.is_empty()).unwrap_or_else(|| "[unknown]".to_owned()),
        file: text(&location["file"]),
        line: location["line"].as_u64().and_then(|line| u32::try_from(line).ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delves_words_are_understood() {
        let location = json!({"pc": 1, "file": "/src/main.go", "line": 7, "function": {"name": "main.main"}});
        assert_eq!(call(&location), Call { function: "main.main".to_owned(), file: "/src/main.go".to_owned(), line: 7 });
        assert_eq!(call(&json!({})).function, "[unknown]");
        assert_eq!((state(4), state(0x1004), state(6)), (Some("waiting"), Some("waiting"), None));
    }
}
