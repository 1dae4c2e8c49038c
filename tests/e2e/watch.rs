//! Sees to it that a test that waits in vain fails, and tells for what: nothing else
//! would say so before whoever runs all of them loses patience with all.

use crate::clusters::say;
use devloop_tests::program::Program;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Several times what the longest test takes on a slow machine, its cluster's start
/// included.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// What a test gets to fail by itself once its programs have ended.
const GRACE: Duration = Duration::from_secs(2 * 60);

/// A test that is watched until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    _running_tx: Sender<()>,
}

impl Watch {
    pub(crate) fn start(name: String) -> Self {
        let (running_tx, running_rx) = channel::<()>();
        std::thread::spawn(move || {
            if running_rx.recv_timeout(LIMIT) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            say(&format!("{name} has run for {LIMIT:?}; its programs are ended now:\n{}", processes()));
            let own = std::process::id().to_string();
            // It may have none.
            let _ = Program::new("pkill").args(["--signal", "KILL", "--parent", &own]).run();
            if running_rx.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
                say(&format!("{name} goes on without them: given up. What it has left is cleared by the next run."));
                std::process::exit(1);
            }
        });
        Self { _running_tx: running_tx }
    }
}

/// All of the machine's, by whose children they are: what hangs may be any of them.
fn processes() -> String {
    Program::new("ps")
        .args(["--ppid", "2", "-p", "2", "--deselect", "--forest", "-o", "pid,ppid,etimes,stat,wchan:20,args", "--cols", "200"])
        .run()
        .stdout
}
