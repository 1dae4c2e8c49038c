use super::*;
use crate::environment::Directories;
use crate::workload::{ObjectIdentity, Record};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

fn directories(folder: &Path) -> Directories {
    Directories { state: folder.to_owned(), cache: folder.to_owned() }
}

fn meta() -> Meta {
    Meta { context: "kind-dev".into(), services: vec!["web".into()], pid: std::process::id(), started: "2026-01-01T00:00:00Z".into() }
}

fn container(number: usize, via: &str) -> Entry {
    Entry::Container(ContainerEntry {
        pod: "web-0".into(),
        container_id: format!("c{number}"),
        via: via.into(),
        ..ContainerEntry::default()
    })
}

fn workload(name: &str) -> Entry {
    let record = json!({"kind": "deployment", "name": name, "namespace": "dev", "uid": name, "edits": [
        {"path": ["spec", "paused"], "before": true}
    ]});
    Entry::Workload(serde_json::from_value::<Record>(record).unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("hot-reload")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_session_that_ends_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let directories = directories(folder.path());
    assert!(live(&directories).is_empty() && stale(&directories).is_empty());
    let mut session = Session::begin(&directories, &meta()).unwrap();
    session.note(&workload("web")).unwrap();
    session.publish(&json!({"state": "watching"})).unwrap();
    assert!(stale(&directories).is_empty(), "it goes on");
    let seen = live(&directories);
    assert_eq!((seen[0].id.as_str(), &seen[0].meta), (session.id(), &meta()));
    assert_eq!((&seen[0].entries, &seen[0].status), (&vec![workload("web")], &Some(json!({"state": "watching"}))));
    session.forget(&workload("web")).unwrap();
    session.end().unwrap();
    assert!(live(&directories).is_empty() && stale(&directories).is_empty());
    assert_eq!(names(folder.path()), [".lock"]);
}

#[test]
fn a_session_that_is_cut_off_is_found_once() {
    let folder = tempfile::tempdir().unwrap();
    let directories = directories(folder.path());
    let mut session = Session::begin(&directories, &meta()).unwrap();
    session.note(&workload("web")).unwrap();
    session.note(&container(1, "node")).unwrap();
    session.note(&container(1, "api")).unwrap();
    drop(session);
    assert!(live(&directories).is_empty());
    let mut found = stale(&directories);
    assert!(stale(&directories).is_empty(), "somebody is undoing it");
    let mut one = found.remove(0);
    assert_eq!((one.meta(), one.entries()), (meta(), vec![workload("web"), container(1, "api")]));
    // Cut off again between two steps.
    one.forget(&workload("web")).unwrap();
    drop(one);
    let one = stale(&directories).remove(0);
    assert_eq!(one.entries(), [container(1, "api")]);
    one.end().unwrap();
    assert!(stale(&directories).is_empty());
}

#[test]
fn a_workload_of_another_uid_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session::begin(&directories(folder.path()), &meta()).unwrap();
    session.note(&workload("web")).unwrap();
    let Entry::Workload(mut record) = workload("web") else { unreachable!() };
    record.object = ObjectIdentity { uid: "later".into(), ..record.object };
    session.note(&Entry::Workload(record.clone())).unwrap();
    assert_eq!(session.entries(), [workload("web"), Entry::Workload(record)]);
}

