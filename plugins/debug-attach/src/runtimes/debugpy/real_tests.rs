//! All but the cluster: real Python programs, the real debugger and agent, with this
//! machine as the node.

use super::{kit, program, rewritten};
use crate::dap::{Framing, framed};
use crate::forward;
use crate::hold::{Fate, Hold, Order};
use crate::place::{self, Place};
use devloop_core::Context;
use devloop_core::agent::ProcessId;
use devloop_core::agent::debug::HoldEnd;
use devloop_core::node::{Node, process_start_time};
use devloop_core::shutdown::Shutdown;
use devloop_core::ui::{Ui, Volume};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What the first thread does when the debugger comes, and a function that another
/// thread calls again and again.
const PROGRAM: &str = "\
import select, socket, sys, threading, time

def work(number):
    double = number * 2
    return double

def others():
    number = 0
    while True:
        number += 1
        if work(number) % 20 == 0:
            print(number, flush=True)
        time.sleep(0.01)

threading.Thread(target=others, daemon=True).start()
FIRST
";
/// `return double`.
const LINE: u64 = 5;

/// Ways in which the first thread does not come by by itself, and one in which it does
/// nothing but that.
const FIRST: [(&str, &str); 5] = [
    ("sleeps", "time.sleep(1000)"),
    ("waits for a connection", "listener = socket.create_server((\"127.0.0.1\", 0))\nlistener.accept()"),
    ("waits for one of several", "select.select([], [], [])"),
    ("waits for another thread", "threading.enumerate()[-1].join()"),
    ("computes", "while True:\n    pass"),
];

struct App {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl App {
    fn start(path: &Path, first: &str) -> Self {
        std::fs::write(path, PROGRAM.replace("FIRST", first)).unwrap();
        let mut child = Command::new("python3").arg(path).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut app = Self { child, output };
        app.works();
        app
    }

    fn process(&self) -> ProcessId {
        let pid = self.child.id();
        ProcessId { pid, start_time: process_start_time(pid.cast_signed()).unwrap() }
    }

    /// It says its next number.
    fn works(&mut self) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.trim().parse::<u64>().is_ok(), "{line:?}");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Editor {
    stream: DuplexStream,
    framing: Framing,
    next: u64,
}

impl Editor {
    async fn send(&mut self, command: &str, arguments: Value) -> u64 {
        self.next += 1;
        let message = json!({"seq": self.next, "type": "request", "command": command, "arguments": arguments}).to_string();
        self.stream.write_all(&framed(message.as_bytes())).await.unwrap();
        self.next
    }

    async fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let number = self.send(command, arguments).await;
        let answer = self.wait(|message| message["request_seq"] == number).await;
        assert_eq!(answer["success"], true, "{answer}");
        answer["body"].clone()
    }

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
}

/// A client that stops the other thread and vanishes.
async fn debug(place: &Place, socket: &str, file: &Path) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (reader, writer) = tokio::io::split(theirs);
    let (runner, socket) = (place.runner.clone(), socket.to_owned());
    let serving =
        tokio::spawn(
            async move { forward::serve(&runner, &socket, reader, writer, |content| rewritten(content, &[]), str::to_owned).await },
        );
    let mut editor = Editor { stream: ours, framing: Framing::default(), next: 0 };
    editor.ask("initialize", json!({"adapterID": "debugpy", "pathFormat": "path"})).await;
    editor.send("attach", json!({})).await;
    editor.wait(|message| message["event"] == "initialized").await;
    let set = editor.ask("setBreakpoints", json!({"source": {"path": file}, "breakpoints": [{"line": LINE}]})).await;
    assert_eq!(set["breakpoints"][0]["verified"], true, "{set}");
    editor.ask("configurationDone", json!({})).await;
    let stopped = editor.wait(|message| message["event"] == "stopped").await["body"].clone();
    assert_eq!(stopped["reason"], "breakpoint", "{stopped}");
    let stack = editor.ask("stackTrace", json!({"threadId": stopped["threadId"]})).await;
    assert_eq!(stack["stackFrames"][0]["line"], LINE, "{stack}");
    drop(editor);
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_its_first_thread_does_python_is_debugged_and_runs_on() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: joining namespaces needs root");
        return;
    }
    let node = Node::embedded("test", i32::try_from(std::process::id()).unwrap());
    let place = match place::on_node(&node).await {
        Err(error) if error.chain().concat().contains("was not found") => {
            eprintln!("skipped: no agent was built");
            return;
        }
        place => place.unwrap(),
    };
    let (_switch, shutdown) = Shutdown::manual();
    let context = Context { ui: Ui::stderr(Volume::Quiet), shutdown };
    let kit = kit(program::obtain(&context).await.unwrap()).await.unwrap();
    let wheel = place.bring(Some(&kit), super::FILE).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().canonicalize().unwrap().join("app.py");
    for (name, first) in FIRST {
        eprintln!("the first thread {name}");
        let mut app = App::start(&file, first);
        let process = app.process();
        let order = Order { socket: place.socket(process.pid), process, debugger: vec!["debugpy".to_owned(), wheel.clone()] };
        // The second finds what the first put there.
        for is_first in [true, false] {
            let hold = Hold::start(&place.runner, &order).await.unwrap();
            assert_eq!(hold.stopped.is_zero(), !is_first);
            app.works();
            debug(&place, &order.socket, &file).await;
            app.works();
            match hold.end().await {
                Fate::Ended { end: HoldEnd::Detached, repaired: 0 } => {}
                other => panic!("{other:?}"),
            }
            app.works();
        }
    }
}
