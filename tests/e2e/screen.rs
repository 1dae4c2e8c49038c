//! `kubectl logs-tail --ui` in a real terminal: tmux types, and reads the screen.

use crate::{Case, shared};
use devloop_tests::eventually;
use devloop_tests::program::Program;
use devloop_tests::toolbox::IMAGE;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("logs_tail::screen_filters_pauses_finds_errors_and_gives_the_terminal_back", screen),
        ("logs_tail::screen_ends_by_a_signal_and_needs_a_terminal", endings),
    ]
}

const POD: &str = "for i in 1 2 3 4 5 6 7 8 9; do echo INFO line $i; done; echo 'ERROR disk is full'; \
    echo INFO after; while :; do sleep 1; i=$((i+1)); echo INFO tick $i; done";

/// A terminal of 90 columns and 20 rows with a shell in it.
struct Terminal {
    /// The name of its server: a path in the test's folder may be too long for a socket.
    server: String,
}

impl Terminal {
    fn open(name: &str) -> Self {
        let terminal = Self { server: format!("devloop-e2e-{}-{name}", std::process::id()) };
        let folder = shared().scratch(name);
        // The shell has the environment of our programs.
        let session =
            ["-u", "-f", "/dev/null", "new-session", "-d", "-x", "90", "-y", "20", "-c", folder.to_str().unwrap(), "env PS1='ready$ ' sh"];
        terminal.tmux(&session).run().ok();
        terminal.wait("ready$");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Program {
        shared().apply(Program::new("tmux").args(["-L", &self.server]).args(arguments)).env("LC_ALL", "C.UTF-8")
    }

    /// Types; `Enter`, `Escape`, `C-c` and the like are keys.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat()).run().ok();
    }

    fn command(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]).run().ok();
        self.press(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).run().ok()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        eventually(what, Duration::from_secs(30), || {
            let screen = self.screen();
            if is_so(&screen) { Ok(screen) } else { Err(screen) }
        })
    }

    fn wait(&self, text: &str) -> String {
        self.wait_until(&format!("{text:?} is on the screen"), |screen| screen.contains(text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).run();
    }
}

fn start(terminal: &Terminal, name: &str) {
    terminal.command(&format!("kubectl-logs_tail --context {} pod/{name} --ui", shared().context()));
}

fn pod(name: &str) {
    shared().kubectl(["run", name, "--image", IMAGE, "--image-pull-policy=Never", "--restart=Never", "--", "-c", POD]).run().ok();
    shared().kubectl(["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).run().ok();
}

fn screen() {
    pod("screen");
    let terminal = Terminal::open("screen");
    start(&terminal, "screen");
    let first = terminal.wait("INFO tick");
    assert!(first.contains("1 container") && first.contains("E screen ERROR disk is full"), "{first}");
    terminal.press(&["/"]);
    terminal.press(&["-l", "line [34]"]);
    let filtered = terminal.wait_until("only what is asked for is shown", |screen| screen.contains("2 shown"));
    assert!(filtered.contains("INFO line 3") && filtered.contains("INFO line 4") && !filtered.contains("tick"), "{filtered}");
    // Back to all of them, then to the error, where it stays.
    terminal.press(&["Escape"]);
    terminal.wait("INFO tick");
    terminal.press(&["E"]);
    terminal.wait_until("it stays and counts", |screen| screen.contains("PAUSED") && !screen.contains("PAUSED, 0 new"));
    terminal.press(&["s"]);
    terminal.wait("records saved to logs-tail-");
    terminal.tmux(&["resize-window", "-x", "50", "-y", "8"]).run().ok();
    terminal.wait_until("it is drawn anew", |screen| screen.lines().count() == 8 && screen.contains("ERROR disk is full"));
    terminal.press(&["q"]);
    let after = terminal.wait_until("the shell is back", |screen| screen.contains("ready$") && !screen.contains("PAUSED"));
    assert!(!after.contains("INFO tick"), "the screen of before: {after}");
    // Lines are lines again, and what is typed is seen.
    terminal.command("cat logs-tail-*.log | grep -c 'screen/screen ERROR disk is full'; rm logs-tail-*.log; stty -a");
    let shell = terminal.wait_until("the terminal is as before", |screen| screen.contains(" echo "));
    assert!(shell.contains(" icanon ") && shell.contains("isig"), "{shell}");
    shared().kubectl(["delete", "pod", "screen", "--wait=false"]).run().ok();
}

fn endings() {
    let refused = shared().plugin("kubectl-logs_tail", ["--context", &shared().context(), "pod/x", "--ui"]).run().fails_with(2);
    assert!(refused.contains("--ui needs a terminal"), "{refused}");
    pod("screen-end");
    let terminal = Terminal::open("screen-end");
    start(&terminal, "screen-end");
    terminal.wait("INFO tick");
    let tty = terminal.tmux(&["display-message", "-p", "#{pane_tty}"]).run().ok();
    let tty = tty.trim().trim_start_matches("/dev/");
    Program::new("pkill").args(["-TERM", "-t", tty, "-f", "kubectl-logs_tail"]).run().ok();
    terminal.wait_until("the shell is back", |screen| screen.contains("ready$") && !screen.contains("INFO tick"));
    terminal.command("stty -a");
    let shell = terminal.wait(" icanon ");
    assert!(shell.contains(" echo "), "{shell}");
    shared().kubectl(["delete", "pod", "screen-end", "--wait=false"]).run().ok();
}
