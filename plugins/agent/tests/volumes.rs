//! A volume outlives its container, and may be in several: what the real agent
//! changed there is put back all the same.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use devloop_agent::protocol::{Located, ProcessId, Request, Response};
use nix::sys::signal::Signal;
use proptest::collection::vec;
use proptest::prelude::*;
use support::container::{ControlGroup, Pod};
use support::{Client, Container, Options, Tree, eventually, tree};
use tempfile::TempDir;

/// A container of a pod, with the volume on `/data`.
struct Member {
    container: Container,
    group: ControlGroup,
}

impl Member {
    fn start(pod: &Pod, shared: &[(&Path, &str)]) -> Self {
        let container = Container::start(Options { shared, ..Options::default() });
        let group = pod.group(&container);
        Self { container, group }
    }

    fn locate(&self, client: &mut Client) -> Located {
        match client.ask(Request::Locate { container_id: self.group.id.clone() }) {
            Response::Located(located) => located,
            other => panic!("{other:?}"),
        }
    }

    fn process(&self) -> ProcessId {
        self.container.process
    }

    fn end(self) {
        self.container.signal(Signal::SIGKILL);
        eventually("the end of the container", || (!self.container.is_alive()).then_some(()));
    }
}

/// A volume with something in it.
fn volume() -> (TempDir, Tree) {
    let volume = tempfile::tempdir().unwrap();
    let at = |path: &str| volume.path().join(path);
    fs::create_dir_all(at("sub/deep")).unwrap();
    for path in ["page", "sub/page", "sub/deep/page"] {
        fs::write(at(path), "original").unwrap();
    }
    symlink("page", at("link")).unwrap();
    let before = tree(volume.path());
    (volume, before)
}

/// Of each kind of change one, below this folder of the container.
fn change(client: &mut Client, process: ProcessId, folder: &str) {
    let at = |path: &str| format!("{folder}/{path}");
    for (path, text) in [("page", "changed"), ("new/page", "new"), ("page", "again"), ("link", "through the link")] {
        let written = client.put(process, &at(path), text.as_bytes());
        assert!(matches!(written, Response::Written { .. }), "{written:?}");
    }
    for done in [client.link(process, "nowhere", &at("sub/deep/link")), client.remove(process, &at("sub"))] {
        assert_eq!(done, Response::Done { failed: Vec::new() });
    }
}

#[test]
fn a_volume_is_put_back_after_its_container_was_started_again() {
    let (volume, before) = volume();
    let (pod, shared) = (Pod::new(), [(volume.path(), "/data")]);
    let first = Member::start(&pod, &shared);
    let mut client = Client::start();
    let located = first.locate(&mut client);
    assert_eq!((located.volumes, located.changed), (vec!["/data".into()], false));
    change(&mut client, first.process(), "/data");
    first.end();
    let second = Member::start(&pod, &shared);
    assert!(!second.locate(&mut client).changed, "by this session, not by an earlier one");
    // Of the new container, there is nothing but the volume.
    let undone = client.undo(second.process());
    assert!(undone.restored >= 4 && !undone.restarted, "{undone:?}");
    assert!(tree(volume.path()) == before, "{:#?}", tree(volume.path()));
    assert_eq!(client.records(), 1, "that of the container that ended");
    assert!(client.end().0.success());
    assert!(tree(volume.path()) == before);
}

#[test]
fn what_the_next_container_changed_again_is_put_back_to_what_it_was_at_first() {
    let (volume, before) = volume();
    let (pod, shared) = (Pod::new(), [(volume.path(), "/data")]);
    let mut client = Client::start();
    for _ in 0..3 {
        let member = Member::start(&pod, &shared);
        member.locate(&mut client);
        change(&mut client, member.process(), "/data");
        fs::create_dir_all(volume.path().join("sub")).unwrap();
        member.end();
    }
    // No container is there at the end, as when the code that was saved last
    // crashes: the node sees the volume, too.
    assert!(client.end().0.success());
    assert!(tree(volume.path()) == before, "{:#?}", tree(volume.path()));
}

#[test]
fn the_next_session_puts_back_what_a_killed_one_changed_before_the_container_was_started_again() {
    let (volume, before) = volume();
    let (pod, shared) = (Pod::new(), [(volume.path(), "/data")]);
    let bystander = Member::start(&pod, &[]);
    let first = Member::start(&pod, &shared);
    let mut client = Client::start();
    first.locate(&mut client);
    change(&mut client, first.process(), "/data");
    client.kill();
    first.end();
    // Nobody has the volume now. The pod is there, and so the record stays.
    let mut next = client.beside();
    assert_eq!(next.records(), 1);
    assert!(!bystander.locate(&mut next).changed, "it doesn't see the volume");
    let second = Member::start(&pod, &shared);
    assert!(second.locate(&mut next).changed);
    assert!(next.undo(second.process()).restored >= 4);
    assert!(tree(volume.path()) == before, "{:#?}", tree(volume.path()));
    assert!(!second.locate(&mut next).changed);
    assert_eq!(next.records(), 0);
}

