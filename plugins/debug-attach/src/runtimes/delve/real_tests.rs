//! All but the cluster: a real Go program, the real debugger and agent, with this
//! machine as the node.

use super::calm::calm;
use super::trace;
use crate::hold::{Fate, Hold, News, NotHeld, Order};
use crate::real::{self, App, Editor};
use crate::report::Event;
use crate::runtimes::Link;
use crate::runtimes::delve;
use crate::sources::{self, Sources};
use crate::trace::Call;
use devloop_core::agent::debug::{GoProgram, HoldEnd, HoldFailure, Sources as SourceFiles};
use devloop_core::agent::{AgentError, ProcessId, Runner};
use devloop_core::shutdown::Shutdown;
use devloop_core::ui::{Ui, Volume};
use devloop_core::{CommandError, Context};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

fn build(folder: &Path) -> PathBuf {
    std::fs::write(folder.join("go.mod"), "module example.com/tiny\n\ngo 1.21\n").unwrap();
    std::fs::write(folder.join("main.go"), SOURCE).unwrap();
    let built = Command::new("go").args(["build", "-trimpath", "-o", "tiny", "."]).current_dir(folder).env("CGO_ENABLED", "0").status();
    assert!(built.unwrap().success());
    folder.join("tiny")
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

/// Asks the app while its calls are traced; answers what it said.
async fn traced(runner: &Runner, socket: &str, app: &App) -> String {
    let (told_tx, mut told_rx) = tokio::sync::mpsc::unbounded_channel();
    let (runner, socket) = (runner.clone(), socket.to_owned());
    let tracing = tokio::spawn(async move {
        let link = Link { runner: &runner, socket: &socket, rules: &[], farewell: tokio::sync::watch::channel(None).1 };
        let tell = |event: &Event| told_tx.send(event.clone()).map_err(|error| CommandError::new(error.to_string()));
        trace::trace(&link, &["Sprintf".to_owned()], &tell).await
    });
    assert_eq!(told_rx.recv().await, Some(Event::Tracing { functions: vec!["fmt.Sprintf".to_owned()] }));
    let said = app.ask().join().unwrap();
    let (Some(Event::Call(call)), Some(Event::Return(back))) = (told_rx.recv().await, told_rx.recv().await) else { panic!() };
    let values = |call: &Call| call.values.iter().map(|value| format!("{}={}", value.name, value.value)).collect::<Vec<_>>().join(" ");
    assert_eq!(values(&call), r#"format="answer %d" a=[]interface {}[4]"#);
    // The standard library is optimised, whatever the program is.
    assert_eq!(values(&back), "=(optimized out)");
    assert_eq!((call.function.as_str(), call.goroutine), ("fmt.Sprintf", back.goroutine));
    tracing.abort();
    let _ = tracing.await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breakpoint_is_hit_and_whoever_leaves_it_the_process_runs_on() {
    let Some(place) = real::place().await else { return };
    let (_switch, shutdown) = Shutdown::manual();
    let kit = delve::kit(&Context { ui: Ui::stderr(Volume::Quiet), shutdown }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let app = App::start(&build(&root));
    let process = app.process();
    let sources = sources_of(&place.runner, process, &root).await;
    assert_eq!((sources.own_found, sources.own_all, sources.found), (1, 1, sources.all), "{sources:?}");
    let program = place.bring(Some(&kit), delve::FILE).await.unwrap();
    let order = Order { socket: place.socket(process.pid), process, debugger: vec!["delve".to_owned(), program] };
    let mut hold = Hold::start(&place.runner, &order).await.unwrap();
    let (end_tx, end_rx) = tokio::sync::oneshot::channel::<()>();
    let held = tokio::spawn(async move {
        tokio::select! {
            News::Gone(fate) = hold.keep() => return fate,
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
            let link = Link { runner: &runner, socket: &socket, rules: &rules, farewell: tokio::sync::watch::channel(None).1 };
            delve::serve(link, reader, writer).await
        });
        let (mut editor, file) = (Editor::over(ours), root.join("main.go"));
        editor.attach(&file, LINE).await;
        let request = app.ask();
        assert_eq!(editor.value_at_stop(&file, "text").await, format!("\"answer {round}\""));
        if asks_to_kill {
            editor.ask("disconnect", json!({"terminateDebuggee": true})).await;
        }
        drop(editor);
        // Whatever it was about to say to an editor that is gone.
        let _ = serving.await.unwrap();
        assert_eq!(calm(&place.runner, &order.socket).await.unwrap(), 1);
        assert_eq!(request.join().unwrap(), format!("answer {round}"));
    }
    assert_eq!(traced(&place.runner, &order.socket, &app).await, "answer 4");
    assert!(app.is_traced());
    end_tx.send(()).unwrap();
    match held.await.unwrap() {
        Fate::Ended { end: HoldEnd::Detached, repaired: 0 } => {}
        other => panic!("{other:?}"),
    }
    assert!(!app.is_traced());
    assert_eq!(app.ask().join().unwrap(), "answer 5");
    // One that is dropped is told by nothing but the end of its input.
    drop(Hold::start(&place.runner, &order).await.unwrap());
    while app.is_traced() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(app.ask().join().unwrap(), "answer 6");
    // And one whose process ends says so.
    let mut hold = Hold::start(&place.runner, &order).await.unwrap();
    drop(app);
    assert!(matches!(hold.keep().await, News::Gone(Fate::Ended { end: HoldEnd::Exited, .. })));
    assert!(matches!(calm(&place.runner, &order.socket).await, Err(AgentError::Start(_))));
}
