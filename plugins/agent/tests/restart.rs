//! Processes that are restarted in place, with all that they started.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};

use devloop_agent::protocol::{ByteString, ErrorKind, Expected, ProcessId, Request, Response};
use nix::sys::signal::Signal;
use support::client::error;
use support::container::{ControlGroup, EXECUTABLE, children_of, start_time};
use support::{Client, Container, Options, eventually, program};
use tempfile::TempDir;

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: start_time(pid) }
}

#[test]
fn children_that_hold_the_socket_are_ended_and_leave_no_zombies() {
    let container = Container::start(Options { mode: "prefork", ..Options::default() });
    // Two workers, the grandchild, and the one that ended and is not reaped.
    eventually("the workers", || (container.children().len() == 4).then_some(()));
    let mut client = Client::start();
    client.swap(container.process, &program("v2"));
    // The port could not be bound if one of the old ones held it.
    eventually("the new program", || (container.try_answer()?.get("version") == "v2").then_some(()));
    eventually("the new workers", || (container.children().len() == 4).then_some(()));
    client.restart(container.process, &[]);
    eventually("an answer of the restarted program", || container.try_answer());
    assert!(client.undo(container.process).restarted);
    eventually("the old program", || (container.try_answer()?.get("version") == "v1").then_some(()));
}

#[test]
fn a_restart_keeps_all_but_the_memory() {
    let container = Container::start(Options { mode: "sleep", ..Options::default() });
    let before = container.answer();
    let mut client = Client::start();
    let restarted = client.restart(container.process, &["/app/other"]);
    assert_eq!((restarted.process, restarted.in_memory, restarted.previous_kept), (container.process, false, false));
    let after = container.answer();
    for same in ["version", "pid", "args", "tag"] {
        assert_eq!(after.get(same), before.get(same), "{same}");
    }
    // What lies at its path is what it becomes.
    client.put(container.process, EXECUTABLE, &program("v2"));
    client.restart(container.process, &[]);
    assert_eq!(container.answer().get("version"), "v2");
}

#[test]
fn on_a_read_only_root_what_was_swapped_in_is_restarted() {
    let container = Container::start(Options { read_only: true, ..Options::default() });
    let mut client = Client::start();
    client.swap(container.process, &program("v2"));
    let restarted = client.restart(container.process, &[]);
    assert!(restarted.in_memory && restarted.previous_kept);
    assert_eq!(container.answer().get("version"), "v2");
    client.ask(Request::Rollback { process: container.process });
    assert_eq!(container.answer().get("version"), "v1");
}

/// A shell script that waits for a child, in a control group like a container's.
struct Script {
    folder: TempDir,
    shell: Child,
    group: ControlGroup,
}

