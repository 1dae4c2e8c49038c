//! A service's state against what pods do.

use super::*;
use devloop_core::project::CargoBuild;
use devloop_core::target::{Kind, PodSelection, SelectionParams, Target};
use std::path::Path;

fn lane() -> Lane {
    let facts = Facts {
        name: "shop".to_owned(),
        root: "/w".into(),
        build: CargoBuild { package: "shop".to_owned(), binary: "shop".to_owned(), profile: None, manifest: None },
        binary: "/app/shop".to_owned(),
        container: "shop".to_owned(),
        selection: PodSelection {
            target: Target::Object { kind: Kind::Deployment, name: "shop".to_owned() },
            params: SelectionParams::Labels("app=shop".to_owned()),
        },
        probe: None,
    };
    let mut lane = Lane::new(facts, Layout::new(Path::new("/w"), &[], None));
    lane.listed = true;
    lane
}

fn origin() -> Origin {
    let now = Instant::now();
    Origin { generation: 1, watch: None, first_event: now, settled: now }
}

fn binary(name: &str) -> Binary {
    Binary { hash: blake3::hash(name.as_bytes()), path: name.into(), compile: Duration::ZERO, ready: Instant::now(), origin: None }
}

fn container(id: &str) -> RunningContainer {
    RunningContainer { id: id.to_owned(), address: None, node: None }
}

fn attach(lane: &mut Lane, pod: &str, id: &str, running: &str) {
    assert!(lane.note_pod(pod, &container(id)));
    let process = ProcessId { pid: 1, start_time: 1 };
    let running = Some(blake3::hash(running.as_bytes()));
    lane.entry(pod, id).unwrap().stage = Stage::Attached(Attached { process, synced: 0, running, refused: None });
}

fn save(lane: &mut Lane, path: &str) {
    let files = BTreeMap::from([(path.to_owned(), Some(PathBuf::from(path)))]);
    lane.note_files(&Plan { files, ..Plan::default() }, origin());
}

/// Carries out a delivery; the pods and files in it.
fn deliver(lane: &mut Lane) -> Option<Vec<(String, usize)>> {
    let delivery = lane.next_delivery()?;
    assert!(lane.next_delivery().is_none(), "one at a time");
    lane.delivering = false;
    for pod in &delivery.pods {
        lane.attached_entry(&pod.pod, &pod.container.id).unwrap().synced = delivery.epoch;
    }
    Some(delivery.pods.into_iter().map(|pod| (pod.pod, pod.files.len())).collect())
}

/// Carries out a swap; the pods in it.
fn swap(lane: &mut Lane) -> Option<Vec<String>> {
    let order = lane.next_swap()?;
    assert!(lane.next_swap().is_none(), "one at a time");
    lane.swapping = false;
    for (pod, container, _) in &order.pods {
        lane.attached_entry(pod, &container.id).unwrap().running = Some(order.binary.hash);
    }
    Some(order.pods.into_iter().map(|(pod, _, _)| pod).collect())
}

#[test]
fn a_new_pod_gets_every_file_of_the_session_and_others_only_what_is_new() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "old");
    assert!(lane.is_ready());
    save(&mut lane, "/a");
    assert_eq!(deliver(&mut lane), Some(vec![("one".to_owned(), 1)]));
    save(&mut lane, "/b");
    attach(&mut lane, "two", "c2", "old");
    assert!(!lane.is_ready());
    assert_eq!(deliver(&mut lane), Some(vec![("one".to_owned(), 1), ("two".to_owned(), 2)]));
    assert!(lane.is_ready());
    assert_eq!(deliver(&mut lane), None);
    attach(&mut lane, "one", "c1-restarted", "old");
    assert_eq!(deliver(&mut lane), Some(vec![("one".to_owned(), 2)]), "a restarted container has its image's files");
}

#[test]
fn the_same_container_is_attached_to_once() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "old");
    assert!(!lane.note_pod("one", &container("c1")));
    assert!(lane.entry("one", "c0").is_none());
}

#[test]
fn a_binary_that_runs_everywhere_is_not_swapped_to() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "v1");
    assert_eq!(lane.note_binary(binary("v1")), Verdict::Unchanged);
    assert_eq!(swap(&mut lane), None);
    assert_eq!(lane.note_binary(binary("v2")), Verdict::New);
    assert_eq!(swap(&mut lane), Some(vec!["one".to_owned()]));
    assert_eq!(lane.note_binary(binary("v2")), Verdict::Unchanged);
}

#[test]
fn a_new_pod_is_swapped_when_the_binary_is_proven() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "v1");
    lane.note_binary(binary("v2"));
    assert_eq!(swap(&mut lane), Some(vec!["one".to_owned()]));
    attach(&mut lane, "two", "c2", "v1");
    assert_eq!(swap(&mut lane), None, "not before it ran for a while");
    lane.prove(&binary("v2"));
    assert!(!lane.is_ready());
    assert_eq!(swap(&mut lane), Some(vec!["two".to_owned()]));
    assert!(lane.is_ready());
}

#[test]
fn a_binary_that_ends_is_never_swapped_to_again_and_the_proven_one_comes_back() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "v1");
    lane.note_binary(binary("v2"));
    swap(&mut lane);
    lane.prove(&binary("v2"));
    lane.note_binary(binary("crash"));
    swap(&mut lane);
    attach(&mut lane, "one", "c1-restarted", "v1");
    assert_eq!(swap(&mut lane), None);
    lane.condemn(binary("crash").hash);
    assert_eq!(swap(&mut lane), Some(vec!["one".to_owned()]), "back to v2");
    assert_eq!(lane.note_binary(binary("crash")), Verdict::KnownBad);
    assert_eq!(swap(&mut lane), None);
    assert_eq!(lane.kept().len(), 1);
}

#[test]
fn a_container_that_refuses_is_not_asked_again_until_the_next_build() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "v1");
    lane.note_binary(binary("v2"));
    let order = lane.next_swap().unwrap();
    lane.swapping = false;
    lane.attached_entry("one", "c1").unwrap().refused = Some(order.binary.hash);
    lane.give_up(order.binary.hash);
    assert_eq!(swap(&mut lane), None);
    assert!(lane.is_ready());
    lane.note_binary(binary("v3"));
    assert_eq!(swap(&mut lane), Some(vec!["one".to_owned()]));
}

#[test]
fn a_binary_built_without_pods_waits_for_them() {
    let mut lane = lane();
    assert_eq!(lane.note_binary(binary("v2")), Verdict::New);
    assert_eq!(swap(&mut lane), None);
    attach(&mut lane, "one", "c1", "v1");
    assert_eq!(swap(&mut lane), Some(vec!["one".to_owned()]));
}
