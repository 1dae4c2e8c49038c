//! A real process in a container of our own making is swapped by the real agent.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use devloop_agent::protocol::{ByteString, ErrorKind, Located, ProcessId, Request, Response};
use nix::sys::signal::Signal;
use support::client::{error, swapped};
use support::container::{ControlGroup, EXECUTABLE, GID, UID, try_answer};
use support::{Client, Container, Options, dynamic_program, eventually, program};

/// Longer than the kernel takes as one argument (MAX_ARG_STRLEN, 128 KiB): a
/// sure way to make the execve itself fail.
fn oversized_argument() -> Option<Vec<ByteString>> {
    Some(vec![ByteString(vec![b'x'; 200_000])])
}

/// Whether a piece of the process's memory is the block with that argument.
fn holds_oversized_argument(container: &Container) -> bool {
    let pid = container.process.pid;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains(" rw-p ")).any(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        // In its middle, whatever the kernel merged it with.
        (address(start)..address(end)).step_by(4096).any(|page| {
            let mut bytes = [0; 4096];
            memory.read_exact_at(&mut bytes, page).is_ok() && bytes.iter().all(|byte| *byte == b'x')
        })
    })
}

fn mode(mode: &'static str) -> Options<'static> {
    Options { mode, ..Options::default() }
}

#[test]
fn the_new_program_has_all_that_the_old_one_had_and_nothing_more() {
    let container = Container::start(mode("sleep"));
    let before = container.answer();
    assert_eq!(container.status("SigBlk"), "0000000000000200");
    assert_eq!(container.descriptors().iter().filter(|fd| fd.starts_with("socket:")).count(), 2);

    let mut client = Client::start();
    let swap = client.swap(container.process, &program("v2"));
    assert_eq!(swap.process, container.process);
    assert!(!swap.in_memory && swap.previous_kept);
    let phases = swap.phases;
    assert!(
        phases.received_us <= phases.written_us
            && phases.written_us <= phases.stopped_us
            && phases.stopped_us <= phases.executed_us
            && phases.received_us > 0,
        "{phases:?}"
    );

    // That it answers at all: the leaked socket on the same port was closed.
    let after = container.answer();
    assert_eq!(after.get("version"), "v2");
    assert_eq!(after.get("pid"), "1");
    // The third argument is empty, and is one.
    assert_eq!(after.get("args"), format!("{EXECUTABLE}\x1f{}\x1fsleep\x1f", container.port));
    for same in ["pid", "args", "tag"] {
        assert_eq!(after.get(same), before.get(same), "{same}");
    }
    assert_eq!(container.status("SigBlk"), "0000000000000000");
    assert_eq!(container.status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(container.status("TracerPid"), "0");
    assert_eq!(container.status("Name"), "server");
    assert!(client.is_running(container.process));
    // What is on disk is what runs, as its owner had it, and nothing beside it.
    assert!(fs::read(container.path(EXECUTABLE)).unwrap() == program("v2"));
    let file = fs::metadata(container.path(EXECUTABLE)).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (7, 8, 0o755));
    assert_eq!(container.names("/app"), ["server"]);
}

#[test]
fn a_container_is_located_before_and_after_it_is_swapped_in_memory() {
    let container = Container::start(Options { read_only: true, ..Options::default() });
    let group = ControlGroup::with(&container);
    let mut client = Client::start();
    let locate = |client: &mut Client| match client.ask(Request::Locate { container_id: format!("containerd://{}", group.id) }) {
        Response::Located(located) => located,
        other => panic!("{other:?}"),
    };
    let before = locate(&mut client);
    let expected = Located {
        process: container.process,
        cwd: "/".into(),
        main: container.process,
        main_argv: [EXECUTABLE, &container.port.to_string(), "idle", ""].map(ByteString::from).to_vec(),
        argv: [EXECUTABLE, &container.port.to_string(), "idle", ""].map(ByteString::from).to_vec(),
        executable: EXECUTABLE.into(),
        in_memory: false,
        uid: UID,
        gid: GID,
        machine: "x86_64".into(),
        blake3: Some(*blake3::hash(&program("v1")).as_bytes()),
        seccomp: 0,
        volumes: Vec::new(),
        changed: false,
    };
    assert_eq!(before, expected);
    client.swap(container.process, &program("v2"));
    let blake3 = Some(*blake3::hash(&program("v2")).as_bytes());
    assert_eq!(locate(&mut client), Located { in_memory: true, blake3, ..expected });
}

#[test]
fn new_arguments_are_taken() {
    let container = Container::start(Options::default());
    let port = container.port.to_string();
    let argv = ["other", &port, "idle", "--flag"].map(ByteString::from).to_vec();
    let mut client = Client::start();
    swapped(client.try_swap(container.process, Some(argv), &program("v2")));
    assert_eq!(container.answer().get("args"), format!("other\x1f{port}\x1fidle\x1f--flag"));
}

#[test]
fn rollback_brings_the_old_program_back_and_again_the_new_one() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    let process = container.process;
    let (kind, _) = error(client.ask(Request::Rollback { process }));
    assert_eq!(kind, ErrorKind::NotFound);

    let argv = ["x", &container.port.to_string(), "idle"].map(ByteString::from).to_vec();
    swapped(client.try_swap(process, Some(argv), &program("v2")));
    assert_eq!(container.answer().get("version"), "v2");
    for (version, name) in [("v1", EXECUTABLE), ("v2", "x"), ("v1", EXECUTABLE)] {
        assert!(!swapped(client.ask(Request::Rollback { process })).in_memory);
        let answer = container.answer();
        assert_eq!(answer.get("version"), version);
        assert_eq!(answer.get("args").split('\x1f').next(), Some(name));
        assert!(fs::read(container.path(EXECUTABLE)).unwrap() == program(version));
    }
    assert_eq!(container.names("/app"), ["server"]);
}

