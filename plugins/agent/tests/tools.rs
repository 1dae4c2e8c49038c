//! The tools on real programs, with the readers that others use for the same files.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use devloop_agent::protocol::{ByteString, Decoder, encode};
use devloop_agent::tools::{CoreAnswer, FileAnswer, ShellInput, ShellOutput, Stack, StackAnswer, Way};
use serde::de::DeserializeOwned;

/// One thread that works, three that wait; without frame pointers.
const SOURCE: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char marker[] = "a word in the data of the program";
char *on_heap;
volatile unsigned long total;

__attribute__((noinline)) void innermost(unsigned long number) { total += number * number; }

__attribute__((noinline)) void work(void) {
    for (unsigned long number = 0;; number++) {
        innermost(number);
    }
}

static void *wait(void *unused) {
    pause();
    return unused;
}

int main(void) {
    pthread_t thread;
    on_heap = malloc(3 << 20);
    memset(on_heap, 'h', 3 << 20);
    for (int number = 0; number < 3; number++) {
        pthread_create(&thread, NULL, wait, NULL);
    }
    puts("ready");
    fflush(stdout);
    work();
    return 0;
}
"#;

struct Victim {
    child: Child,
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Victim {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("victim.c"), folder.path().join("victim"));
        std::fs::write(&source, SOURCE).unwrap();
        let built = Command::new("cc").args(["-g", "-O1", "-fomit-frame-pointer", "-pthread", "-o"]).arg(&program).arg(&source).status();
        assert!(built.unwrap().success());
        let mut child = Command::new(&program).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Self { child, program, folder }
    }

    fn words(&self) -> [String; 2] {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        [self.child.id().to_string(), fields.split_whitespace().nth(19).unwrap().to_owned()]
    }

    /// It runs, and nobody traces it.
    #[track_caller]
    fn runs_on(&self) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        assert!(status.contains("TracerPid:\t0\n") && status.contains("State:\tR"), "{status}");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent that runs a tool.
struct Tool {
    child: Child,
    stdin: Option<ChildStdin>,
    decoder: Decoder,
}

impl Tool {
    fn start(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devloop-agent"));
        let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        Self { child, stdin, decoder: Decoder::new() }
    }

    fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut piece = [0; 64 * 1024];
        loop {
            if let Some(message) = self.decoder.pop().unwrap() {
                return Some(message);
            }
            match self.child.stdout.as_mut().unwrap().read(&mut piece).unwrap() {
                0 => return None,
                length => self.decoder.push(&piece[..length]),
            }
        }
    }

    fn tell(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a core file; answers the microseconds that the victim stood still.
fn core(victim: &Victim, path: &Path) -> u64 {
    let [pid, start] = victim.words();
    let mut tool = Tool::start(&["core", &pid, &start]);
    let (threads, stopped) = write_core(&mut tool, path);
    assert_eq!(threads, 4);
    stopped
}

fn write_core(tool: &mut Tool, path: &Path) -> (u32, u64) {
    assert!(matches!(tool.next(), Some(CoreAnswer::Planned { content: 1.., threads: 1.., is_slow: false })));
    tool.tell(b".");
    let file = File::create(path).unwrap();
    loop {
        match tool.next().unwrap() {
            CoreAnswer::Piece(piece) => {
                let offset = piece.offset;
                file.write_all_at(&piece.into_bytes().unwrap(), offset).unwrap();
            }
            CoreAnswer::Done { size, threads, stopped_micros } => {
                file.set_len(size).unwrap();
                return (threads, stopped_micros);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn gdb(victim: &Victim, core: &Path, commands: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx"]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.arg(&victim.program).arg(core).output().expect("gdb is missing; `scripts/setup --tests` installs it");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_core_file_is_read_by_gdb() {
    let victim = Victim::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("core");
    assert!(core(&victim, &path) > 0);
    victim.runs_on();
    let commands = ["info threads", "thread apply all bt", "p marker", "p on_heap[3145727]", "info registers rip pc", "x/i $pc"];
    let said = gdb(&victim, &path, &commands);
    assert!(said.contains("a word in the data of the program") && said.contains("104 'h'"), "{said}");
    assert_eq!(said.matches("wait (unused=").count(), 3, "{said}");
    assert!(said.contains("work () at") && said.contains("main () at"), "{said}");
    assert!(!said.contains("Cannot access memory") && !said.contains("corrupt"), "{said}");
    // The holes take no space.
    use std::os::unix::fs::MetadataExt;
    let metadata = path.metadata().unwrap();
    assert!(metadata.blocks() * 512 < metadata.len(), "{} {}", metadata.blocks(), metadata.len());
}

#[test]
fn whoever_ends_a_core_file_the_process_runs_on() {
    let victim = Victim::start();
    let [pid, start] = victim.words();
    // The client goes at each step: before it begins, and in the middle.
    let mut tool = Tool::start(&["core", &pid, &start]);
    assert!(matches!(tool.next(), Some(CoreAnswer::Planned { .. })));
    tool.stdin = None;
    assert_eq!(tool.next::<CoreAnswer>(), None);
    victim.runs_on();
    let mut tool = Tool::start(&["core", &pid, &start]);
    assert!(matches!(tool.next(), Some(CoreAnswer::Planned { .. })));
    tool.tell(b".");
    assert!(matches!(tool.next(), Some(CoreAnswer::Piece(_))));
    tool.child.kill().unwrap();
    tool.child.wait().unwrap();
    victim.runs_on();
    // Another process with the same number is not looked at.
    let mut tool = Tool::start(&["core", &pid, "1"]);
    assert!(matches!(tool.next(), Some(CoreAnswer::Failed(_))));
}

/// All that a tool says of stacks.
fn stacks(mut tool: Tool) -> (Way, Vec<Stack>) {
    let (mut way, mut all) = (None, Vec::new());
    loop {
        match tool.next().unwrap() {
            StackAnswer::Began { way: began } => way = Some(began),
            StackAnswer::Stacks(stacks) => all.extend(stacks),
            StackAnswer::CodeFiles(files) => assert!(files.iter().any(|file| file.path.0.ends_with(b"/victim"))),
            StackAnswer::Ended { .. } => return (way.unwrap(), all),
            StackAnswer::Failed(refusal) => panic!("{refusal:?}"),
        }
    }
}

#[test]
fn stacks_are_whole_without_frame_pointers() {
    let victim = Victim::start();
    let [pid, start] = victim.words();
    let (way, all) = stacks(Tool::start(&["stacks", &pid, &start]));
    victim.runs_on();
    assert_eq!((way, all.len()), (Way::Frozen, 4));
    assert!(all.iter().all(|stack| stack.is_whole), "{all:?}");
    // innermost or work, main, what calls main, and where the program begins.
    assert!(all[0].addresses.len() >= 4 && all[0].state == 'R' && all[0].name == "victim", "{all:?}");
    let (_, all) = stacks(Tool::start(&["profile", &pid, &start, "300", "99"]));
    assert!(all.iter().map(|stack| stack.count).sum::<u32>() > 0 && all.iter().all(|stack| stack.is_whole), "{all:?}");
    victim.runs_on();
}

#[test]
fn a_code_file_comes_whole() {
    let victim = Victim::start();
    let [pid, start] = victim.words();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.contains("r-xp") && line.ends_with("/victim")).unwrap();
    let address = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap().to_string();
    let mut tool = Tool::start(&["code-file", &pid, &start, &address]);
    let mut bytes = Vec::new();
    while let Some(FileAnswer::Piece(piece)) = tool.next() {
        bytes.extend(piece.into_bytes().unwrap());
    }
    assert_eq!(bytes, std::fs::read(&victim.program).unwrap());
}

fn told(message: &ShellInput) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(message, &mut frame).unwrap();
    frame
}

/// What a command in a toolbox says, and its exit code.
fn shell(tool: &mut Tool) -> (String, u8) {
    let mut said = Vec::new();
    loop {
        match tool.next().unwrap() {
            ShellOutput::Started => {}
            ShellOutput::Bytes(bytes) | ShellOutput::Complaint(bytes) => said.extend(bytes.0),
            ShellOutput::Ended { code } => return (String::from_utf8_lossy(&said).into_owned(), code),
            ShellOutput::Failed(refusal) => panic!("{refusal:?}"),
        }
    }
}

#[test]
fn a_toolbox_is_beside_the_process() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: joining namespaces needs root");
        return;
    }
    let victim = Victim::start();
    let [pid, start] = victim.words();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let run = |terminal: &str, command: &[&str], input: &[ShellInput]| {
        let mut tool = Tool::start(&[&["shell", &pid, &start, "/bin/busybox", &path, terminal, "xterm", "--"], command].concat());
        for message in input {
            tool.tell(&told(message));
        }
        shell(&mut tool)
    };
    let program = victim.program.display();
    let script = format!("ls /; cmp /target/{program} /proc/{pid}/exe && echo same; echo wrong >&2; exit 7");
    let (said, code) = run("-", &["sh", "-c", &script], &[]);
    assert!(said.contains("same") && said.contains("wrong") && said.contains("target"), "{said}");
    assert_eq!(code, 7);
    // What is typed arrives, and its end.
    let typed = [ShellInput::Bytes(ByteString(b"hello".to_vec())), ShellInput::End];
    assert_eq!(run("-", &["cat"], &typed), ("hello".to_owned(), 0));
    // With a terminal, its size, and keys that are signals.
    let sized = [ShellInput::Size { columns: 100, rows: 40 }, ShellInput::Bytes(ByteString(b"stty size; exit 3\n".to_vec()))];
    let (said, code) = run("80x25", &["sh"], &sized);
    assert!(said.contains("40 100"), "{said}");
    assert_eq!(code, 3);
    assert_eq!(run("80x25", &["sleep", "1000"], &[ShellInput::Bytes(ByteString(vec![3]))]).1, 130);
    // Nothing is left on this machine.
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&path));
    // A program that is not there.
    let mut tool = Tool::start(&["shell", &pid, &start, "/bin/busybox", &path, "-", "xterm", "--", "nowhere"]);
    assert!(matches!(tool.next(), Some(ShellOutput::Failed(refusal)) if refusal.message.contains("nowhere")));
}