#[test]
fn what_can_not_be_read_stays() {
    let folder = tempfile::tempdir().unwrap();
    let directories = directories(folder.path());
    drop(Session::begin(&directories, &meta()).unwrap());
    let sessions = folder.path().join("hot-reload");
    let newer = json!({"version": 9, "meta": {"context": "c", "more": 1}, "more": [2], "entries": [
        {"what": "somethingNew", "x": 1}, serde_json::to_value(workload("web")).unwrap()
    ]});
    let foreign = [
        ("newer.json", newer.to_string()),
        ("cut.json", r#"{"meta": {"con"#.to_owned()),
        ("list.json", "[]".to_owned()),
        ("empty.json", String::new()),
        ("notes.txt", "mine".to_owned()),
        (".devloop-temporary.json", "{}".to_owned()),
    ];
    for (name, text) in &foreign {
        std::fs::write(sessions.join(name), text).unwrap();
    }
    std::fs::create_dir(sessions.join("folder.json")).unwrap();
    let mut ended = 0;
    for mut session in stale(&directories) {
        for entry in session.entries() {
            session.forget(&entry).unwrap();
        }
        session.end().unwrap();
        ended += 1;
    }
    assert_eq!(ended, 2, "the one of this version, and what is readable of the newer one");
    for (name, text) in &foreign[1..] {
        assert_eq!(&std::fs::read_to_string(sessions.join(name)).unwrap(), text);
    }
    let left: Value = serde_json::from_slice(&std::fs::read(sessions.join("newer.json")).unwrap()).unwrap();
    let expected = json!({"version": 9, "meta": {"context": "c", "more": 1}, "more": [2], "entries": [{"what": "somethingNew", "x": 1}]});
    assert_eq!(left, expected);
    assert!(sessions.join("folder.json").is_dir());
    assert!(live(&directories).is_empty());
}

#[test]
fn without_a_folder_to_write_to_there_is_no_session() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hot-reload"), "a file").unwrap();
    let directories = directories(folder.path());
    assert!(Session::begin(&directories, &meta()).unwrap_err().to_string().contains("could not"));
    assert!(live(&directories).is_empty() && stale(&directories).is_empty());
}

const CHILD: &str = "DEVLOOP_TEST_SESSION_FOLDER";

/// Not a test by itself: the other process of the next one.
#[test]
fn another_process() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let mut session = Session::begin(&directories(Path::new(&folder)), &meta()).unwrap();
    session.note(&workload("web")).unwrap();
    println!("\nready");
    std::io::stdout().flush().unwrap();
    // Until it is killed.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    session.end().unwrap();
}

#[test]
fn a_killed_process_leaves_its_session_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let directories = directories(folder.path());
    let start = || {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "changes::tests::another_process"])
            .env(CHILD, folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let mut output = BufReader::new(output).lines();
        assert!(output.any(|line| line.unwrap() == "ready"));
        (child, output)
    };
    let (mut killed, _output) = start();
    let (mut ended, _other) = start();
    assert_eq!(live(&directories).len(), 2);
    assert!(stale(&directories).is_empty());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let found = stale(&directories);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].entries(), [workload("web")]);
    assert_eq!(live(&directories).len(), 2, "one of them is being undone by us");
    drop(ended.stdin.take());
    assert!(ended.wait().unwrap().success());
    drop(found);
    assert!(live(&directories).is_empty());
    assert_eq!(stale(&directories).len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Note(usize, &'static str),
    Forget(usize),
    /// The process dies; the next one takes over.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..4usize, prop_oneof![Just("node"), Just("api")]).prop_map(|(number, via)| Step::Note(number, via)),
        2 => (0..4usize).prop_map(Step::Forget),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_noted_and_not_forgotten_is_found(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let directories = directories(folder.path());
        let mut session = Session::begin(&directories, &meta()).unwrap();
        let mut model: Vec<Entry> = Vec::new();
        for step in steps {
            match step {
                Step::Note(number, via) => {
                    model.retain(|entry| !entry.same_subject(&container(number, via)));
                    model.push(container(number, via));
                    session.note(&container(number, via)).unwrap();
                }
                Step::Forget(number) => {
                    model.retain(|entry| !entry.same_subject(&container(number, "")));
                    session.forget(&container(number, "any")).unwrap();
                }
                Step::Crash => {
                    drop(session);
                    let mut found = stale(&directories);
                    prop_assert_eq!(found.len(), 1);
                    prop_assert_eq!(found.remove(0).entries(), model.clone());
                    session = Session::begin(&directories, &meta()).unwrap();
                    for entry in &model {
                        session.note(entry).unwrap();
                    }
                    for old in stale(&directories) {
                        old.end().unwrap();
                    }
                }
            }
        }
        prop_assert_eq!(session.entries(), model);
        session.end().unwrap();
        prop_assert!(stale(&directories).is_empty());
    }
}