#[test]
fn on_a_read_only_root_the_program_runs_from_memory() {
    let container = Container::start(Options { read_only: true, ..Options::default() });
    let mut client = Client::start();
    let process = container.process;
    let executable = || fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap();

    assert!(client.swap(process, &program("v2")).in_memory);
    let answer = container.answer();
    assert_eq!(answer.get("version"), "v2");
    assert_eq!(answer.get("pid"), "1");
    // What `locate` makes the path of the program from.
    assert_eq!(executable().to_str(), Some("/memfd:/app/server (deleted)"));
    assert!(fs::read(container.path(EXECUTABLE)).unwrap() == program("v1"));
    assert_eq!(container.status("SigBlk"), "0000000000000000");

    // From memory to memory, and back to what was in memory before.
    assert!(client.swap(process, &program("v1")).in_memory);
    assert_eq!(container.answer().get("version"), "v1");
    assert!(swapped(client.ask(Request::Rollback { process })).in_memory);
    assert_eq!(container.answer().get("version"), "v2");
}

#[test]
fn on_a_read_only_root_rollback_executes_the_file_that_is_still_there() {
    let container = Container::start(Options { read_only: true, ..Options::default() });
    let mut client = Client::start();
    let process = container.process;
    assert!(client.swap(process, &program("v2")).in_memory);
    assert_eq!(container.answer().get("version"), "v2");
    assert!(!swapped(client.ask(Request::Rollback { process })).in_memory);
    assert_eq!(container.answer().get("version"), "v1");
    assert_eq!(fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap().to_str(), Some(EXECUTABLE));
}

