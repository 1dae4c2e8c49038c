//! The supervisor and the copy of the agent, with the real binary and real
//! programs.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use devloop_agent::supervise::RESTART_SIGNAL;
use nix::libc;
use tempfile::TempDir;

const AGENT: &str = env!("CARGO_BIN_EXE_devloop-agent");

fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A supervised shell script that can be exchanged.
struct Supervised {
    folder: TempDir,
    process: Child,
    /// The supervisor itself, which may be below what was started.
    pid: u32,
}

impl Supervised {
    fn start(script: &str, grace: &str) -> Self {
        // A signal that the tests' own parent ignores (nohup(1), `&`) would be ignored
        // below, too, and no shell can trap it.
        Self::start_by(Command::new("env").args(["--default-signal", AGENT]), script, grace)
    }

    fn start_by(command: &mut Command, script: &str, grace: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        install(&folder.path().join("app"), script);
        command.args(["supervise", "--grace", grace, "--"]).arg(folder.path().join("app")).arg("an argument").current_dir(folder.path());
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = process.id();
        Self { folder, process, pid }
    }

    fn install(&self, script: &str) {
        install(&self.folder.path().join("app"), script);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The content of a file that a script writes, once it is there as a whole.
    fn told(&self, name: &str) -> String {
        eventually(name, || fs::read_to_string(self.path(name)).ok().filter(|text| text.ends_with('\n'))).trim_end().to_owned()
    }

    fn send(&self, signal: i32) {
        send(self.pid, signal);
    }

    fn end(mut self) -> Output {
        eventually("the end of the supervisor", || self.process.try_wait().unwrap());
        self.process.wait_with_output().unwrap()
    }
}

fn install(path: &Path, script: &str) {
    // A new file, as a running script is read from the old one.
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, path).unwrap();
}