#[test]
fn a_toolbox_goes_with_its_client() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: joining namespaces needs root");
        return;
    }
    let victim = Victim::start();
    let [pid, start] = victim.words();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let mut tool = Tool::start(&["shell", &pid, &start, "/bin/busybox", &path, "-", "xterm", "--", "sh", "-c", "echo $$; sleep 1000"]);
    assert!(matches!(tool.next(), Some(ShellOutput::Started)));
    let Some(ShellOutput::Bytes(said)) = tool.next() else { panic!("it said nothing") };
    let shell: u32 = String::from_utf8_lossy(&said.0).trim().parse().unwrap();
    assert!(Path::new(&format!("/proc/{shell}")).exists());
    tool.stdin = None;
    assert_eq!(tool.next::<ShellOutput>(), None);
    tool.child.wait().unwrap();
    assert!(!Path::new(&format!("/proc/{shell}")).exists());
    victim.runs_on();
}

const GO_SOURCE: &str = r#"package main

import (
	"fmt"
	"time"
)

//go:noinline
func worker(number int, done chan int) { done <- 0; done <- number }

func main() {
	word, done := "a word on the stack of main", make(chan int)
	go worker(7, done)
	fmt.Println("ready", <-done)
	for {
		time.Sleep(time.Hour)
		fmt.Println(word)
	}
}
"#;

/// Delve is built for it, once.
#[test]
fn a_core_file_is_read_by_delve() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("go.mod"), "module example.com/tiny\n\ngo 1.21\n").unwrap();
    std::fs::write(folder.path().join("main.go"), GO_SOURCE).unwrap();
    let go = || {
        let mut go = Command::new("go");
        go.current_dir(folder.path()).env("CGO_ENABLED", "0").env_remove("GOFLAGS");
        go
    };
    assert!(go().args(["build", "-o", "victim", "."]).status().unwrap().success());
    let program = folder.path().join("victim");
    let mut child = Command::new(&program).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let victim = Victim { child, program, folder };
    let [pid, start] = victim.words();
    let mut tool = Tool::start(&["core", &pid, &start, "--sparing"]);
    let path = victim.folder.path().join("core");
    write_core(&mut tool, &path);
    let mut delve = Command::new("go")
        .args(["run", "-trimpath", "github.com/go-delve/delve/cmd/dlv@v1.27.2", "core"])
        .args([&victim.program, &path])
        .arg("--allow-non-terminal-interactive=true")
        .current_dir("/")
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    delve.stdin.take().unwrap().write_all(b"goroutines\ngoroutine 1 frame 2 locals\ngoroutine 1 bt\nexit\n").unwrap();
    let output = delve.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("main.worker") && said.contains("main.main") && said.contains("time.Sleep"), "{said}");
    assert!(said.contains("main.go:16"), "{said}");
}