#[test]
fn a_failed_execve_leaves_the_old_program_as_it_was() {
    // Whatever its first thread is doing: asleep, in a read, in a lock, running.
    for first_thread in ["sleep", "read", "futex", "spin"] {
        let container = Container::start(mode(first_thread));
        let before = container.answer();
        let descriptors = container.descriptors();
        let open = inheritable(&container);
        assert!(open >= 1);
        let mut client = Client::start();
        for _ in 0..5 {
            let response = client.try_swap(container.process, oversized_argument(), &program("v2"));
            let (kind, message) = error(response);
            assert_eq!(kind, ErrorKind::Io, "{message}");
            assert!(message.contains("Argument list too long"), "{message}");
        }
        let after = eventually("progress of the first thread", || {
            container.try_answer().filter(|now| now.number("ticks") > before.number("ticks") + 10)
        });
        assert_eq!(after.get("version"), "v1");
        assert_eq!(after.number("errors"), 0, "{first_thread}: {after:?}");
        assert_eq!(container.status("SigBlk"), "0000000000000200");
        assert_eq!(container.status("TracerPid"), "0");
        assert!(!holds_oversized_argument(&container), "memory was left behind");
        assert_eq!(container.descriptors().len(), descriptors.len());
        // The leaked socket would be inherited, as before.
        assert_eq!(inheritable(&container), open, "{first_thread}");
        assert!(fs::read(container.path(EXECUTABLE)).unwrap() == program("v1"));
        assert_eq!(container.names("/app"), ["server"]);
        // And it can still be swapped.
        client.swap(container.process, &program("v2"));
        assert_eq!(container.answer().get("version"), "v2");
    }
}

/// How many descriptors of the process lack FD_CLOEXEC: the leaked socket, and
/// what the test run itself may have passed on.
fn inheritable(container: &Container) -> usize {
    let directory = format!("/proc/{}/fdinfo", container.process.pid);
    let entries = fs::read_dir(&directory).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        if name.parse::<u32>().unwrap() < 3 {
            return false;
        }
        let info = fs::read_to_string(format!("{directory}/{name}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.is_some_and(|flags| u32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 == 0)
    });
    entries.count()
}

#[test]
fn a_failed_execve_from_memory_leaves_no_descriptor() {
    let container = Container::start(Options { read_only: true, mode: "read", ..Options::default() });
    let descriptors = container.descriptors().len();
    let mut client = Client::start();
    error(client.try_swap(container.process, oversized_argument(), &program("v2")));
    assert_eq!(container.descriptors().len(), descriptors);
    assert_eq!(container.answer().get("version"), "v1");
    assert_eq!(container.answer().number("errors"), 0);
}

#[test]
fn no_signal_is_lost_over_failed_swaps() {
    let container = Container::start(mode("signals"));
    let mut client = Client::start();
    let mut swaps = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while container.answer().number("handled") < 1800 {
        assert!(Instant::now() < deadline, "signals are no longer handled");
        error(client.try_swap(container.process, oversized_argument(), &program("v2")));
        swaps += 1;
    }
    assert!(swaps >= 3, "{swaps}");
    eventually("the last signal", || container.try_answer().filter(|answer| answer.number("handled") == 2000));
}

#[test]
fn what_is_no_program_for_this_process_is_refused_and_nothing_is_touched() {
    let container = Container::start(mode("sleep"));
    let mut client = Client::start();
    let good = program("v2");
    let mut other_machine = good.clone();
    other_machine[18] = 0xb7;
    let mut narrow = good.clone();
    narrow[4] = 1;
    let cut = good[..good.len() / 2].to_vec();
    let header = good[..64].to_vec();
    let cases = [
        (b"garbage that is no program".to_vec(), ErrorKind::NotExecutable),
        (Vec::new(), ErrorKind::NotExecutable),
        (b"#!/bin/sh\nexit 0 # long enough to hold a header\n\n\n\n\n".to_vec(), ErrorKind::NotExecutable),
        (header, ErrorKind::NotExecutable),
        (cut, ErrorKind::NotExecutable),
        (dynamic_program(), ErrorKind::NotExecutable),
        (other_machine, ErrorKind::WrongArchitecture),
        (narrow, ErrorKind::WrongArchitecture),
    ];
    for (number, (bytes, expected)) in cases.into_iter().enumerate() {
        let (kind, message) = error(client.try_swap(container.process, None, &bytes));
        assert_eq!(kind, expected, "case {number}: {message}");
        assert!(fs::read(container.path(EXECUTABLE)).unwrap() == program("v1"), "case {number}");
        assert_eq!(container.names("/app"), ["server"], "case {number}");
    }
    let answer = container.answer();
    assert_eq!((answer.get("version"), answer.number("errors")), ("v1", 0));
}

