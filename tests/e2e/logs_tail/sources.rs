//! Where lines come from: nodes and the API, through faults.

use super::deployment;
use crate::Case;
use crate::clusters::{Cluster, current, shared};
use crate::faults::processes;
use devloop_tests::docker::docker;
use devloop_tests::eventually;
use devloop_tests::program::Running;
use devloop_tests::toolbox::IMAGE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) const SOON: Duration = Duration::from_secs(90);

/// Where nodes can be reached.
pub(super) fn node_cases() -> Vec<Case> {
    vec![
        ("logs_tail::both_ways_give_the_same_lines", both_ways),
        ("logs_tail::what_was_rotated_is_read_on_the_node", rotated),
        ("logs_tail::every_number_once_while_the_api_server_is_killed", every_number_once),
    ]
}

pub(super) fn tail(arguments: &[&str]) -> devloop_tests::program::Said {
    let context = shared().context();
    shared().plugin("kubectl-logs_tail", ["--context", &context].into_iter().chain(arguments.iter().copied())).run()
}

fn remove(name: &str) {
    shared().kubectl(["delete", "deployment", name, "--wait=false"]).run().ok();
}

/// Lines of both streams, long and empty ones and bytes that are no text, from
/// several pods and runs.
fn both_ways() {
    let script = "i=0; while [ $i -lt 400 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; \
        sleep 0.5; i=0; long=; while [ $i -lt 4000 ]; do long=${long}0123456789; i=$((i+1)); done; echo $long; echo; printf 'a\\377b\\tc\\n'; \
        printf 'no newline'; sleep 2; if [ ! -e /again ]; then echo last; fi; sleep 3600";
    deployment("twoways", 3, script);
    shared().kubectl(["rollout", "status", "deployment/twoways", "--timeout=90s"]).run().ok();
    let read = |via: &str, more: &[&str]| {
        let arguments = [&["deploy/twoways", "--no-follow", "-o", "json", "--via", via], more].concat();
        tail(&arguments).ok()
    };
    eventually("all was written", SOON, || {
        let text = read("api", &[]);
        let count = text.matches("last").count();
        if count == 3 { Ok(()) } else { Err(format!("{count} of 3")) }
    });
    let api = read("api", &[]);
    assert_eq!(api.lines().count(), 3 * (800 + 4));
    assert!(read("node", &[]) == api, "node and API differ");
    let time = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["timestamp"].as_str().unwrap().to_owned();
    let times: Vec<String> = api.lines().map(time).collect();
    assert!(times.windows(2).filter(|pair| pair[0] > pair[1]).count() <= times.len() / 100, "history is not in order");
    let (middle, end) = (times[times.len() / 2].clone(), times[times.len() * 3 / 4].clone());
    for more in [
        &["--tail", "1"][..],
        &["--tail", "0"],
        &["--head", "7"],
        &["--since-time", &middle],
        &["--since-time", &middle, "--until", &end],
        &["--no-fold", "-i", "err .*[05]", "-e", "55"],
        &["-c", "nothing|main", "--since", "1h"],
    ] {
        let (api, node) = (read("api", more), read("node", more));
        assert!(api == node, "{more:?}: {} lines by the API, {} by the node", api.lines().count(), node.lines().count());
        assert!(more == ["--tail", "0"] || !api.is_empty(), "{more:?}");
    }
    let said = tail(&["deploy/twoways", "--no-follow", "-v", "--tail", "1", "-o", "raw"]);
    assert!(said.stderr.contains("way=\"node\"") && said.stderr.contains("its node is on this machine"), "{}", said.stderr);
    remove("twoways");
}

pub(super) fn pod(name: &str, script: &str) {
    shared().apply_manifest(&format!(
        "\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, args: [\"-c\", {script:?}]}}]
"
    ));
}

/// So many lines of about 110 bytes, as fast as a shell writes them.
pub(super) fn numbers(count: u32, pause: &str) -> String {
    let pad = "x".repeat(80);
    format!(
        "i=0; while [ $i -lt {count} ]; do j=0; while [ $j -lt 1000 ]; do echo \"$HOSTNAME $i {pad}\"; i=$((i+1)); j=$((j+1)); done; {pause}; done; \
         echo \"$HOSTNAME end\"; sleep 3600"
    )
}

