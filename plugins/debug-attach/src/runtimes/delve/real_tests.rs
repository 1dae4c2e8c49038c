//! All but the cluster: a real Go program, the real debugger and agent, with this
//! machine as the node.

use super::calm::calm;
use crate::dap::{Framing, framed};
use crate::hold::{Fate, Hold, NotHeld, Order};
use crate::place;
use crate::runtimes::Link;
use crate::runtimes::delve;
use crate::sources::{self, Sources};
use devloop_core::Context;
use devloop_core::agent::debug::{GoProgram, HoldEnd, HoldFailure, Sources as SourceFiles};
use devloop_core::agent::{AgentError, ProcessId, Runner};
use devloop_core::node::{Node, process_start_time};
use devloop_core::shutdown::Shutdown;
use devloop_core::ui::{Ui, Volume};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const SOURCE: &str = r#"package main

import (
	"fmt"
	"net"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	for number := 1; ; number++ {
		connection, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		text := fmt.Sprintf("answer %d", number)
		fmt.Fprint(connection, text)
		connection.Close()
	}
}
"#;
/// `fmt.Fprint`.
const LINE: u64 = 20;

struct App {
    child: Child,
    address: String,
}

impl App {
    fn start(folder: &Path) -> Self {
        std::fs::write(folder.join("go.mod"), "module example.com/tiny\n\ngo 1.21\n").unwrap();
        std::fs::write(folder.join("main.go"), SOURCE).unwrap();
        let built = Command::new("go").args(["build", "-trimpath", "-o", "tiny", "."]).current_dir(folder).env("CGO_ENABLED", "0").status();
        assert!(built.unwrap().success());
        let mut child = Command::new(folder.join("tiny")).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    fn process(&self) -> ProcessId {
        let pid = self.child.id();
        ProcessId { pid, start_time: process_start_time(pid.cast_signed()).unwrap() }
    }

    /// Asks it, in a thread of its own: it may be stopped.
    fn ask(&self) -> std::thread::JoinHandle<String> {
        let address = self.address.clone();
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    }

    fn is_traced(&self) -> bool {
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
struct Editor {
    stream: DuplexStream,
    framing: Framing,
    next: u64,
}

impl Editor {
    async fn ask(&mut self, command: &str, arguments: Value) -> Value {
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

    async fn event(&mut self, kind: &str) -> Value {
        self.wait(|message| message["event"] == kind).await["body"].clone()
    }
}

async fn sources_of(runner: &Runner, process: ProcessId, folder: &Path) -> Sources {
    let (pid, start) = (process.pid.to_string(), process.start_time.to_string());
    let pieces: Vec<SourceFiles> = runner.ask(&["sources", &pid, &start], Duration::from_secs(10)).await.unwrap();
    let files: Vec<String> =
        pieces.into_iter().flat_map(|piece| if let SourceFiles::Files(files) = piece { files } else { panic!() }).collect();
    let program = GoProgram { module: "example.com/tiny".to_owned(), ..GoProgram::default() };
    let local = sources::local::gather(folder, &program.module).await;
    sources::find(&program, &files, &local, u64::MAX, |path| path.is_file().then_some(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breakpoint_is_hit_and_whoever_leaves_it_the_process_runs_on() {
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
    let kit = delve::kit(&Context { ui: Ui::stderr(Volume::Quiet), shutdown }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let app = App::start(&root);
    let process = app.process();
    let sources = sources_of(&place.runner, process, &root).await;
    assert_eq!((sources.own_found, sources.own_all, sources.found), (1, 1, sources.all), "{sources:?}");
    let program = place.bring(Some(&kit), delve::FILE).await.unwrap();
    let order = Order { socket: place.socket(process.pid), process, debugger: vec!["delve".to_owned(), program] };
    let mut hold = Hold::start(&place.runner, &order).await.unwrap();
    let (end_tx, end_rx) = tokio::sync::oneshot::channel::<()>();
    let held = tokio::spawn(async move {
        tokio::select! {
            fate = hold.keep() => return fate,
            _ = end_rx => {}
        }
        hold.end().await
    });
    assert_eq!(app.ask().join().unwrap(), "answer 1");
    match Hold::start(&place.runner, &order).await {
        Err(NotHeld::Refused(HoldFailure::Traced, message)) => assert!(message.contains("dlv"), "{message}"),
        other => panic!("{other:?}"),
    }

    // Each way of leaving, while the process is stopped at the breakpoint.
    for (round, asks_to_kill) in [(2, true), (3, false)] {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(theirs);
        let (runner, socket, rules) = (place.runner.clone(), order.socket.clone(), sources.rules.clone());
        let serving = tokio::spawn(async move {
            let link = Link { runner: &runner, socket: &socket, rules: &rules };
            delve::serve(link, reader, writer).await
        });
        let mut editor = Editor { stream: ours, framing: Framing::default(), next: 0 };
        editor.ask("initialize", json!({"adapterID": "go"})).await;
        editor.stream.write_all(&framed(br#"{"seq":90,"type":"request","command":"attach","arguments":{}}"#)).await.unwrap();
        editor.event("initialized").await;
        let file = root.join("main.go");
        let set = editor.ask("setBreakpoints", json!({"source": {"path": file}, "breakpoints": [{"line": LINE}]})).await;
        assert_eq!(set["breakpoints"][0]["verified"], true, "{set}");
        editor.ask("configurationDone", json!({})).await;
        let request = app.ask();
        let stopped = editor.event("stopped").await;
        assert_eq!(stopped["reason"], "breakpoint", "{stopped}");
        let stack = editor.ask("stackTrace", json!({"threadId": stopped["threadId"]})).await;
        assert_eq!(stack["stackFrames"][0]["source"]["path"].as_str(), file.to_str(), "{stack}");
        let scopes = editor.ask("scopes", json!({"frameId": stack["stackFrames"][0]["id"]})).await;
        let variables = editor.ask("variables", json!({"variablesReference": scopes["scopes"][0]["variablesReference"]})).await;
        let is_text = |variable: &&Value| variable["name"] == "text";
        let text = variables["variables"].as_array().unwrap().iter().find(is_text).unwrap();
        assert_eq!(text["value"], format!("\"answer {round}\""), "{text}");
        if asks_to_kill {
            editor.ask("disconnect", json!({"terminateDebuggee": true})).await;
        }
        drop(editor);
        serving.await.unwrap().unwrap();
        assert_eq!(calm(&place.runner, &order.socket).await.unwrap(), 1);
        assert_eq!(request.join().unwrap(), format!("answer {round}"));
    }
    assert!(app.is_traced());
    end_tx.send(()).unwrap();
    match held.await.unwrap() {
        Fate::Ended { end: HoldEnd::Detached, repaired: 0 } => {}
        other => panic!("{other:?}"),
    }
    assert!(!app.is_traced());
    assert_eq!(app.ask().join().unwrap(), "answer 4");
    // One that is dropped is told by nothing but the end of its input.
    drop(Hold::start(&place.runner, &order).await.unwrap());
    while app.is_traced() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(app.ask().join().unwrap(), "answer 5");
    // And one whose process ends says so.
    let mut hold = Hold::start(&place.runner, &order).await.unwrap();
    drop(app);
    assert!(matches!(hold.keep().await, Fate::Ended { end: HoldEnd::Exited, .. }));
    assert!(matches!(calm(&place.runner, &order.socket).await, Err(AgentError::Start(_))));
}
