//! All but the cluster: real Python programs, the real debugger and agent, with this
//! machine as the node.

use super::{kit, program, serve};
use crate::dap::framed;
use crate::hold::{Fate, Hold, Order};
use crate::place::Place;
use crate::real::{Editor, place};
use crate::runtimes::Link;
use devloop_core::Context;
use devloop_core::agent::ProcessId;
use devloop_core::agent::debug::HoldEnd;
use devloop_core::node::process_start_time;
use devloop_core::shutdown::Shutdown;
use devloop_core::ui::{Ui, Volume};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use tokio::io::AsyncWriteExt;

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
    ("computes", "while True:\n    sum(range(10_000))\n    time.sleep(0.001)"),
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

/// Says something and does not wait for the answer.
async fn say(editor: &mut Editor, command: &str, arguments: Value) {
    let message = json!({"seq": 90, "type": "request", "command": command, "arguments": arguments}).to_string();
    editor.stream.write_all(&framed(message.as_bytes())).await.unwrap();
}

/// A client that stops the other thread and vanishes.
async fn debug(place: &Place, socket: &str, file: &Path) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (reader, writer) = tokio::io::split(theirs);
    let (runner, socket) = (place.runner.clone(), socket.to_owned());
    let serving = tokio::spawn(async move {
        let link = Link { runner: &runner, socket: &socket, rules: &[], farewell: tokio::sync::watch::channel(None).1 };
        serve(link, reader, writer).await
    });
    let mut editor = Editor::over(ours);
    editor.ask("initialize", json!({"adapterID": "debugpy"})).await;
    say(&mut editor, "attach", json!({})).await;
    editor.event("initialized").await;
    // It may stop before these are answered: the other thread works all the time.
    say(&mut editor, "setBreakpoints", json!({"source": {"path": file}, "breakpoints": [{"line": LINE}]})).await;
    say(&mut editor, "configurationDone", json!({})).await;
    assert!(editor.value_at_stop(file, "double").await.parse::<u64>().is_ok_and(|value| value % 2 == 0));
    drop(editor);
    // Whatever it was about to say to an editor that is gone.
    let _ = serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_its_first_thread_does_python_is_debugged_and_runs_on() {
    let Some(place) = place().await else { return };
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
            let mut hold = Hold::start(&place.runner, &order).await.unwrap();
            assert_eq!(hold.stopped.is_zero(), !is_first);
            let (end_tx, end_rx) = tokio::sync::oneshot::channel::<()>();
            let held = tokio::spawn(async move {
                tokio::select! {
                    news = hold.keep() => panic!("{news:?}"),
                    _ = end_rx => hold.end().await,
                }
            });
            app.works();
            debug(&place, &order.socket, &file).await;
            app.works();
            end_tx.send(()).unwrap();
            match held.await.unwrap() {
                Fate::Ended { end: HoldEnd::Detached, repaired: 0 } => {}
                other => panic!("{other:?}"),
            }
            app.works();
        }
    }
}
