//! A client of a debug adapter.

use crate::dap::{Framing, framed};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The adapter has ended the connection, or says what it should not.
#[derive(Debug)]
pub(super) struct Gone;

pub(super) struct Client {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    framing: Framing,
    /// Came while an answer was waited for.
    events: VecDeque<Value>,
    last: u64,
}

impl Client {
    pub(super) async fn connect(port: u16) -> io::Result<Self> {
        let (reader, writer) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
        Ok(Self { reader, writer, framing: Framing::default(), events: VecDeque::new(), last: 0 })
    }

    /// Answers the request's number.
    pub(super) async fn send(&mut self, command: &str, arguments: Value) -> Result<u64, Gone> {
        self.last += 1;
        let message = json!({"seq": self.last, "type": "request", "command": command, "arguments": arguments}).to_string();
        self.writer.write_all(&framed(message.as_bytes())).await.map_err(|_| Gone)?;
        Ok(self.last)
    }

    /// Answers the answer's body, or the reason why there is none.
    pub(super) async fn ask(&mut self, command: &str, arguments: Value) -> Result<Result<Value, String>, Gone> {
        let number = self.send(command, arguments).await?;
        loop {
            let mut message = self.next().await?;
            if message["type"] == "event" {
                self.events.push_back(message);
            } else if message["request_seq"] == number {
                let reason = message["body"]["error"]["format"].as_str().or(message["message"].as_str()).unwrap_or("refused");
                return Ok(if message["success"] == true { Ok(message["body"].take()) } else { Err(reason.trim().to_owned()) });
            }
        }
    }

    /// Waits for an event; others are left for [`Self::next_event`].
    pub(super) async fn event(&mut self, name: &str) -> Result<(), Gone> {
        loop {
            let message = self.next().await?;
            if message["event"] == name {
                return Ok(());
            }
            if message["type"] == "event" {
                self.events.push_back(message);
            }
        }
    }

    /// Nothing is lost when it is dropped.
    pub(super) async fn next_event(&mut self) -> Result<Value, Gone> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let message = self.next().await?;
            if message["type"] == "event" {
                return Ok(message);
            }
        }
    }

    /// Nothing is lost when it is dropped.
    async fn next(&mut self) -> Result<Value, Gone> {
        loop {
            if let Some(content) = self.framing.pop().map_err(|_| Gone)? {
                return serde_json::from_slice(&content).map_err(|_| Gone);
            }
            let mut piece = [0; 4096];
            match self.reader.read(&mut piece).await {
                Ok(count @ 1..) => self.framing.push(&piece[..count]),
                _ => return Err(Gone),
            }
        }
    }
}
