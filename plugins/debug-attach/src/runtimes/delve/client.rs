//! A client of Delve's JSON-RPC interface
//! (<https://github.com/go-delve/delve/tree/master/Documentation/api/json-rpc>).

use devloop_core::agent::{AgentError, Command, Runner};
use serde_json::{Value, json};
use std::any::Any;
use std::io;
use std::pin::Pin;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};

/// A connection to Delve.
pub(super) struct Client {
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    lines: Lines<BufReader<Pin<Box<dyn AsyncRead + Send>>>>,
    next: u64,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Client {
    /// Connects to the Delve that listens on a socket where the agent runs.
    pub(super) async fn connect(runner: &Runner, socket: &str) -> Result<Self, AgentError> {
        let Command { stdin, stdout, guard, .. } = runner.start(&["connect", socket]).await?;
        Ok(Self { writer: stdin, lines: BufReader::new(stdout).lines(), next: 0, _guard: guard })
    }

    pub(super) async fn is_running(&mut self) -> Result<bool, AgentError> {
        Ok(self.ask("State", json!({"NonBlocking": true})).await?["State"]["Running"] == true)
    }

    /// Asks, and answers the number of the question.
    pub(super) async fn send(&mut self, method: &str, parameters: Value) -> Result<u64, AgentError> {
        self.next += 1;
        let request = json!({"method": format!("RPCServer.{method}"), "params": [parameters], "id": self.next});
        let sent = async {
            self.writer.write_all(format!("{request}\n").as_bytes()).await?;
            self.writer.flush().await
        };
        sent.await.map_err(AgentError::Start)?;
        Ok(self.next)
    }

    pub(super) async fn ask(&mut self, method: &str, parameters: Value) -> Result<Value, AgentError> {
        let number = self.send(method, parameters).await?;
        self.answer(number).await
    }

    /// The answer to a question; those to earlier ones are passed over.
    pub(super) async fn answer(&mut self, number: u64) -> Result<Value, AgentError> {
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