impl Script {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("start.sh"), script("one")).unwrap();
        let shell = Command::new("/bin/sh")
            .args(["./start.sh", "word"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the script", || fs::read(folder.path().join("one")).ok());
        let child = eventually("its child", || children_of(shell.id()).first().copied());
        let group = ControlGroup::of(&[process(shell.id()), process(child)]);
        Self { folder, shell, group }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        for child in children_of(self.shell.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn script(name: &str) -> String {
    // More after the sleep, or the shell would become it.
    format!("echo \"$1\" > {name}\nsleep 1000\necho end\n")
}

#[test]
fn a_changed_script_restarts_its_shell_and_not_the_child_of_it() {
    let container = Script::start();
    let path = container.folder.path().join("start.sh");
    let mut client = Client::start();
    let Response::Located(located) = client.ask(Request::Locate { container_id: container.group.id.clone() }) else { panic!() };
    assert_eq!(located.main.pid, container.shell.id());
    assert_ne!(located.process, located.main);
    assert_eq!(located.main_argv[1], ByteString::from("./start.sh"));
    assert_eq!(located.cwd.as_path(), container.folder.path());

    client.put(located.process, path.to_str().unwrap(), script("two").as_bytes());
    let restarted = client.restart(located.process, &["/etc/other", path.to_str().unwrap()]);
    assert_eq!(restarted.process, located.main);
    let said =
        eventually("the new script", || fs::read_to_string(container.folder.path().join("two")).ok().filter(|text| !text.is_empty()));
    assert_eq!(said, "word\n");
    eventually("the end of the old child", || (!children_of(container.shell.id()).contains(&located.process.pid)).then_some(()));

    // Undone by its first process: the other one is gone.
    fs::remove_file(container.folder.path().join("one")).unwrap();
    assert!(client.undo(located.main).restarted);
    assert_eq!(fs::read_to_string(&path).unwrap(), script("one"));
    eventually("the old script", || fs::read(container.folder.path().join("one")).ok());
}

#[test]
fn signals_reach_the_process_that_is_meant() {
    let container = Container::start(Options { host_pid: true, ..Options::default() });
    let mut client = Client::start();
    let mut send = |process, signal| client.ask(Request::Signal { process, signal });
    let successor = ProcessId { start_time: container.process.start_time + 1, ..container.process };
    assert_eq!(error(send(successor, 9)).0, ErrorKind::Vanished);
    for number in [0, -1, 1000] {
        assert_eq!(error(send(container.process, number)).0, ErrorKind::Unsupported);
    }
    assert_eq!(container.answer().get("version"), "v1");
    assert_eq!(send(container.process, 9), Response::Done { failed: Vec::new() });
    eventually("its end", || (!container.is_alive()).then_some(()));
}

#[test]
fn several_containers_get_one_transfer_and_one_that_fails_is_named() {
    let (first, second) = (Container::start(Options::default()), Container::start(Options::default()));
    let read_only = Container::start(Options { read_only: true, ..Options::default() });
    let gone = ProcessId { pid: first.process.pid, start_time: 1 };
    let mut client = Client::start();
    let processes = [first.process, read_only.process, gone, second.process];
    let bytes = vec![7; 700_000];
    let Response::Written { blake3, failed } = client.put_all(&processes, "/app/file", &bytes) else { panic!() };
    assert_eq!(blake3, Some(*blake3::hash(&bytes).as_bytes()));
    let failed: Vec<_> = failed.into_iter().map(|failed| (failed.process, failed.kind)).collect();
    assert_eq!(failed, [(read_only.process, ErrorKind::ReadOnly), (gone, ErrorKind::Vanished)]);
    for container in [&first, &second] {
        assert!(fs::read(container.path("/app/file")).unwrap() == bytes);
    }
    let Response::Written { blake3: None, failed } = client.put_all(&[gone], "/app/file", b"x") else { panic!() };
    assert_eq!(failed.len(), 1);

    let request = Request::PutLink { processes: processes.to_vec(), target: "file".into(), path: "/app/link".into() };
    let Response::Done { failed } = client.ask(request) else { panic!() };
    assert_eq!(failed.len(), 2);
    assert_eq!(fs::read_link(second.path("/app/link")).unwrap().to_str(), Some("file"));
    let request = Request::Remove { processes: processes.to_vec(), path: "/app/link".into(), empty_parents: 1 };
    let Response::Done { failed } = client.ask(request) else { panic!() };
    assert_eq!(failed.len(), 1, "what is not there needs no removal: {failed:?}");
    assert!(!second.path("/app/link").is_symlink());
}

#[test]
fn a_file_is_made_of_its_last_version_and_what_is_new() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    let processes = vec![container.process];
    let old: Vec<u8> = (0..600_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let put = |size, base: Option<&[u8]>| Request::PutFile {
        processes: processes.clone(),
        path: "/app/file".into(),
        mode: Some(0o6755),
        size,
        modified: None,
        base: base.map(|base| *blake3::hash(base).as_bytes()),
    };
    client.put(container.process, "/app/file", &old);
    let new = [&old[300_000..], b"in between", &old[..300_000]].concat();
    let send = |client: &mut Client, base: &[u8]| {
        let id = client.id();
        client.send(id, put(new.len() as u64, Some(base)));
        client.send(id, Request::Copy { offset: 300_000, length: 300_000 });
        client.send(id, Request::Data { bytes: b"in between".to_vec().into() });
        client.send(id, Request::Copy { offset: 0, length: 300_000 });
        client.answer_to(id)
    };
    let Response::Written { blake3, .. } = send(&mut client, &old) else { panic!() };
    assert_eq!(blake3, Some(*blake3::hash(&new).as_bytes()));
    assert!(fs::read(container.path("/app/file")).unwrap() == new);
    // No file is made to run as its owner.
    assert_eq!(fs::metadata(container.path("/app/file")).unwrap().mode() & 0o7777, 0o755);

    // Not what the client believes, or touched since.
    assert_eq!(error(send(&mut client, &old)).0, ErrorKind::BaseChanged);
    fs::set_permissions(container.path("/app/file"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(error(send(&mut client, &new)).0, ErrorKind::BaseChanged);
    assert!(fs::read(container.path("/app/file")).unwrap() == new);
    assert_eq!(container.names("/app").len(), 2);

    // Beyond the end of the base: nothing is changed.
    client.put(container.process, "/app/file", &old);
    let id = client.id();
    client.send(id, put(500_001, Some(&old)));
    client.send(id, Request::Copy { offset: 100_000, length: 500_001 });
    assert_eq!(error(client.answer_to(id)).0, ErrorKind::BaseChanged);
    assert!(fs::read(container.path("/app/file")).unwrap() == old);
    let id = client.id();
    client.send(id, put(5, None));
    client.send(id, Request::Copy { offset: 0, length: 5 });
    assert_eq!(error(client.answer_to(id)).0, ErrorKind::Protocol);
}

#[test]
fn a_program_is_made_of_the_one_that_runs() {
    for read_only in [false, true] {
        let container = Container::start(Options { read_only, ..Options::default() });
        let mut client = Client::start();
        let (old, new) = (program("v2"), program("v1"));
        client.swap(container.process, &old);
        assert_eq!(container.answer().get("version"), "v2");
        let base = Some(*blake3::hash(&old).as_bytes());
        let id = client.id();
        let size = new.len() as u64;
        client.send(id, Request::Swap { process: container.process, executable: EXECUTABLE.into(), argv: None, size, base });
        // Where both are the same, it is taken from the old one.
        for start in (0..new.len()).step_by(4096) {
            let end = (start + 4096).min(new.len());
            if old.get(start..end) == Some(&new[start..end]) {
                client.send(id, Request::Copy { offset: start as u64, length: (end - start) as u64 });
            } else {
                client.send(id, Request::Data { bytes: new[start..end].to_vec().into() });
            }
        }
        support::client::swapped(client.answer_to(id));
        assert_eq!(container.answer().get("version"), "v1");
    }
}

#[test]
fn files_are_compared_in_the_container() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    let expected = |path: &str, content: &[u8]| Expected {
        path: path.into(),
        size: content.len() as u64,
        blake3: Some(*blake3::hash(content).as_bytes()),
        mode: None,
        link: None,
    };
    client.put(container.process, "/app/file", b"text");
    let entries =
        vec![expected("/app/file", b"text"), expected("/app/file", b"test"), expected(EXECUTABLE, &program("v1")), expected("/no", b"")];
    let answer = client.ask(Request::Check { process: container.process, entries });
    assert_eq!(answer, Response::Differing { indices: vec![1, 3] });
}