fn send(pid: u32, signal: i32) {
    // SAFETY: it touches no memory; the process is a child of this one's.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}

fn is_running(pid: &str) -> bool {
    // A zombie that nobody reaped is not.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_program_is_as_without_a_supervisor() {
    let program = r#"echo "$0 $1 $# $PWD $FLAVOUR"; id -u; cat; exit 7"#;
    let folder = tempfile::tempdir().unwrap();
    install(&folder.path().join("app"), program);
    let run = |command: &mut Command| {
        command.arg(folder.path().join("app")).arg("an argument").env("FLAVOUR", "plain").current_dir(folder.path());
        let input = fs::File::open(folder.path().join("app")).unwrap();
        command.stdin(input).output().unwrap()
    };
    let plain = run(Command::new("env").arg("--"));
    let supervised = run(Command::new(AGENT).args(["supervise", "--"]));
    assert_eq!(supervised.status.code(), Some(7));
    assert_eq!(String::from_utf8(supervised.stdout).unwrap(), String::from_utf8(plain.stdout).unwrap());
    assert_eq!(String::from_utf8(supervised.stderr).unwrap(), "");
}

#[test]
fn its_signals_are_as_they_were() {
    let program = ["grep", "-E", "SigBlk|SigIgn|SigPnd", "/proc/self/status"];
    let plain = Command::new("env").args(program).output().unwrap();
    let supervised = Command::new(AGENT).args(["supervise", "--"]).args(program).output().unwrap();
    assert_eq!(String::from_utf8(supervised.stdout).unwrap(), String::from_utf8(plain.stdout).unwrap());
}

#[test]
fn a_program_that_was_killed_is_told_by_the_status() {
    let killed = Supervised::start("kill -KILL $$", "1").end();
    assert_eq!(killed.status.code(), Some(137));
    // As a program that ends by a signal without a name.
    let killed = Supervised::start("kill -40 $$", "1").end();
    assert_eq!(killed.status.code(), Some(168));
}

#[test]
fn what_can_not_be_started_ends_it_as_a_shell_would() {
    let run = |program: &Path| Command::new(AGENT).args(["supervise", "--"]).arg(program).output().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let missing = run(&folder.path().join("missing"));
    assert_eq!(missing.status.code(), Some(127));
    assert!(stderr(&missing).starts_with("devloop: cannot start "), "{}", stderr(&missing));
    fs::write(folder.path().join("text"), "not a program").unwrap();
    assert_eq!(run(&folder.path().join("text")).status.code(), Some(126));
    let nothing = Command::new(AGENT).args(["supervise", "--"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    assert!(stderr(&nothing).starts_with("Error: there is no program after --\nusage: "), "{}", stderr(&nothing));
}

#[test]
fn signals_reach_the_program() {
    let signals = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("WINCH", libc::SIGWINCH),
    ];
    let mut script: String = signals.iter().map(|(name, _)| format!("trap 'echo {name} > {name}' {name}\n")).collect();
    script += "trap 'echo TERM > TERM; exit 5' TERM\necho ready > ready\nwhile :; do sleep 0.01; done";
    let supervised = Supervised::start(&script, "10");
    supervised.told("ready");
    for (name, signal) in signals {
        supervised.send(signal);
        supervised.told(name);
    }
    supervised.send(libc::SIGTERM);
    supervised.told("TERM");
    let output = supervised.end();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_restart_runs_what_is_there_now() {
    let first = "trap 'echo $1 > ended; exit 0' TERM; echo $$ > first; while :; do sleep 0.01; done";
    let supervised = Supervised::start(first, "10");
    let first = supervised.told("first");
    supervised.install("echo $$ > second; exec sleep 1000");
    supervised.send(RESTART_SIGNAL);
    let second = supervised.told("second");
    assert_eq!(supervised.told("ended"), "an argument");
    assert!(first != second && !is_running(&first) && is_running(&second));
    // And again, and then to the end.
    supervised.install("echo $$ > third; exec sleep 1000");
    supervised.send(RESTART_SIGNAL);
    let third = supervised.told("third");
    assert!(!is_running(&second));
    supervised.send(libc::SIGTERM);
    let output = supervised.end();
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert!(!is_running(&third));
    assert_eq!(stderr(&output), "");
}

#[test]
fn one_that_does_not_listen_is_killed_with_all_below() {
    // Below it: one that ignores signals, and the orphan of one that ended.
    let script = "trap '' TERM HUP
        sh -c 'echo $$ > child; while :; do sleep 0.1; done' &
        sh -c 'setsid sh -c \"echo \\$\\$ > orphan; while :; do sleep 0.1; done\" & exit 0'
        echo $$ > main; while :; do sleep 0.1; done";
    let supervised = Supervised::start(script, "0.2");
    let old: Vec<String> = ["main", "child", "orphan"].iter().map(|name| supervised.told(name)).collect();
    supervised.install("echo $$ > second; exec sleep 1000");
    supervised.send(RESTART_SIGNAL);
    supervised.told("second");
    for pid in &old {
        assert!(!is_running(pid), "{pid} of {old:?}");
    }
    supervised.send(libc::SIGKILL);
    let second = supervised.told("second");
    send(second.parse().unwrap(), libc::SIGKILL);
    let output = supervised.end();
    assert_eq!(output.status.signal(), Some(libc::SIGKILL));
    assert!(stderr(&output).contains("did not end within 200ms of SIGTERM"), "{}", stderr(&output));
}

#[test]
fn a_new_version_that_crashes_leaves_the_container() {
    let mut supervised = Supervised::start("echo $$ > first; exec sleep 1000", "10");
    supervised.told("first");
    let mut log = BufReader::new(supervised.process.stderr.take().unwrap()).lines();
    let mut logged = |expected: &str| {
        let line = log.next().unwrap().unwrap();
        assert!(line.starts_with("devloop: ") && line.contains(expected), "{line}");
    };
    supervised.install("exit 101");
    supervised.send(RESTART_SIGNAL);
    logged("ended with status 101 right after its restart");
    supervised.install("echo $$ > second; exec sleep 1000");
    supervised.send(RESTART_SIGNAL);
    supervised.told("second");
    // One that is gone altogether is no different.
    fs::remove_file(supervised.path("app")).unwrap();
    supervised.send(RESTART_SIGNAL);
    logged("No such file");
    supervised.install("kill -KILL $$");
    supervised.send(RESTART_SIGNAL);
    logged("ended by signal 9 right after its restart");
    // The end of the pod.
    supervised.send(libc::SIGTERM);
    assert_eq!(supervised.end().status.code(), Some(143));
}

#[test]
fn as_a_first_process_it_reaps_and_is_heard() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let script = "sh -c 'sleep 0.01 & exit 0'; echo $$ > first; exec sleep 1000";
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", AGENT]);
    let mut supervised = Supervised::start_by(&mut unshare, script, "0.5");
    supervised.told("first");
    let outer = supervised.pid;
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    supervised.pid = children.trim().parse().unwrap();
    let below = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", supervised.pid)).unwrap_or_default();
    eventually("the end of the orphan", || (below().split_whitespace().count() == 1).then_some(()));
    supervised.install("echo $$ > second; trap 'exit 9' TERM; while :; do sleep 0.01; done");
    supervised.send(RESTART_SIGNAL);
    supervised.told("second");
    supervised.send(libc::SIGTERM);
    let mut text = String::new();
    supervised.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(supervised.end().status.code(), Some(9), "{text}");
    assert_eq!(text, "");
}

#[test]
fn the_agent_copies_itself() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("devloop-agent");
    let run = |path: &Path| Command::new(AGENT).arg("copy-to").arg(path).output().unwrap();
    // Twice: an init container may run again.
    for _ in 0..2 {
        let output = run(&copy);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    }
    assert_eq!(fs::read(&copy).unwrap(), fs::read(AGENT).unwrap());
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(Command::new(&copy).arg("--version").status().unwrap().success());
    for (path, expected) in [(folder.path().to_owned(), "it is a folder"), (folder.path().join("missing/agent"), "No such file")] {
        let output = run(&path);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with("Error: cannot ") && stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert_eq!(Command::new(AGENT).arg("copy-to").output().unwrap().status.code(), Some(2));
}
