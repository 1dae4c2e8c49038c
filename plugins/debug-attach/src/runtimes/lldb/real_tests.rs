//! All but the cluster: a real C++ program, the real LLDB, gdbserver and agent, with
//! this machine as the node.

use super::program::Program;
use super::{Lldb, server};
use crate::hold::{Fate, Hold, News, Order};
use crate::place::Place;
use crate::real::{self, App, Editor};
use crate::runtimes::Link;
use devloop_core::agent::debug::HoldEnd;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::task::JoinHandle;

const SOURCE: &str = r#"#include <arpa/inet.h>
#include <cstdio>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

int main() {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(listener, (sockaddr *)&address, sizeof address);
    listen(listener, 8);
    socklen_t length = sizeof address;
    getsockname(listener, (sockaddr *)&address, &length);
    printf("127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int number = 1;; number++) {
        int connection = accept(listener, nullptr, nullptr);
        std::string text = "answer " + std::to_string(number);
        if (write(connection, text.data(), text.size()) < 0) {
            return 1;
        }
        close(connection);
    }
}
"#;
/// `write`.
const LINE: u64 = 21;

fn build(folder: &Path) -> PathBuf {
    std::fs::write(folder.join("main.cpp"), SOURCE).unwrap();
    let built = Command::new("g++").args(["-g", "-O0", "-o", "tiny", "main.cpp"]).current_dir(folder).status();
    assert!(built.unwrap().success());
    folder.join("tiny")
}

/// An editor with LLDB behind it.
fn editor(place: &Arc<Place>, lldb: &Arc<Lldb>, socket: &str) -> (Editor, JoinHandle<std::io::Result<()>>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (reader, writer) = tokio::io::split(theirs);
    let (place, lldb, socket) = (Arc::clone(place), Arc::clone(lldb), socket.to_owned());
    let serving = tokio::spawn(async move {
        let link = Link { runner: &place.runner, socket: &socket, rules: &[], farewell: tokio::sync::watch::channel(None).1 };
        lldb.serve(link, reader, writer).await
    });
    (Editor::over(ours), serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breakpoint_is_hit_and_whoever_leaves_it_the_process_runs_on() {
    let Some(place) = real::place().await.map(Arc::new) else { return };
    let (Ok(tool), Ok(kit)) = (server::installed("DEVLOOP_LLDB_DAP", "lldb-dap"), server::kit().await) else {
        eprintln!("skipped: needs lldb-dap and gdbserver");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let path = build(&root);
    let app = App::start(&path);
    let lldb = Arc::new(Lldb { tool, program: Program::at(path), rust: Vec::new() });
    let words = vec!["gdbserver".to_owned(), place.bring(Some(&kit), server::FILE).await.unwrap()];
    let order = Order { socket: place.socket(app.process().pid), process: app.process(), debugger: words };
    let mut hold = Hold::start(&place.runner, &order).await.unwrap();
    assert!(!app.is_traced());
    assert_eq!(app.ask().join().unwrap(), "answer 1");
    let (end_tx, mut end_rx) = tokio::sync::oneshot::channel::<()>();
    let (joined_tx, mut joined_rx) = tokio::sync::watch::channel(0);
    let held = tokio::spawn(async move {
        loop {
            tokio::select! {
                news = hold.keep() => match news {
                    News::Joined(_) => joined_tx.send_modify(|joined| *joined += 1),
                    News::Gone(fate) => return fate,
                },
                _ = &mut end_rx => return hold.end().await,
            }
        }
    });
    let file = root.join("main.cpp");
    // Each way of leaving, while the process is stopped at the breakpoint.
    for (round, asks_to_kill) in [(2, true), (3, false)] {
        let (mut editor, serving) = editor(&place, &lldb, &order.socket);
        editor.attach(&file, LINE).await;
        let request = app.ask();
        assert_eq!(editor.value_at_stop(&file, "text").await, format!("\"answer {round}\""));
        if asks_to_kill {
            editor.ask("disconnect", json!({"terminateDebuggee": true})).await;
        }
        drop(editor);
        // Whatever it was about to say to an editor that is gone.
        let _ = serving.await.unwrap();
        assert_eq!(request.join().unwrap(), format!("answer {round}"));
    }
    assert_eq!(app.ask().join().unwrap(), "answer 4");
    // One whose command ends, while the process runs upon its breakpoint.
    let (mut editor, _serving) = editor(&place, &lldb, &order.socket);
    editor.attach(&file, LINE).await;
    joined_rx.wait_for(|joined| *joined == 3).await.unwrap();
    end_tx.send(()).unwrap();
    let fate = held.await.unwrap();
    assert!(matches!(fate, Fate::Ended { end: HoldEnd::Detached, repaired: 0 }), "{fate:?}");
    assert!(!app.is_traced());
    assert_eq!(app.ask().join().unwrap(), "answer 5");
}
