//! A service's state against what pods do.

use super::*;
use crate::reload::Rules;
use devloop_core::project::RestartSpec;
use devloop_core::target::{Kind, PodSelection, SelectionParams, Target};
use std::path::Path;
use std::time::Instant;

fn lane() -> Lane {
    let facts = Facts {
        name: "shop".to_owned(),
        root: "/w".into(),
        build: None,
        binary: Some("/app/shop".to_owned()),
        rules: Rules::default(),
        restart: RestartSpec::default(),
        container: "shop".to_owned(),
        selection: PodSelection {
            target: Target::Object { kind: Kind::Deployment, name: "shop".to_owned() },
            params: SelectionParams::Labels("app=shop".to_owned()),
        },
        probe: None,
    };
    let mut lane = Lane::new(facts, Layout::new(Path::new("/w"), &[], None).unwrap());
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
    RunningContainer { id: id.to_owned(), pod_uid: String::new(), address: None, node: None }
}

fn attach(lane: &mut Lane, pod: &str, id: &str, running: &str) {
    assert!(lane.note_pod(pod, &container(id)));
    let process = ProcessId { pid: 1, start_time: 1 };
    let running = Some(blake3::hash(running.as_bytes()));
    let argv = ["python3", "app.py"].map(str::to_owned).to_vec();
    let python = RemoteProcess { executable: "/usr/bin/python3".to_owned(), main_argv: argv.clone(), argv, cwd: "/".to_owned() };
    let processes = vec![python];
    let attached = Attached { process, processes, checked: true, synced: 0, reloaded: 0, running, refused: None };
    lane.entry(pod, id).unwrap().stage = Stage::Attached(attached);
}

fn item(path: &str) -> Item {
    Item { local: path.into(), root: "/".into(), is_there: true }
}

fn save(lane: &mut Lane, path: &str) {
    let files = BTreeMap::from([(path.to_owned(), item(path))]);
    lane.note_files(&Plan { files, ..Plan::default() }, origin());
}

/// Carries out a delivery; the pods and files in it.
fn deliver(lane: &mut Lane) -> Option<Vec<(String, usize)>> {
    let delivery = lane.next_delivery()?;
    assert!(lane.next_delivery().is_none(), "one at a time");
    lane.delivering = false;
    let mut delivered = Vec::new();
    for Group { pods, files } in &delivery.groups {
        for receiver in pods {
            lane.attached_entry(&receiver.pod, &receiver.container.id).unwrap().synced = delivery.epoch;
            delivered.push((receiver.pod.clone(), files.len()));
        }
    }
    delivered.sort();
    Some(delivered)
}

/// Carries out a swap; the pods in it.
fn swap(lane: &mut Lane) -> Option<Vec<String>> {
    let order = lane.next_swap()?;
    assert!(lane.next_swap().is_none(), "one at a time");
    lane.swapping = false;
    for Receiver { pod, container, .. } in &order.pods {
        lane.attached_entry(pod, &container.id).unwrap().running = Some(order.binary.hash);
    }
    Some(order.pods.into_iter().map(|receiver| receiver.pod).collect())
}

/// Carries out a reload; the pods in it and what made each start again.
fn reload(lane: &mut Lane) -> Option<Vec<(String, Vec<String>)>> {
    let order = lane.next_reload()?;
    assert!(lane.next_reload().is_none(), "one at a time");
    lane.reloading = false;
    for PodReload { receiver, epoch, .. } in &order.pods {
        lane.attached_entry(&receiver.pod, &receiver.container.id).unwrap().reloaded = *epoch;
    }
    Some(order.pods.into_iter().map(|pod| (pod.receiver.pod, pod.reload.restart.unwrap_or_default())).collect())
}

#[test]
fn an_app_takes_note_of_code_once_it_has_it_and_a_new_pod_of_all() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "old");
    save(&mut lane, "/page.html");
    deliver(&mut lane);
    assert_eq!(reload(&mut lane), None, "nothing that the app reads once");
    assert!(lane.is_ready());
    save(&mut lane, "/app.py");
    assert_eq!(reload(&mut lane), None, "not before it has the file");
    deliver(&mut lane);
    assert!(lane.has_pending_reload() && !lane.is_ready());
    assert_eq!(reload(&mut lane), Some(vec![("one".to_owned(), vec!["/app.py".to_owned()])]));
    assert!(lane.is_ready());
    attach(&mut lane, "two", "c2", "old");
    deliver(&mut lane);
    assert_eq!(reload(&mut lane), Some(vec![("two".to_owned(), vec!["/app.py".to_owned()])]));
    assert_eq!(reload(&mut lane), None);
}

