//! The rules of a session, and files, with the real agent binary and a real
//! container.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

use devloop_agent::protocol::{ByteString, ErrorKind, MAX_CHUNK, Request, Response, VERSION};
use support::client::{error, one};
use support::container::{GID, UID};
use support::{Client, Container, Options, eventually};

fn put(container: &Container, path: &str, size: u64) -> Request {
    Request::PutFile { processes: vec![container.process], path: path.into(), mode: None, size, modified: None, base: None }
}

fn data(bytes: &[u8]) -> Request {
    Request::Data { bytes: bytes.to_vec().into() }
}

#[test]
fn the_command_line() {
    let agent = |argument: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devloop-agent"));
        command.arg(argument).stdin(Stdio::null()).output().unwrap()
    };
    let version = agent("--version");
    assert_eq!(version.status.code(), Some(0));
    let expected = concat!("devloop-agent ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
    let wrong = agent("--help-me");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty());
    assert!(String::from_utf8(wrong.stderr).unwrap().starts_with("usage: "));
    assert_eq!(agent("serve").status.code(), Some(0));
    // With its input closed at once, as by a client that never came.
    let beside = Command::new(env!("CARGO_BIN_EXE_devloop-agent")).args(["serve", "--beside"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(beside.status.code(), Some(0));
}

#[test]
fn hello_and_goodbye() {
    let mut client = Client::silent();
    match client.ask(Request::Hello { version: VERSION }) {
        Response::Hello { version, build, arch } => {
            assert_eq!((version, build.as_str()), (VERSION, env!("CARGO_PKG_VERSION")));
            assert_eq!(arch, std::env::consts::ARCH);
        }
        other => panic!("{other:?}"),
    }
    let (status, text) = client.end();
    assert!(status.success() && text.is_empty(), "{text}");
}

#[test]
fn broken_rules_are_answered_and_end_the_agent() {
    let hello = |version| Request::Hello { version };
    let no_transfer = || data(b"x");
    let cases = [
        (vec![hello(VERSION + 1)], "protocol version"),
        (vec![Request::AbortFile], "not hello"),
        (vec![hello(VERSION), hello(VERSION)], "said before"),
        (vec![hello(VERSION), no_transfer()], "no transfer"),
        (vec![hello(VERSION), Request::AbortFile], "no transfer"),
    ];
    for (requests, expected) in cases {
        let mut client = Client::silent();
        for request in requests {
            client.send(7, request);
        }
        let mut last = None;
        while let Some(message) = client.receive() {
            assert_eq!(message.id, 7);
            last = Some(message.body);
        }
        let (kind, message) = error(last.unwrap());
        assert_eq!(kind, ErrorKind::Protocol);
        assert!(message.contains(expected), "{message}");
        let (status, text) = client.end();
        assert_eq!(status.code(), Some(1));
        assert!(text.starts_with("Error: ") && text.contains(expected), "{text}");
    }
}

#[test]
fn garbage_is_answered_and_ends_the_agent() {
    let mut client = Client::start();
    client.send_raw(&[0xff; 64]);
    let message = client.receive().unwrap();
    assert_eq!(message.id, 0);
    assert_eq!(error(message.body).0, ErrorKind::Protocol);
    assert!(client.receive().is_none());
    assert_eq!(client.end().0.code(), Some(1));
}

#[test]
fn a_client_that_went_away_is_no_error() {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_devloop-agent"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(agent.stdout.take());
    let mut frame = Vec::new();
    let hello = devloop_agent::protocol::Message { id: 1, body: Request::Hello { version: VERSION } };
    devloop_agent::protocol::encode(&hello, &mut frame).unwrap();
    std::io::Write::write_all(agent.stdin.as_mut().unwrap(), &frame).unwrap();
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
}

#[test]
fn files_are_written_as_the_containers_user() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    // Over several chunks, not a multiple of them.
    let bytes: Vec<u8> = (0..1_000_003_u32).map(|number| (number * 7) as u8).collect();
    match client.put(container.process, "/app/static/deep/file", &bytes) {
        Response::Written { blake3, .. } => assert_eq!(blake3.unwrap(), *blake3::hash(&bytes).as_bytes()),
        other => panic!("{other:?}"),
    }
    assert!(fs::read(container.path("/app/static/deep/file")).unwrap() == bytes);
    for path in ["/app/static", "/app/static/deep", "/app/static/deep/file"] {
        let made = fs::metadata(container.path(path)).unwrap();
        assert_eq!((made.uid(), made.gid()), (UID, GID), "{path}");
    }
    let empty = client.put(container.process, "/app/empty", b"");
    assert!(matches!(empty, Response::Written { .. }), "{empty:?}");
    assert_eq!(fs::read(container.path("/app/empty")).unwrap(), b"");
    assert_eq!(container.names("/app"), ["empty", "server", "static"]);
}

#[test]
fn requests_can_be_sent_ahead() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    for number in 0..50_u32 {
        client.send(100 + number, put(&container, &format!("/app/f{number}"), 4));
        // Others may come in the middle of a transfer.
        client.send(500 + number, Request::Alive { process: container.process });
        client.send(100 + number, data(b"text"));
    }
    for number in 0..50 {
        assert_eq!(client.answer_to(500 + number), Response::Alive { running: true });
        assert!(matches!(client.answer_to(100 + number), Response::Written { .. }));
    }
    assert_eq!(container.names("/app").len(), 51);
}

