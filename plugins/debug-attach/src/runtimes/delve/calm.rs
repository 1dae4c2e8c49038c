//! When an editor went away: its breakpoints are removed and the process runs on.
//! Delve leaves both as they are, and the next request to the app would wait for
//! somebody to come back.

use devloop_core::agent::{AgentError, Command, Runner};
use serde_json::{Value, json};
use std::any::Any;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};

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
        let Command { stdin, stdout, guard, .. } = runner.start(&["connect", socket]).await?;
        let mut delve = Delve { writer: stdin, lines: BufReader::new(stdout).lines(), next: 0, _guard: guard };
        delve.calm().await
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(AgentError::TimedOut(PATIENCE)))
}

struct Delve {
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    lines: Lines<BufReader<Pin<Box<dyn AsyncRead + Send>>>>,
    next: u64,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Delve {
    async fn calm(&mut self) -> Result<usize, AgentError> {
        if self.is_running().await? {
            self.ask("Command", json!({"name": "halt"})).await?;
        }
        let list = self.ask("ListBreakpoints", json!({"All": false})).await?;
        let own = |breakpoint: &Value| breakpoint["id"].as_i64().filter(|id| *id > 0);
        let numbers: Vec<i64> = list["Breakpoints"].as_array().into_iter().flatten().filter_map(own).collect();
        for number in &numbers {
            self.ask("ClearBreakpoint", json!({"Id": number})).await?;
        }
        for _ in 0..ROUNDS {
            // It answers when the process stops.
            self.send("Command", json!({"name": "continue"})).await?;
            tokio::time::sleep(TRIAL).await;
            // Halting may come upon a breakpoint: then one more stop is due.
            if self.is_running().await? {
                return Ok(numbers.len());
            }
        }
        Err(AgentError::Unexpected("the process stops again and again".to_owned()))
    }

    async fn is_running(&mut self) -> Result<bool, AgentError> {
        Ok(self.ask("State", json!({"NonBlocking": true})).await?["State"]["Running"] == true)
    }

    async fn send(&mut self, method: &str, parameters: Value) -> Result<u64, AgentError> {
        self.next += 1;
        let request = json!({"method": format!("RPCServer.{method}"), "params": [parameters], "id": self.next});
        let sent = async {
            self.writer.write_all(format!("{request}\n").as_bytes()).await?;
            self.writer.flush().await
        };
        sent.await.map_err(AgentError::Start)?;
        Ok(self.next)
    }

    async fn ask(&mut self, method: &str, parameters: Value) -> Result<Value, AgentError> {
        let number = self.send(method, parameters).await?;
        loop {
            let line = self.lines.next_line().await.map_err(AgentError::Start)?;
            let line = line.ok_or_else(|| AgentError::Start(io::ErrorKind::UnexpectedEof.into()))?;
            let mut answer: Value = serde_json::from_str(&line).map_err(|error| AgentError::Unexpected(error.to_string()))?;
            // That of `continue` may come at any time.
            if answer["id"] == number {
                return match answer["error"].as_str() {
                    Some(error) => Err(AgentError::Unexpected(error.to_owned())),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }
}
