//! The record against any sequence of changes that ends anywhere: a temporary
//! directory plays the container's root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::shelf::Shelf;
use super::*;
use crate::incoming::{Attributes, Incoming, ModeRule};
use crate::link::put_link;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::remove::remove;
use crate::root::{ContainerPath, Owner};

const OWNER: Owner = Owner { uid: 1000, gid: 1001 };

/// A container's file system, and the record of its changes.
struct Node {
    root: TempDir,
    undo: TempDir,
}

/// What can be said about an entry: kind, mode, owner, time, content.
type Entry = (char, u32, (u32, u32), (i64, i64), Vec<u8>);

impl Node {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), undo: tempfile::tempdir().unwrap() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn container(&self) -> ContainerRoot {
        ContainerRoot::at(self.root.path()).unwrap()
    }

    fn store(&self) -> Store {
        Store::open(&self.undo.path().join("id"), Duration::ZERO).unwrap()
    }

    fn recorder(&self) -> Recorder {
        let (proc, pid) = (Proc::system(), std::process::id());
        let process = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
        let shelf = Arc::new(Shelf::at(self.undo.path().to_owned()));
        shelf.open("id").unwrap();
        Recorder::new(&proc, process, &self.container(), shelf, ("id".into(), "pod".into())).unwrap()
    }

    /// All that is there, but for the root directory itself.
    fn tree(&self) -> BTreeMap<PathBuf, Entry> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.root.path().to_owned()];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let stat = fs::symlink_metadata(&path).unwrap();
                let (kind, content) = if stat.is_dir() {
                    left.push(path.clone());
                    ('d', Vec::new())
                } else if stat.is_symlink() {
                    ('l', fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
                } else if stat.file_type().is_fifo() {
                    ('p', Vec::new())
                } else {
                    ('f', fs::read(&path).unwrap())
                };
                found.insert(path, (kind, stat.mode(), (stat.uid(), stat.gid()), (stat.mtime(), stat.mtime_nsec()), content));
            }
        }
        found
    }
}

/// What is there at the beginning.
#[derive(Clone, Debug)]
enum Thing {
    Folder,
    File(Vec<u8>),
    Link(String),
    Fifo,
}

#[derive(Clone, Debug)]
enum Change {
    Write(String, Vec<u8>),
    /// As it is when the agent is killed in the middle of a transfer.
    HalfWrite(String),
    Link(String, String),
    Remove(String, u32),
    /// Taken down, and killed before it was changed.
    Intend(String),
}

fn path() -> impl Strategy<Value = String> {
    vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|names| format!("/t/{}", names.join("/")))
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![path(), prop::sample::select(vec!["a", "b", "../a", "../../t/b", ".", "nowhere"]).prop_map(str::to_owned)]
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..30)
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        3 => Just(Thing::Folder),
        3 => content().prop_map(Thing::File),
        2 => target().prop_map(Thing::Link),
        1 => Just(Thing::Fifo),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (path(), content()).prop_map(|(path, content)| Change::Write(path, content)),
        1 => path().prop_map(Change::HalfWrite),
        2 => (path(), target()).prop_map(|(path, target)| Change::Link(path, target)),
        3 => (path(), 0_u32..3).prop_map(|(path, parents)| Change::Remove(path, parents)),
        1 => path().prop_map(Change::Intend),
    ]
}