#[test]
fn paths_can_not_leave_the_container() {
    let container = Container::start(Options::default());
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), container.path("/app/out")).unwrap();
    symlink("../../../../../../../../etc", container.path("/app/up")).unwrap();
    let mut client = Client::start();
    for path in ["/app/../../etc/x", "relative", "", "/", "/a\0b"] {
        let (kind, _) = error(client.put(container.process, path, b"x"));
        assert_eq!(kind, ErrorKind::InvalidPath, "{path:?}");
    }
    // Neither is there in the container: they are not made, least of all outside.
    for path in ["/app/out/file", "/app/up/devloop-test"] {
        let (kind, _) = error(client.put(container.process, path, b"x"));
        assert_eq!(kind, ErrorKind::NotFound, "{path:?}");
    }
    let inside = container.path(outside.path().to_str().unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::create_dir_all(container.path("/etc")).unwrap();
    let written = client.put(container.process, "/app/out/file", b"x");
    assert!(matches!(written, Response::Written { .. }), "{written:?}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(fs::read(inside.join("file")).unwrap(), b"x");
    let written = client.put(container.process, "/app/up/devloop-test", b"x");
    assert!(matches!(written, Response::Written { .. }), "{written:?}");
    assert!(container.path("/etc/devloop-test").exists());
}

#[test]
fn an_aborted_file_leaves_nothing() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    fs::write(container.path("/app/file"), "old").unwrap();
    client.send(9, put(&container, "/app/file", 10));
    client.send(9, data(b"half"));
    client.send(9, Request::AbortFile);
    assert_eq!(client.answer_to(9), Response::Aborted);
    assert_eq!(fs::read_to_string(container.path("/app/file")).unwrap(), "old");
    assert_eq!(container.names("/app"), ["file", "server"]);
    assert!(client.is_running(container.process));
}

#[test]
fn a_client_that_ends_in_the_middle_leaves_nothing() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    client.send(9, put(&container, "/app/file", MAX_CHUNK as u64 + 10));
    client.send(9, data(b"half"));
    eventually("the temporary file", || (container.names("/app").len() == 2).then_some(()));
    let (status, text) = client.end();
    assert!(status.success() && text.is_empty(), "{text}");
    assert_eq!(container.names("/app"), ["server"]);
}

#[test]
fn what_follows_a_failed_transfer_is_ignored() {
    let container = Container::start(Options { read_only: true, ..Options::default() });
    let mut client = Client::start();
    client.send(9, put(&container, "/app/file", MAX_CHUNK as u64 + 8));
    client.send(9, data(b"half"));
    client.send(9, data(b"half"));
    client.send(9, Request::AbortFile);
    let (kind, message) = error(one(client.answer_to(9)));
    assert_eq!(kind, ErrorKind::ReadOnly);
    assert!(message.contains("Read-only file system"), "{message}");
    assert!(client.is_running(container.process));
}

#[test]
fn more_data_than_announced_ends_the_agent_and_leaves_nothing() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    client.send(9, put(&container, "/app/file", 3));
    client.send(9, data(b"more"));
    assert_eq!(error(client.answer_to(9)).0, ErrorKind::Protocol);
    assert_eq!(client.end().0.code(), Some(1));
    assert_eq!(container.names("/app"), ["server"]);
}

#[test]
fn mounts_are_neither_removed_nor_written_over() {
    let container = Container::start(Options { volume: true, ..Options::default() });
    let mut client = Client::start();
    let process = container.process;
    let in_container = |path: &str| fs::read_to_string(format!("/proc/{}/root{path}", process.pid)).unwrap_or_default();
    let (kind, message) = error(client.put(process, "/app/mounted", b"x"));
    assert_eq!(kind, ErrorKind::Unsupported, "{message}");
    let mut remove = |path: &str| client.remove(process, path);
    let done = Response::Done { failed: Vec::new() };
    fs::create_dir_all(container.path("/app/tree/deep")).unwrap();
    fs::write(container.path("/app/tree/deep/file"), "x").unwrap();
    assert_eq!(remove("/app/tree"), done);
    assert_eq!(remove("/app/tree"), done);
    for path in ["/data", "/app/mounted", "/app"] {
        let (kind, message) = error(remove(path));
        assert_eq!(kind, ErrorKind::Unsupported, "{message}");
        assert_eq!(in_container("/data/kept"), "kept", "{path}");
        assert_eq!(in_container("/app/mounted"), "kept", "{path}");
    }
    // In a volume it is asked for.
    fs::write(format!("/proc/{}/root/data/other", process.pid), "x").unwrap();
    assert_eq!(remove("/data/other"), done);
    assert_eq!(in_container("/data/other"), "");
    assert_eq!(in_container("/data/kept"), "kept");
}

#[test]
fn a_full_file_system_is_reported_and_leaves_nothing() {
    let container = Container::start(Options { volume: true, ..Options::default() });
    let mut client = Client::start();
    let full = format!("/proc/{}/root/data", container.process.pid);
    let big = vec![0; 3 << 20];
    let response = client.put(container.process, "/data/big", &big);
    let (kind, message) = error(response);
    assert_eq!(kind, ErrorKind::NoSpace, "{message}");
    assert!(!fs::exists(format!("{full}/big")).unwrap());
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    assert!(client.is_running(container.process));
}

#[test]
fn an_unknown_container_is_not_found() {
    let mut client = Client::start();
    let container_id = format!("containerd://{}", "0".repeat(64));
    let (kind, message) = error(client.ask(Request::Locate { container_id }));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(message.contains("no process on this node"), "{message}");
}

#[test]
fn a_path_need_not_be_text() {
    let container = Container::start(Options::default());
    let path = ByteString(b"/app/\xff\xfe".to_vec());
    let processes = vec![container.process];
    let request = Request::PutFile { processes, path, mode: None, size: 1, modified: None, base: None };
    let mut client = Client::start();
    let response = client.transfer(request, b"x");
    assert!(matches!(response, Response::Written { .. }), "{response:?}");
    assert_eq!(fs::read_dir(container.path("/app")).unwrap().count(), 2);
}
