//! When an editor went away: its breakpoints are removed and the process runs on.
//! Delve leaves both as they are, and the next request to the app would wait for
//! somebody to come back.

use super::client::Client;
use devloop_core::agent::{AgentError, Runner};
use serde_json::{Value, json};
use std::time::Duration;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a process must run on to be trusted to.
const TRIAL: Duration = Duration::from_millis(50);
/// How often a process that stopped again at once is sent on.
const ROUNDS: u32 = 8;

/// Removes all breakpoints and lets the process run; answers how many there were.
///
/// # Errors
/// When Delve can't be asked, or does not do it.
pub(crate) async fn calm(runner: &Runner, socket: &str) -> Result<usize, AgentError> {
    let work = async {
        let mut delve = Client::connect(runner, socket).await?;
        calm_down(&mut delve).await
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(AgentError::TimedOut(PATIENCE)))
}

async fn calm_down(delve: &mut Client) -> Result<usize, AgentError> {
    if delve.is_running().await? {
        delve.ask("Command", json!({"name": "halt"})).await?;
    }
    let list = delve.ask("ListBreakpoints", json!({"All": false})).await?;
    let own = |breakpoint: &Value| breakpoint["id"].as_i64().filter(|id| *id > 0);
    let numbers: Vec<i64> = list["Breakpoints"].as_array().into_iter().flatten().filter_map(own).collect();
    for number in &numbers {
        delve.ask("ClearBreakpoint", json!({"Id": number})).await?;
    }
    for _ in 0..ROUNDS {
        // It answers when the process stops.
        delve.send("Command", json!({"name": "continue"})).await?;
        tokio::time::sleep(TRIAL).await;
        // Halting may come upon a breakpoint: then one more stop is due.
        if delve.is_running().await? {
            return Ok(numbers.len());
        }
    }
    Err(AgentError::Unexpected("the process stops again and again".to_owned()))
}
