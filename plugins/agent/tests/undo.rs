//! What the real agent changed in real containers is put back: when it is asked
//! to, when it ends, and by the next one when it was killed.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use devloop_agent::protocol::{ErrorKind, MAX_CHUNK, Request, Response, Undone};
use nix::sys::signal::{Signal, kill};
use support::client::{error, one};
use support::container::{ControlGroup, EXECUTABLE};
use support::{Client, Container, Options, Tree, eventually, program};

fn tree(container: &Container) -> Tree {
    support::tree(&container.path("/app"))
}

fn furnish(container: &Container) -> Tree {
    fs::create_dir_all(container.path("/app/static/deep")).unwrap();
    fs::write(container.path("/app/static/index"), "original").unwrap();
    fs::write(container.path("/app/static/deep/file"), "deep").unwrap();
    symlink("index", container.path("/app/static/link")).unwrap();
    tree(container)
}

/// Of each kind of change one, the process included.
fn change(client: &mut Client, container: &Container) {
    let process = container.process;
    for (path, bytes) in [("/app/static/index", "changed"), ("/app/new/file", "new"), ("/app/static/index", "again")] {
        let written = client.put(process, path, bytes.as_bytes());
        assert!(matches!(written, Response::Written { .. }), "{written:?}");
    }
    for done in [client.link(process, "/nowhere", "/app/static/link"), client.remove(process, "/app/static/deep")] {
        assert_eq!(done, Response::Done { failed: Vec::new() });
    }
    client.swap(process, &program("v2"));
    assert_eq!(container.answer().get("version"), "v2");
}

fn assert_original(container: &Container, before: &Tree) {
    assert_eq!(container.answer().get("version"), "v1");
    assert!(tree(container) == *before, "the files differ");
}

#[test]
fn all_that_was_changed_is_undone_and_the_session_goes_on() {
    let container = Container::start(Options::default());
    let before = furnish(&container);
    let mut client = Client::start();
    for _ in 0..2 {
        change(&mut client, &container);
        let undone = client.undo(container.process);
        assert!(undone.restored >= 6 && undone.restarted, "{undone:?}");
        assert_eq!(undone.process, container.process);
        assert_original(&container, &before);
        assert_eq!(client.records(), 0);
    }
    let nothing = Undone { restored: 0, restarted: false, process: container.process };
    assert_eq!(client.undo(container.process), nothing);
}

#[test]
fn an_agent_whose_client_is_gone_or_that_is_told_to_end_undoes() {
    for signal in [None, Some(Signal::SIGTERM)] {
        let container = Container::start(Options::default());
        let before = furnish(&container);
        let mut client = Client::start();
        change(&mut client, &container);
        // For the client, which runs in the same terminal.
        kill(client.pid(), Signal::SIGINT).unwrap();
        kill(client.pid(), Signal::SIGHUP).unwrap();
        assert!(client.is_running(container.process));
        assert_eq!(container.answer().get("version"), "v2");
        match signal {
            Some(signal) => {
                kill(client.pid(), signal).unwrap();
                assert!(client.receive().is_none());
            }
            None => {
                let (status, text) = client.end();
                assert!(status.success() && text.is_empty(), "{text}");
            }
        }
        assert_original(&container, &before);
    }
}

#[test]
fn a_transfer_that_an_undo_comes_into_leaves_nothing() {
    let container = Container::start(Options::default());
    let before = furnish(&container);
    let mut client = Client::start();
    let process = container.process;
    client.put(process, "/app/static/index", b"changed");
    let id = client.id();
    let path = "/app/static/index".into();
    client.send(id, Request::PutFile { processes: vec![process], path, mode: None, size: 5, modified: None, base: None });
    client.undo(process);
    // What was received so far is gone with all else that the session made.
    client.send(id, Request::Data { bytes: b"later".to_vec().into() });
    let (kind, message) = error(one(client.answer_to(id)));
    assert_eq!(kind, ErrorKind::NotFound, "{message}");
    assert!(client.end().0.success());
    assert_original(&container, &before);
}

#[test]
fn what_is_kept_stays() {
    let container = Container::start(Options::default());
    furnish(&container);
    let mut client = Client::start();
    change(&mut client, &container);
    let changed = tree(&container);
    let process = container.process;
    assert_eq!(client.ask(Request::Keep { process }), Response::Done { failed: Vec::new() });
    assert_eq!(client.records(), 0);
    assert!(client.end().0.success());
    assert!(tree(&container) == changed);
    assert_eq!(container.answer().get("version"), "v2");
}

