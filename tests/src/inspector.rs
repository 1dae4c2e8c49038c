//! A small client of Node's inspector, as a browser's tools are one
//! (<https://chromedevtools.github.io/devtools-protocol/>).

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;
use tungstenite::{Message, WebSocket};

const PATIENCE: Duration = Duration::from_secs(90);

/// Its side of a debug session.
#[derive(Debug)]
pub struct Inspector {
    socket: WebSocket<TcpStream>,
    /// Those that were not waited for yet.
    kept: Vec<Value>,
    next: u64,
}

impl Inspector {
    /// Connects to the first target that a port of this machine tells of.
    ///
    /// # Panics
    /// When there is none.
    pub fn connect(port: u16) -> Self {
        let targets = targets(port);
        let url = targets[0]["webSocketDebuggerUrl"].as_str().unwrap_or_else(|| panic!("no target: {targets}")).to_owned();
        let (socket, _) = tungstenite::client(url, open(port)).unwrap();
        Self { socket, kept: Vec::new(), next: 0 }
    }

    /// Sends a command and answers its result.
    ///
    /// # Panics
    /// When it fails, or no answer comes.
    #[track_caller]
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let number = self.next;
        let message = json!({"id": number, "method": method, "params": params}).to_string();
        self.socket.send(Message::text(message)).unwrap();
        let answer = self.wait(method, |message| message["id"] == number);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The next event of a kind; answers its parameters.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn event(&mut self, method: &str) -> Value {
        self.wait(method, |message| message["method"] == method)["params"].clone()
    }

    #[track_caller]
    fn wait(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.kept.iter().position(&is_it) {
            return self.kept.remove(index);
        }
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("no {what} ({error}); messages so far: {:#?}", self.kept));
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            if is_it(&message) {
                return message;
            }
            self.kept.push(message);
        }
    }
}

fn open(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What the inspector says that can be debugged.
fn targets(port: u16) -> Value {
    let mut stream = open(port);
    write!(stream, "GET /json/list HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    // It says how long the list is, and keeps the connection.
    let length = loop {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
        if answer.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer).to_lowercase();
            break head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap();
        }
    };
    let mut list: Vec<u8> = vec![0; length];
    stream.read_exact(&mut list).unwrap();
    serde_json::from_slice(&list).unwrap()
}