#[test]
fn the_record_of_a_volume_goes_with_the_last_of_its_pod() {
    let (volume, _) = volume();
    let pod = Pod::new();
    let bystander = Member::start(&pod, &[]);
    let first = Member::start(&pod, &[(volume.path(), "/data")]);
    let mut client = Client::start();
    change(&mut client, first.process(), "/data");
    client.kill();
    first.end();
    assert_eq!(client.beside().records(), 1);
    bystander.end();
    assert_eq!(client.beside().records(), 0);
}

#[test]
fn two_containers_that_share_a_volume_do_not_fight() {
    let (volume, before) = volume();
    let sub = volume.path().join("sub");
    let pod = Pod::new();
    let whole = Member::start(&pod, &[(volume.path(), "/data")]);
    let part = Member::start(&pod, &[(&sub, "/part"), (volume.path(), "/all")]);
    for order in [[&whole, &part], [&part, &whole]] {
        let mut client = Client::start();
        for member in order {
            assert!(!member.locate(&mut client).changed);
        }
        // The same file by three paths.
        client.put(part.process(), "/part/page", b"by the part");
        client.put(whole.process(), "/data/sub/page", b"by the whole");
        client.put_all(&order.map(Member::process), "/all/sub/page", b"by both");
        assert_ne!(fs::read_to_string(sub.join("page")).unwrap(), "original");
        client.undo(order[0].process());
        client.undo(order[1].process());
        assert!(tree(volume.path()) == before, "{:#?}", tree(volume.path()));
        assert!(client.end().0.success());
        assert!(tree(volume.path()) == before);
    }
}

#[test]
fn a_volume_that_is_kept_stays_as_it_is() {
    let (volume, _) = volume();
    let (pod, shared) = (Pod::new(), [(volume.path(), "/data")]);
    let first = Member::start(&pod, &shared);
    let mut client = Client::start();
    change(&mut client, first.process(), "/data");
    first.end();
    let second = Member::start(&pod, &shared);
    let changed = tree(volume.path());
    let process = second.process();
    assert_eq!(client.ask(Request::Keep { process }), Response::Done { failed: Vec::new() });
    assert!(client.end().0.success());
    assert!(tree(volume.path()) == changed);
}

#[test]
fn a_volume_that_is_gone_is_no_trouble() {
    let (volume, _) = volume();
    let pod = Pod::new();
    let first = Member::start(&pod, &[(volume.path(), "/data")]);
    let mut client = Client::start();
    change(&mut client, first.process(), "/data");
    first.end();
    let path = volume.path().to_owned();
    drop(volume);
    let (status, text) = client.end();
    assert!(status.success() && text.is_empty(), "{text}");
    assert!(!path.exists(), "it was made again");
}

/// What may happen to a pod of two containers that share a volume.
#[derive(Clone, Debug)]
enum Event {
    Write(usize, &'static str, u8),
    Remove(usize, &'static str),
    StartAgain(usize),
    KillAgent,
    Undo(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let path = || prop::sample::select(vec!["page", "sub/page", "sub", "new/page", "link", "sub/deep/new"]);
    prop_oneof![
        5 => (0..2_usize, path(), any::<u8>()).prop_map(|(member, path, byte)| Event::Write(member, path, byte)),
        3 => (0..2_usize, path()).prop_map(|(member, path)| Event::Remove(member, path)),
        2 => (0..2_usize).prop_map(Event::StartAgain),
        1 => Just(Event::KillAgent),
        1 => (0..2_usize).prop_map(Event::Undo),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::with_cases(12) })]
    #[test]
    fn whatever_happens_the_volume_is_put_back(events in vec(event(), 1..14)) {
        let (volume, before) = volume();
        let pod = Pod::new();
        let points = ["/data", "/srv/all"];
        let start = |member: usize| Member::start(&pod, &[(volume.path(), points[member])]);
        let mut members = vec![start(0), start(1)];
        let mut clients = vec![Client::start()];
        for event in events {
            let client = clients.last_mut().unwrap();
            match event {
                // Some can't be written, for they are folders.
                Event::Write(member, path, byte) => {
                    client.put(members[member].process(), &format!("{}/{path}", points[member]), &[byte]);
                }
                Event::Remove(member, path) => drop(client.remove(members[member].process(), &format!("{}/{path}", points[member]))),
                Event::StartAgain(member) => {
                    let other = members.remove(1 - member);
                    members.remove(0).end();
                    members.push(other);
                    members.insert(member, start(member));
                    members[member].locate(client);
                }
                Event::KillAgent => {
                    client.kill();
                    let mut next = client.beside();
                    for member in &members {
                        member.locate(&mut next);
                    }
                    clients.push(next);
                }
                Event::Undo(member) => {
                    client.undo(members[member].process());
                    prop_assert_eq!(tree(volume.path()), before.clone());
                }
            }
        }
        clients.last_mut().unwrap().undo(members[1].process());
        prop_assert_eq!(tree(volume.path()), before);
    }
}
