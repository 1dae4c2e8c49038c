//! What tests with real programs share: an app, an editor, and this machine as the node.

use crate::dap::{Framing, framed};
use crate::place::{self, Place};
use devloop_core::agent::ProcessId;
use devloop_core::node::{Node, process_start_time};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// This machine as a node; nothing where that can't be.
pub(crate) async fn place() -> Option<Place> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: joining namespaces needs root");
        return None;
    }
    let node = Node::embedded("test", i32::try_from(std::process::id()).unwrap());
    match place::on_node(&node).await {
        Err(error) if error.chain().concat().contains("was not found") => {
            eprintln!("skipped: no agent was built");
            None
        }
        place => Some(place.unwrap()),
    }
}

/// A program that answers each connection with a text that it counts.
pub(crate) struct App {
    child: Child,
    address: String,
}

impl App {
    /// Starts a program that says where it listens.
    pub(crate) fn start(program: &Path) -> Self {
        let mut child = Command::new(program).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    pub(crate) fn process(&self) -> ProcessId {
        let pid = self.child.id();
        ProcessId { pid, start_time: process_start_time(pid.cast_signed()).unwrap() }
    }

    /// Asks it, in a thread of its own: it may be stopped.
    pub(crate) fn ask(&self) -> std::thread::JoinHandle<String> {
        let address = self.address.clone();
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    }

    pub(crate) fn is_traced(&self) -> bool {
        !std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap().contains("TracerPid:\t0\n")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An editor.
pub(crate) struct Editor {
    pub(crate) stream: DuplexStream,
    framing: Framing,
    next: u64,
}

impl Editor {
    pub(crate) fn over(stream: DuplexStream) -> Self {
        Self { stream, framing: Framing::default(), next: 0 }
    }

    /// Attaches with one breakpoint, which has to bind, and lets the process run.
    pub(crate) async fn attach(&mut self, file: &Path, line: u64) {
        self.ask("initialize", json!({"adapterID": "x"})).await;
        self.stream.write_all(&framed(br#"{"seq":90,"type":"request","command":"attach","arguments":{}}"#)).await.unwrap();
        self.event("initialized").await;
        let set = self.ask("setBreakpoints", json!({"source": {"path": file}, "breakpoints": [{"line": line}]})).await;
        assert_eq!(set["breakpoints"][0]["verified"], true, "{set}");
        self.ask("configurationDone", json!({})).await;
    }

    /// Waits for the breakpoint; checks where it is and answers the value of a variable.
    pub(crate) async fn value_at_stop(&mut self, file: &Path, name: &str) -> String {
        let stopped = self.event("stopped").await;
        assert_eq!(stopped["reason"], "breakpoint", "{stopped}");
        let stack = self.ask("stackTrace", json!({"threadId": stopped["threadId"], "startFrame": 0, "levels": 5})).await;
        assert_eq!(stack["stackFrames"][0]["source"]["path"].as_str(), file.to_str(), "{stack}");
        let scopes = self.ask("scopes", json!({"frameId": stack["stackFrames"][0]["id"]})).await;
        let variables = self.ask("variables", json!({"variablesReference": scopes["scopes"][0]["variablesReference"]})).await;
        let variable = variables["variables"].as_array().unwrap().iter().find(|variable| variable["name"] == name).unwrap();
        variable["value"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.next += 1;
        let message = json!({"seq": self.next, "type": "request", "command": command, "arguments": arguments}).to_string();
        self.stream.write_all(&framed(message.as_bytes())).await.unwrap();
        let number = self.next;
        let answer = self.wait(|message| message["request_seq"] == number).await;
        assert_eq!(answer["success"], true, "{answer}");
        answer["body"].clone()
    }

    /// What was said before is lost: those that are waited for come in this order.
    async fn wait(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut piece = [0; 4096];
        let waiting = async {
            loop {
                while let Some(content) = self.framing.pop().unwrap() {
                    let message: Value = serde_json::from_slice(&content).unwrap();
                    if is_it(&message) {
                        return message;
                    }
                }
                let length = self.stream.read(&mut piece).await.unwrap();
                assert!(length > 0, "the debugger ended the connection");
                self.framing.push(&piece[..length]);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the debugger says what is waited for")
    }

    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        self.wait(|message| message["event"] == kind).await["body"].clone()
    }
}
