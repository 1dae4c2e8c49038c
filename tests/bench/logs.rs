//! `kubectl logs-tail` next to `kubectl logs`, on the same pods in the same run.

use crate::figures::{Figures, percentile};
use crate::measure::{On, environment, load_toolbox, ms};
use devloop_tests::environment::Environment;
use devloop_tests::eventually;
use devloop_tests::toolbox::IMAGE;
use jiff::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

const HISTORY_PODS: usize = 5;
const HISTORY_LINES: usize = 60_000;
const FOLLOW_PODS: usize = 10;
const FOLLOW_LINES_A_SECOND: usize = 20_000;
const FOLLOW_TIME: Duration = Duration::from_secs(20);
const LONG_FOLLOW_TIME: Duration = Duration::from_secs(600);
/// The embedded node takes 110 pods, so that there are ten containers in each.
const MANY_PODS: usize = 50;
const MANY_CONTAINERS: usize = 10;

const LONG: Duration = Duration::from_secs(600);

/// Makes pods whose containers run a script.
fn pods(environment: &Environment, count: usize, containers: usize, script: &str) {
    let mut manifest = String::new();
    for pod in 0..count {
        let _ = write!(
            manifest,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: bench-{pod}, labels: {{app: bench}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n"
        );
        for container in 0..containers {
            let _ = writeln!(manifest, "  - {{name: c{container}, image: {IMAGE}, imagePullPolicy: Never, args: [\"-c\", {script:?}]}}");
        }
    }
    environment.apply_manifest(&manifest);
    environment.kubectl(["wait", "--for=condition=Ready", "pod", "--all", "--timeout=600s"]).run().ok();
}

fn up(on: On) -> Environment {
    let environment = environment(on);
    environment.up();
    load_toolbox(&environment);
    environment
}

/// Seconds of processor time of children that have ended.
fn processor_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

/// Runs something; how long it took, in milliseconds and seconds of processor time.
fn timed(work: impl FnOnce() -> String) -> (f64, f64, String) {
    let (started, before) = (Instant::now(), processor_time());
    let said = work();
    (ms(started.elapsed()), processor_time() - before, said)
}

/// 5 pods with 60,000 lines each.
pub(crate) fn history(runs: usize, on: On) -> Figures {
    let environment = up(on);
    let line = r#"{"level":"info","msg":"request served","path":"/api/orders","status":200}"#;
    let script = format!("i=0; while [ $i -lt {HISTORY_LINES} ]; do echo '{line}' $i; i=$((i+1)); done; sleep 36000");
    pods(&environment, HISTORY_PODS, 1, &script);
    let total = HISTORY_PODS * HISTORY_LINES;
    let ours = |via: &str| {
        let arguments = ["--context", &environment.context(), "-l", "app=bench", "--no-follow", "-o", "raw", "--via", via];
        environment.plugin("kubectl-logs_tail", arguments).run().ok()
    };
    eventually("all was written", LONG, || {
        let count = ours("node").lines().count();
        if count == total { Ok(()) } else { Err(format!("{count} lines")) }
    });
    let mut figures = Figures::default();
    let (mut peer, mut processor) = (Vec::new(), [0.0; 3]);
    for _ in 0..runs {
        for (index, via) in ["node", "api"].into_iter().enumerate() {
            let (took, seconds, said) = timed(|| ours(via));
            assert_eq!(said.lines().count(), total);
            processor[index] += seconds;
            if via == "node" { figures.samples.push(took) } else { figures.phase("--via api", took) }
        }
        let arguments = ["logs", "-l", "app=bench", "--tail=-1", "--max-log-requests=10"];
        let (took, seconds, said) = timed(|| environment.kubectl(arguments).run().ok());
        assert_eq!(said.lines().count(), total);
        processor[2] += seconds;
        peer.push(took);
    }
    for (name, seconds) in ["processor s, node", "processor s, api", "processor s, kubectl"].into_iter().zip(processor) {
        figures.more.insert(name, seconds / runs as f64);
    }
    figures.peer = Some(("kubectl logs -l", peer));
    environment.clear();
    figures
}

/// An environment whose pods write 20,000 lines a second.
fn followed(on: On) -> Environment {
    let environment = up(on);
    // As many as are due by the clock, whatever writing and sleeping take.
    let each_hundredth = FOLLOW_LINES_A_SECOND / FOLLOW_PODS / 100;
    let now = "read up rest < /proc/uptime; now=${up%.*}${up#*.}";
    let script = format!(
        "{now}; begin=$now; j=0; while :; do {now}; due=$(((now-begin)*{each_hundredth})); while [ $j -lt $due ]; do echo request $j served in 12ms; j=$((j+1)); done; sleep 0.02; done"
    );
    pods(&environment, FOLLOW_PODS, 1, &script);
    environment
}

/// 20,000 lines a second over 10 pods: how long after the runtime took a line it
/// is read from us.
pub(crate) fn follow(runs: usize, on: On) -> Figures {
    let environment = followed(on);
    let mut figures = Figures::default();
    for _ in 0..runs {
        for (name, order) in [("ordered", "--window=150ms"), ("unordered", "--unordered")] {
            let run = follow_once(&environment, order, FOLLOW_TIME);
            if name == "ordered" {
                figures.samples.push(run.latency)
            } else {
                figures.phase("--unordered", run.latency)
            }
            let keys = if name == "ordered" {
                ["lines/s", "processor %", "RSS MB"]
            } else {
                ["lines/s --unordered", "processor % --unordered", "RSS MB --unordered"]
            };
            for (key, value) in keys.into_iter().zip([run.rate, run.processor, run.memory]) {
                figures.more.insert(key, value);
            }
        }
    }
    environment.clear();
    figures
}

/// The same in order for ten minutes: whether the memory grows.
pub(crate) fn follow_long(runs: usize, on: On) -> Figures {
    let environment = followed(on);
    let mut figures = Figures::default();
    for _ in 0..runs {
        let run = follow_once(&environment, "--window=150ms", LONG_FOLLOW_TIME);
        figures.samples.push(run.latency);
        let names = ["lines/s", "processor %", "RSS MB at the beginning", "RSS MB after ten minutes"];
        figures.more.extend(names.into_iter().zip([run.rate, run.processor, run.memory_before, run.memory]));
    }
    environment.clear();
    figures
}

struct Followed {
    /// Median, in milliseconds.
    latency: f64,
    /// Resident memory when counting began, in MB; below, when it ended.
    memory_before: f64,
    rate: f64,
    processor: f64,
    memory: f64,
}

fn follow_once(environment: &Environment, order: &str, time: Duration) -> Followed {
    let arguments = ["--context", &environment.context(), "-l", "app=bench", "--tail", "0", "-o", "json", "--only-log-lines", order];
    let mut running = environment.plugin("kubectl-logs_tail", arguments).start();
    let mut lines = BufReader::new(running.child.stdout.take().unwrap()).lines();
    // What comes first is late by the start.
    let begin = Instant::now() + Duration::from_secs(3);
    let (mut latencies, mut ticks) = (Vec::new(), None);
    let (mut counted, mut memory_before) = (Instant::now(), 0.0);
    for line in lines.by_ref().map_while(Result::ok) {
        if Instant::now() < begin {
            continue;
        }
        if ticks.is_none() {
            ticks = Some(processor_ticks(&running.child));
            memory_before = memory(&running.child);
            counted = Instant::now();
        }
        // The stamp is first in the object.
        let stamp = line.strip_prefix("{\"timestamp\":\"").and_then(|rest| rest.split('"').next()).unwrap();
        let age = Timestamp::now().duration_since(stamp.parse().unwrap());
        latencies.push(age.as_secs_f64() * 1000.0);
        if counted.elapsed() > time {
            break;
        }
    }
    let seconds = counted.elapsed().as_secs_f64();
    let used = processor_ticks(&running.child) - ticks.unwrap();
    Followed {
        latency: percentile(&latencies, 50.0),
        memory_before,
        rate: latencies.len() as f64 / seconds,
        processor: used / seconds,
        memory: memory(&running.child),
    }
}

/// Hundredths of seconds of processor time (proc_pid_stat(5), fields 14 and 15).
fn processor_ticks(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

/// Resident memory, in MB.
fn memory(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1000.0
}

/// 500 containers in 50 pods, to the first line of each.
pub(crate) fn many(runs: usize, on: On) -> Figures {
    let environment = up(on);
    pods(&environment, MANY_PODS, MANY_CONTAINERS, "echo ready; sleep 36000");
    let total = MANY_PODS * MANY_CONTAINERS;
    let mut figures = Figures::default();
    let mut peer = Vec::new();
    for _ in 0..runs {
        for via in ["node", "api"] {
            let started = Instant::now();
            let arguments = ["--context", &environment.context(), "-l", "app=bench", "-o", "json", "--only-log-lines", "--via", via];
            let mut running = environment.plugin("kubectl-logs_tail", arguments).start();
            let mut seen = HashSet::new();
            for line in BufReader::new(running.child.stdout.take().unwrap()).lines().map_while(Result::ok) {
                let record: serde_json::Value = serde_json::from_str(&line).unwrap();
                seen.insert((record["pod"].to_string(), record["container"].to_string()));
                if seen.len() == total {
                    break;
                }
            }
            let took = ms(started.elapsed());
            assert_eq!(seen.len(), total);
            if via == "node" {
                figures.samples.push(took);
                figures.more.insert("RSS MB, node", memory(&running.child));
            } else {
                figures.phase("--via api", took);
                figures.more.insert("RSS MB, api", memory(&running.child));
            }
        }
        let arguments = ["logs", "-l", "app=bench", "--all-containers", "--tail=1", "--max-log-requests=1000"];
        let (took, _, said) = timed(|| environment.kubectl(arguments).run().ok());
        assert_eq!(said.lines().count(), total);
        peer.push(took);
    }
    figures.peer = Some(("kubectl logs --all-containers", peer));
    environment.clear();
    figures
}