#[test]
fn every_app_is_started_again_when_the_user_asks() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "old");
    attach(&mut lane, "two", "c2", "old");
    lane.ask_for_restart();
    assert_eq!(reload(&mut lane), Some(vec![("one".to_owned(), vec![]), ("two".to_owned(), vec![])]));
    assert_eq!(reload(&mut lane), None);
}

#[test]
fn who_stands_at_a_breakpoint_is_waited_for_and_nothing_is_forgotten() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "old");
    attach(&mut lane, "two", "c2", "old");
    save(&mut lane, "/app.py");
    deliver(&mut lane);
    lane.reload_origin = Some((origin(), Duration::ZERO));
    let order = lane.next_reload().unwrap();
    lane.reloading = false;
    lane.attached_entry("one", "c1").unwrap().reloaded = 1;
    lane.postpone(&order, &["two".to_owned()]);
    assert!(lane.halt(Waiting::Files(1)) && !lane.halt(Waiting::Files(1)), "it is told once");
    assert!(lane.next_reload().is_none() && !lane.is_ready());
    lane.may_run();
    assert!(lane.reload_origin.is_some(), "it is told when it is done");
    assert_eq!(reload(&mut lane), Some(vec![("two".to_owned(), vec!["/app.py".to_owned()])]));
    // What the user asked for, neither.
    lane.ask_for_restart();
    let order = lane.next_reload().unwrap();
    lane.reloading = false;
    lane.postpone(&order, &["one".to_owned()]);
    assert_eq!(reload(&mut lane), Some(vec![("one".to_owned(), vec![])]));
    lane.ran_on();
    assert!(lane.halt(Waiting::Files(1)));
}

#[test]
fn files_that_an_app_ended_with_wait_for_the_next_save() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "old");
    save(&mut lane, "/app.py");
    deliver(&mut lane);
    reload(&mut lane);
    lane.hold(1);
    attach(&mut lane, "one", "c1-restarted", "old");
    assert_eq!(deliver(&mut lane), None);
    assert!(lane.is_ready(), "there is nothing to wait for");
    save(&mut lane, "/other.py");
    assert_eq!(deliver(&mut lane), Some(vec![("one".to_owned(), 2)]));
    assert!(reload(&mut lane).is_some());
}

#[test]
fn what_a_container_lacks_is_brought_to_it_and_to_those_to_come() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "old");
    lane.note_lacking("one", [("/a".to_owned(), item("/a"))].into());
    assert_eq!(deliver(&mut lane), Some(vec![("one".to_owned(), 1)]));
    attach(&mut lane, "two", "c2", "old");
    lane.attached_entry("two", "c2").unwrap().checked = false;
    assert_eq!(deliver(&mut lane), None, "not before it is known what it has");
    lane.attached_entry("two", "c2").unwrap().checked = true;
    lane.note_lacking("two", [("/a".to_owned(), item("/a"))].into());
    assert_eq!(deliver(&mut lane), Some(vec![("two".to_owned(), 1)]), "the other one has it");
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
    assert_eq!(reload(&mut lane), None);
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

#[test]
fn what_was_replaced_while_it_ran_is_what_comes_back() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "v1");
    let mut last = 0;
    for name in ["v2", "v3", "crash"] {
        lane.note_binary(binary(name));
        lane.note_swapped(&binary(name));
        last = lane.begin_trial(["one".to_owned()]);
    }
    assert!(!lane.is_on_trial("one", last - 1) && lane.is_on_trial("one", last));
    lane.condemn(binary("crash").hash);
    attach(&mut lane, "one", "c1-restarted", "v1");
    let order = lane.next_swap().unwrap();
    assert_eq!(order.binary.hash, binary("v3").hash);
}

#[test]
fn what_took_its_container_along_before_it_ran_gives_way_to_what_ran_last() {
    let mut lane = lane();
    attach(&mut lane, "one", "c1", "v1");
    for name in ["v2", "v3"] {
        lane.note_binary(binary(name));
        lane.note_swapped(&binary(name));
    }
    lane.note_binary(binary("crash"));
    lane.condemn(binary("crash").hash);
    attach(&mut lane, "one", "c1-restarted", "v1");
    assert_eq!(lane.next_swap().unwrap().binary.hash, binary("v3").hash);
}