#[test]
fn the_next_agent_undoes_for_one_that_was_killed() {
    const LARGE: u64 = 2 * MAX_CHUNK as u64;
    let container = Container::start(Options::default());
    let before = furnish(&container);
    let group = ControlGroup::with(&container);
    let locate = |client: &mut Client| match client.ask(Request::Locate { container_id: group.id.clone() }) {
        Response::Located(located) => located,
        other => panic!("{other:?}"),
    };
    let mut first = Client::start();
    assert!(!locate(&mut first).changed);
    change(&mut first, &container);
    // In the middle of a transfer.
    first.send(
        9,
        Request::PutFile {
            processes: vec![container.process],
            path: "/app/half".into(),
            mode: None,
            size: LARGE,
            modified: None,
            base: None,
        },
    );
    eventually("the temporary file", || container.names("/app").iter().any(|name| name.ends_with(".tmp")).then_some(()));
    assert!(!locate(&mut first).changed);

    // While it lives, no other one may; but it may look.
    let mut second = first.beside();
    assert!(!locate(&mut second).changed);
    let (kind, message) = error(second.put(container.process, "/app/other", b"x"));
    assert_eq!(kind, ErrorKind::InUse, "{message}");

    first.kill();
    assert!(locate(&mut second).changed);
    assert!(second.undo(container.process).restarted);
    assert_original(&container, &before);
    assert!(!locate(&mut second).changed);
    assert_eq!(second.records(), 0);
}

#[test]
fn an_agent_that_is_killed_at_any_moment_leaves_a_record_that_is_of_use() {
    let container = Container::start(Options::default());
    let before = furnish(&container);
    let process = container.process;
    let group = ControlGroup::with(&container);
    let mut agents = vec![Client::start()];
    for round in 0..12_u64 {
        let client = agents.last_mut().unwrap();
        for number in 0..200 {
            let path = format!("/app/static/{}/{number}", number % 7);
            let id = client.id();
            client.send(
                id,
                Request::PutFile { processes: vec![process], path: path.as_str().into(), mode: None, size: 4, modified: None, base: None },
            );
            client.send(id, Request::Data { bytes: b"text".to_vec().into() });
            let id = client.id();
            client.send(id, Request::Remove { processes: vec![process], path: "/app/static/deep".into(), empty_parents: 0 });
        }
        // Somewhere on the way; where that is, is left to chance.
        std::thread::sleep(std::time::Duration::from_millis(round * 3));
        client.kill();
        let mut next = client.beside();
        assert!(matches!(next.ask(Request::Locate { container_id: group.id.clone() }), Response::Located(_)));
        // Every other time by the one after the next.
        if round % 2 == 0 {
            next.undo(process);
            assert_original(&container, &before);
        }
        agents.push(next);
    }
    agents.last_mut().unwrap().undo(process);
    assert_original(&container, &before);
}

#[test]
fn nothing_is_changed_that_can_not_be_taken_down() {
    let container = Container::start(Options::default());
    let before = furnish(&container);
    let process = container.process;
    let mut client = Client::start();
    client.spoil_records();
    let answers = [
        client.put(process, "/app/static/index", b"changed"),
        client.put(process, "/app/new/file", b"new"),
        client.remove(process, "/app/static"),
        client.link(process, "x", "/app/static/link"),
        client.try_swap(process, None, &program("v2")),
    ];
    for answer in answers {
        let (kind, message) = error(answer);
        assert_eq!(kind, ErrorKind::Io, "{message}");
        assert!(message.contains("without it nothing is changed"), "{message}");
    }
    assert_original(&container, &before);
}

#[test]
fn records_of_containers_that_are_no_more_are_removed() {
    let mut first = Client::start();
    {
        let container = Container::start(Options::default());
        first.put(container.process, "/app/file", b"x");
        first.kill();
    }
    let other = Container::start(Options::default());
    assert_eq!(first.records(), 1);
    let mut second = first.beside();
    assert_eq!(second.records(), 0);
    second.put(other.process, "/app/file", b"x");
    // One in use stays.
    let third = second.beside();
    assert_eq!(third.records(), 1);
}

#[test]
fn on_a_read_only_root_the_original_program_is_executed_again() {
    let container = Container::start(Options { read_only: true, ..Options::default() });
    let mut client = Client::start();
    assert!(client.swap(container.process, &program("v2")).in_memory);
    assert!(client.undo(container.process).restarted);
    assert_eq!(container.answer().get("version"), "v1");
    let executable = fs::read_link(format!("/proc/{}/exe", container.process.pid)).unwrap();
    assert_eq!(executable.to_str(), Some(EXECUTABLE));
}

#[test]
fn a_container_that_ended_is_no_trouble() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    change_one(&mut client, &container);
    container.signal(Signal::SIGKILL);
    eventually("the end of the container", || (!container.is_alive()).then_some(()));
    let (status, text) = client.end();
    assert!(status.success() && text.is_empty(), "{text}");
}

fn change_one(client: &mut Client, container: &Container) {
    assert!(matches!(client.put(container.process, "/app/file", b"x"), Response::Written { .. }));
}