#[test]
fn a_loader_that_is_missing_is_named() {
    let container = Container::start(Options::default());
    let (_, message) = error(Client::start().try_swap(container.process, None, &dynamic_program()));
    assert!(message.contains("/lib64/ld-linux-x86-64.so.2, which is not in the container"), "{message}");
}

#[test]
fn a_new_path_is_removed_again_when_its_program_is_not_executed() {
    let container = Container::start(Options::default());
    let bytes = program("v2");
    let request = Request::Swap {
        process: container.process,
        executable: "/opt/new/server".into(),
        argv: oversized_argument(),
        size: bytes.len() as u64,
        base: None,
    };
    let mut client = Client::start();
    error(client.transfer(request, &bytes));
    assert!(container.names("/opt/new").is_empty());
}

#[test]
fn a_program_at_another_path_runs_there_and_rollback_returns_to_the_first() {
    let container = Container::start(Options::default());
    let process = container.process;
    let bytes = program("v2");
    let size = bytes.len() as u64;
    let executable = ByteString::from("/opt/new/program");
    let mut client = Client::start();
    swapped(client.transfer(Request::Swap { process, executable, argv: None, size, base: None }, &bytes));
    assert_eq!(container.answer().get("version"), "v2");
    assert_eq!(container.status("Name"), "program");
    swapped(client.ask(Request::Rollback { process }));
    assert_eq!(container.answer().get("version"), "v1");
    assert_eq!(container.status("Name"), "server");
}

#[test]
fn a_process_whose_first_thread_ended_is_swapped_by_another() {
    let container = Container::start(mode("exit"));
    eventually("the end of the first thread", || container.status("State").starts_with('Z').then_some(()));
    let mut client = Client::start();
    assert!(client.is_running(container.process));
    error(client.try_swap(container.process, oversized_argument(), &program("v2")));
    assert_eq!(container.answer().get("version"), "v1");
    let argv = ["x", &container.port.to_string(), "idle"].map(ByteString::from).to_vec();
    let swap = swapped(client.try_swap(container.process, Some(argv), &program("v2")));
    assert_eq!(swap.process, container.process);
    assert_eq!(container.answer().get("version"), "v2");
    assert_eq!(container.answer().get("pid"), "1");
    assert!(!container.status("State").starts_with('Z'));
    // Its start time is still the one that the client knows it by.
    assert!(client.is_running(container.process));
}

#[test]
fn a_suspended_process_is_swapped_and_runs_on() {
    let container = Container::start(mode("sleep"));
    container.signal(Signal::SIGSTOP);
    eventually("the suspension", || container.status("State").starts_with('T').then_some(()));
    let mut client = Client::start();
    // A failed swap leaves it suspended.
    error(client.try_swap(container.process, oversized_argument(), &program("v2")));
    eventually("the suspension", || container.status("State").starts_with('T').then_some(()));
    client.swap(container.process, &program("v2"));
    assert_eq!(container.answer().get("version"), "v2");
}