/// 15 MB are more than the kubelet leaves in one file.
fn rotated() {
    let count = 140_000;
    pod("rotated", &numbers(count, ":"));
    eventually("all was written", SOON, || {
        let text = tail(&["pod/rotated", "--no-follow", "--tail", "1", "-o", "raw"]).stdout;
        if text.ends_with("end\n") { Ok(()) } else { Err(text) }
    });
    eventually("the kubelet rotates", SOON, || {
        let current = tail(&["pod/rotated", "--no-follow", "--via", "api", "-o", "raw"]).stdout.lines().count();
        if current < count as usize { Ok(()) } else { Err(format!("{current} lines in its file")) }
    });
    let text = tail(&["pod/rotated", "--no-follow", "--all", "-o", "raw"]).ok();
    let read: Vec<u32> = text.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    assert!(read == (0..count).collect::<Vec<_>>(), "{} lines", read.len());
    // A tail goes back as far as it has to.
    assert_eq!(tail(&["pod/rotated", "--no-follow", "--tail", "130000", "-o", "raw"]).ok().lines().count(), 130_000);
    shared().kubectl(["delete", "pod", "rotated", "--wait=false"]).run().ok();
}

/// Lines as they come, on a thread of their own.
pub(super) fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (lines_tx, lines_rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines_tx.send(line)));
    lines_rx
}

/// Numbers that were read, by pod.
pub(super) type Numbers = Arc<Mutex<BTreeMap<String, Vec<u32>>>>;

pub(super) fn collect(tail: &mut Running) -> Numbers {
    let read = Numbers::default();
    let (lines_rx, its) = (lines_of(tail.child.stdout.take().unwrap()), Arc::clone(&read));
    std::thread::spawn(move || {
        for line in lines_rx {
            let mut words = line.split(' ');
            let (Some(pod), Some(number)) = (words.next(), words.next()) else { continue };
            let mut read = its.lock().unwrap();
            // The end has a number, too.
            read.entry(pod.to_owned()).or_default().push(number.parse().unwrap_or(u32::MAX));
        }
    });
    read
}

/// However much it reads, in MB.
pub(super) const MOST_MEMORY: u64 = 64;

/// The most memory that it had so far, in MB.
pub(super) fn peak_memory(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1000
}

fn kill_api_server() {
    match current() {
        Cluster::Embedded => {
            let pids = processes(&shared(), "kube-apiserver");
            assert_eq!(pids.len(), 1, "{pids:?}");
            kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
        }
        _ => {
            let node = format!("{}-control-plane", shared().name);
            docker(["exec", &node, "pkill", "-9", "kube-apiserver"]).run().ok();
        }
    }
}

/// 10,000 lines a second, files that are rotated, pods that are replaced, and an
/// API server that is killed: each number once.
fn every_number_once() {
    let count = 200_000;
    deployment("lossless", 2, &numbers(count, "sleep 0.15"));
    let mut running = shared()
        .plugin("kubectl-logs_tail", ["--context", &shared().context(), "deploy/lossless", "-o", "raw", "--only-log-lines"])
        .start();
    let read = collect(&mut running);
    let names = || read.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    eventually("both pods are read", SOON, || if names().len() == 2 { Ok(()) } else { Err(format!("{:?}", names())) });
    std::thread::sleep(Duration::from_secs(3));
    kill_api_server();
    std::thread::sleep(Duration::from_secs(8));
    eventually("the API answers again", SOON, || {
        let said = shared().kubectl(["get", "pods", "-l", "app=lossless", "-o", "name"]).run();
        if said.status.success() { Ok(()) } else { Err(said.stderr) }
    });
    let replaced = names()[0].clone();
    shared().kubectl(["delete", "pod", &replaced, "--wait=false"]).run().ok();
    eventually("all but the replaced one are read to their ends", SOON * 2, || {
        let read = read.lock().unwrap();
        let at_end = read.values().filter(|numbers| numbers.last() == Some(&u32::MAX)).count();
        if at_end == 2 { Ok(()) } else { Err(format!("{:?}", read.iter().map(|(pod, numbers)| (pod, numbers.len())).collect::<Vec<_>>())) }
    });
    assert!(peak_memory(&running) < MOST_MEMORY, "{} MB", peak_memory(&running));
    running.signal(Signal::SIGINT);
    let status =
        eventually("logs-tail ends", Duration::from_secs(10), || running.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned()));
    assert!(status.success(), "{status}");
    remove("lossless");
    let read = read.lock().unwrap();
    assert_eq!(read.len(), 3, "{:?}", read.keys());
    for (pod, numbers) in read.iter() {
        let numbers = numbers.strip_suffix(&[u32::MAX]).unwrap_or(numbers);
        let wrong = numbers.iter().enumerate().find(|(index, number)| *index as u32 != **number);
        assert_eq!(wrong, None, "{pod}: {} numbers", numbers.len());
        assert!(*pod == replaced || numbers.len() == count as usize, "{pod}: {} numbers", numbers.len());
    }
}