/// Much of it can't be made, for other things are in its way: so be it.
fn furnish(node: &Node, things: Vec<(String, Thing, u32, i64)>) {
    fs::create_dir(node.at("/t")).unwrap();
    for (path, thing, mode, time) in things {
        let at = node.at(&path);
        // Not through links, which may lead out of a root that is none.
        let parent = at.parent().unwrap();
        if !parent.is_dir() || parent.canonicalize().ok().as_deref() != Some(parent) || at.symlink_metadata().is_ok() {
            continue;
        }
        match thing {
            Thing::Folder => fs::create_dir(&at).unwrap(),
            Thing::File(content) => fs::write(&at, content).unwrap(),
            Thing::Link(target) => symlink(target, &at).unwrap(),
            Thing::Fifo => nix::unistd::mkfifo(&at, nix::sys::stat::Mode::S_IRUSR).unwrap(),
        }
        lchown(&at, Some(mode % 3), Some(mode % 5)).unwrap();
        if !at.is_symlink() {
            fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
        }
        let time = rustix::fs::Timespec { tv_sec: time, tv_nsec: 123_456_789 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &at, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Many a change fails: what it began is to be undone all the same.
fn apply(node: &Node, change: &Change, recorder: &Recorder) {
    let root = node.container();
    let parse = |path: &str| ContainerPath::parse(&path.into()).unwrap();
    let create = |path: &str| {
        let attributes = Attributes { owner: OWNER, mode: ModeRule::KeepOr(0o644), modified: None };
        Incoming::create(&root, parse(path), attributes, recorder.clone())
    };
    match change {
        Change::Write(path, content) => {
            if let Ok(mut incoming) = create(path) {
                incoming.write(content).unwrap();
                let _ = incoming.install();
            }
        }
        Change::HalfWrite(path) => {
            if let Ok(mut incoming) = create(path) {
                incoming.write(b"half").unwrap();
                incoming.abandon();
            }
        }
        Change::Link(path, target) => drop(put_link(&root, &parse(path), &target.as_str().into(), OWNER, recorder)),
        Change::Remove(path, parents) => drop(remove(&root, &parse(path), *parents, recorder)),
        Change::Intend(path) => {
            if let Ok(Some(place)) = root.place_itself(&parse(path)) {
                recorder.before(&place.parent, &place.name).unwrap();
            }
        }
    }
}

fn things() -> impl Strategy<Value = Vec<(String, Thing, u32, i64)>> {
    let mode = prop::sample::select(vec![0o644, 0o600, 0o755, 0o4755, 0o2711, 0o1777]);
    vec((path(), thing(), mode, 1_000_000_000_i64..1_700_000_000), 0..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_was_changed_by_agents_that_were_killed_is_put_back(
        things in things(),
        agents in vec(vec(change(), 0..8), 1..4),
        garbage in content(),
    ) {
        let node = Node::new();
        furnish(&node, things);
        let before = node.tree();
        for changes in &agents {
            let recorder = node.recorder();
            for change in changes {
                apply(&node, change, &recorder);
            }
            drop(recorder);
            // The last that it began to write before it was killed.
            let log = node.undo.path().join("id/log");
            File::options().append(true).open(log).unwrap().write_all(&garbage).unwrap();
        }
        let store = node.store();
        store.restore(&node.container()).unwrap();
        prop_assert_eq!(node.tree(), before.clone());
        // By one that was killed before it was done, once more.
        store.restore(&node.container()).unwrap();
        prop_assert_eq!(node.tree(), before);
        store.discard().unwrap();
        prop_assert_eq!(fs::read_dir(node.undo.path()).unwrap().count(), 0);
    }

    // Killed while it undid: some was put back already.
    #[test]
    fn an_undo_that_was_interrupted_is_completed(
        things in things(),
        changes in vec(change(), 1..10),
        again in vec(change(), 0..3),
    ) {
        let node = Node::new();
        furnish(&node, things);
        let before = node.tree();
        let recorder = node.recorder();
        for change in changes.iter().chain(&again) {
            apply(&node, change, &recorder);
        }
        drop(recorder);
        let store = node.store();
        store.restore(&node.container()).unwrap();
        // As if these had not been put back: their paths are in the log.
        drop(store);
        let recorder = node.recorder();
        for change in &again {
            apply(&node, change, &recorder);
        }
        drop(recorder);
        node.store().restore(&node.container()).unwrap();
        prop_assert_eq!(node.tree(), before);
    }
}

#[test]
fn what_was_not_changed_is_not_touched() {
    let node = Node::new();
    fs::create_dir(node.at("/app")).unwrap();
    fs::write(node.at("/app/f"), "x").unwrap();
    let inode = fs::metadata(node.at("/app/f")).unwrap().ino();
    apply(&node, &Change::Intend("/app/f".into()), &node.recorder());
    assert_eq!(node.store().restore(&node.container()).unwrap().paths, 0);
    assert_eq!(fs::metadata(node.at("/app/f")).unwrap().ino(), inode);
}

// The kernel forbids to follow a link there before it tells that it is one.
#[test]
fn a_link_in_a_folder_for_all_is_in_nobodys_way() {
    let node = Node::new();
    fs::create_dir(node.at("/all")).unwrap();
    symlink("/nowhere", node.at("/all/link")).unwrap();
    lchown(node.at("/all/link"), Some(7), Some(8)).unwrap();
    fs::set_permissions(node.at("/all"), PermissionsExt::from_mode(0o1777)).unwrap();
    let before = node.tree();
    let recorder = node.recorder();
    apply(&node, &Change::Remove("/all/link".into(), 0), &recorder);
    apply(&node, &Change::Write("/all/link/file".into(), b"x".to_vec()), &recorder);
    drop(recorder);
    for _ in 0..2 {
        node.store().restore(&node.container()).unwrap();
        assert_eq!(node.tree(), before);
    }
}

#[test]
fn a_folder_of_ours_stays_if_others_put_something_into_it() {
    let node = Node::new();
    fs::create_dir(node.at("/app")).unwrap();
    let recorder = node.recorder();
    apply(&node, &Change::Write("/app/new/f".into(), b"x".to_vec()), &recorder);
    drop(recorder);
    fs::write(node.at("/app/new/log"), "theirs").unwrap();
    node.store().restore(&node.container()).unwrap();
    assert!(!node.at("/app/new/f").exists());
    assert_eq!(fs::read_to_string(node.at("/app/new/log")).unwrap(), "theirs");
}

#[test]
fn a_record_in_use_is_refused_and_one_that_was_left_is_taken_over() {
    let node = Node::new();
    fs::create_dir(node.at("/app")).unwrap();
    let recorder = node.recorder();
    apply(&node, &Change::Write("/app/f".into(), b"x".to_vec()), &recorder);
    let folder = node.undo.path().join("id");
    assert_eq!(Store::open(&folder, Duration::ZERO).unwrap_err().kind, ErrorKind::InUse);
    drop(recorder);
    assert!(node.store().adopted);
    node.store().discard().unwrap();
    assert!(!node.store().adopted);
}