#[test]
fn a_process_under_a_debugger_is_refused_with_the_debuggers_pid() {
    let container = Container::start(mode("sleep"));
    let pid = nix::unistd::Pid::from_raw(container.process.pid.cast_signed());
    // In a thread of its own, with which the tracing ends.
    let (seized_tx, seized_rx) = std::sync::mpsc::channel();
    let (end_tx, end_rx) = std::sync::mpsc::channel::<()>();
    let debugger = thread::spawn(move || {
        nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty()).unwrap();
        seized_tx.send(nix::unistd::gettid()).unwrap();
        let _ = end_rx.recv();
    });
    // The kernel names the thread, not its process.
    let tracer = seized_rx.recv().unwrap();
    let (kind, message) = error(Client::start().try_swap(container.process, None, &program("v2")));
    assert_eq!(kind, ErrorKind::Permission);
    assert_eq!(container.answer().get("version"), "v1");
    assert!(fs::read(container.path(EXECUTABLE)).unwrap() == program("v1"));
    drop(end_tx);
    debugger.join().unwrap();
    assert!(message.contains(&format!(": process {tracer} (a debugger?) traces it")), "{message}");
    let mut client = Client::start();
    client.swap(container.process, &program("v2"));
}

#[test]
fn a_thread_that_can_not_be_stopped_is_given_up_and_runs_on() {
    let container = Container::start(mode("vfork"));
    let start = Instant::now();
    let mut client = Client::start();
    let (kind, message) = error(client.try_swap(container.process, None, &program("v2")));
    assert_eq!(kind, ErrorKind::TimedOut, "{message}");
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    assert_eq!(container.status("TracerPid"), "0");
    let answer = eventually("the end of the wait", || container.try_answer().filter(|answer| answer.number("ticks") > 10));
    assert_eq!((answer.get("version"), answer.number("errors")), ("v1", 0));
    client.swap(container.process, &program("v2"));
}

#[test]
fn a_successor_with_the_same_pid_is_not_touched() {
    let container = Container::start(Options::default());
    let mut client = Client::start();
    let mut process = container.process;
    process.start_time += 1;
    let (kind, _) = error(client.try_swap(process, None, &program("v2")));
    assert_eq!(kind, ErrorKind::Vanished);
    assert!(!client.is_running(process));
    assert_eq!(container.answer().get("version"), "v1");
}

#[test]
fn a_process_that_ends_during_the_transfer_is_an_error_and_the_agent_goes_on() {
    let container = Container::start(Options::default());
    let other = Container::start(Options::default());
    let mut client = Client::start();
    let bytes = program("v2");
    let id = client.id();
    let request =
        Request::Swap { process: container.process, executable: EXECUTABLE.into(), argv: None, size: bytes.len() as u64, base: None };
    client.send(id, request);
    container.signal(Signal::SIGKILL);
    eventually("the end of the server", || (!container.is_alive()).then_some(()));
    for chunk in bytes.chunks(100_000) {
        client.send(id, Request::Data { bytes: chunk.to_vec().into() });
    }
    let (kind, message) = error(client.answer_to(id));
    assert_eq!(kind, ErrorKind::Vanished, "{message}");
    assert!(!client.is_running(container.process));
    client.swap(other.process, &bytes);
    assert_eq!(other.answer().get("version"), "v2");
}

#[test]
fn a_seccomp_filter_that_denies_is_reported_and_survived() {
    for filter in ["seccomp-deny-execve", "seccomp-deny-mmap"] {
        let container = Container::start(mode(filter));
        let open = inheritable(&container);
        let (kind, message) = error(Client::start().try_swap(container.process, None, &program("v2")));
        // Of execve EPERM may mean more than a filter.
        let expected = [ErrorKind::Seccomp, ErrorKind::Permission];
        assert!(expected.contains(&kind), "{filter}: {kind:?} {message}");
        assert!(message.contains("Operation not permitted"), "{message}");
        assert_eq!(container.answer().get("version"), "v1");
        assert!(open >= 1);
        assert_eq!(inheritable(&container), open);
    }
}

#[test]
fn a_seccomp_filter_that_kills_is_reported() {
    for filter in ["seccomp-kill-execve", "seccomp-kill-mmap"] {
        let container = Container::start(mode(filter));
        let start = Instant::now();
        let (kind, message) = error(Client::start().try_swap(container.process, None, &program("v2")));
        assert_eq!(kind, ErrorKind::Seccomp, "{message}");
        assert!(message.ends_with("is gone"), "{message}");
        // All of it is: half a process would be worse.
        eventually("the end of the server", || (!container.is_alive()).then_some(()));
        assert!(container.try_answer().is_none());
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
}

#[test]
fn a_seccomp_filter_that_traps_is_reported_and_survived() {
    for (mode, host_pid) in [("seccomp-trap-execve", false), ("seccomp-trap-execve", true), ("seccomp-trap-mmap", true)] {
        let container = Container::start(Options { mode, host_pid, ..Options::default() });
        let (kind, message) = error(Client::start().try_swap(container.process, None, &program("v2")));
        assert_eq!(kind, ErrorKind::Seccomp, "{message}");
        assert!(message.ends_with("execve)"), "{message}");
        assert_eq!(container.answer().get("version"), "v1");
        assert_eq!(container.status("TracerPid"), "0");
        assert!(fs::read(container.path(EXECUTABLE)).unwrap() == program("v1"));
    }
}

#[test]
fn a_seccomp_profile_older_than_close_range_is_worked_around() {
    let container = Container::start(mode("seccomp-deny-close_range"));
    let mut client = Client::start();
    client.swap(container.process, &program("v2"));
    // The new one could not bind its port if the leaked socket were open.
    assert_eq!(container.answer().get("version"), "v2");
}

#[test]
fn a_process_in_a_user_namespace_is_swapped_and_brought_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let temporary = folder.path().join("written");
    fs::write(&temporary, program("v1")).unwrap();
    // Written by another process, see `support::container`.
    assert!(Command::new("cp").args([&temporary, &path]).status().unwrap().success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let port = support::container::free_port();
    let unshare = ["--user", "--map-root-user", "--"];
    let mut server = Command::new("unshare").args(unshare).arg(&path).args([&port.to_string(), "sleep"]).spawn().unwrap();
    let process = ProcessId { pid: server.id(), start_time: support::container::start_time(server.id()) };
    eventually("the start of the server", || try_answer(port));
    assert_ne!(fs::read_link(format!("/proc/{}/ns/user", process.pid)).unwrap(), fs::read_link("/proc/self/ns/user").unwrap());

    let mut client = Client::start();
    let bytes = program("v2");
    let request = Request::Swap { process, executable: path.as_path().into(), argv: None, size: bytes.len() as u64, base: None };
    swapped(client.transfer(request, &bytes));
    assert_eq!(eventually("an answer", || try_answer(port)).get("version"), "v2");
    assert!(client.undo(process).restarted);
    assert_eq!(eventually("an answer", || try_answer(port)).get("version"), "v1");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn twenty_swaps_under_load() {
    let container = Container::start(Options::default());
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (done, answered, port) = (Arc::clone(&done), Arc::clone(&answered), container.port);
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if try_answer(port).is_some() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let mut client = Client::start();
    for round in 0..20 {
        let version = if round % 2 == 0 { "v2" } else { "v1" };
        let before = answered.load(Ordering::Relaxed);
        let swap = client.swap(container.process, &program(version));
        println!("round {round}: {:?}", swap.phases);
        // From here on only the new one may answer.
        let answer = container.answer();
        assert_eq!(answer.get("version"), version, "round {round}");
        assert_eq!(answer.get("pid"), "1");
        eventually("load", || (answered.load(Ordering::Relaxed) > before + 5).then_some(()));
    }
    done.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().unwrap();
    }
    assert!(client.is_running(container.process));
    assert_eq!(container.status("TracerPid"), "0");
    assert_eq!(container.names("/app"), ["server"]);
}
