//! How long a cluster takes to come up, and what it costs at rest.

use crate::figures::Figures;
use crate::kind_up::Kind;
use crate::measure::{On, environment, ms};
use devloop_tests::environment::Environment;
use std::time::{Duration, Instant};

/// From nothing to ready, the state folder empty.
pub(crate) fn fresh(runs: usize) -> Figures {
    let environment = environment(On::Embedded);
    let mut figures = Figures::default();
    for run in 0..runs {
        one(&environment, &mut figures);
        if run + 1 == runs {
            cost_at_rest(&environment, &mut figures);
        }
        environment.down();
    }
    kind(&environment, &mut figures, runs);
    figures
}

/// From stopped to ready, the state kept.
pub(crate) fn kept(runs: usize) -> Figures {
    let environment = environment(On::Embedded);
    environment.up();
    let mut figures = Figures::default();
    for _ in 0..runs {
        environment.devenv(["down", "--keep"]).run().ok();
        one(&environment, &mut figures);
    }
    environment.clear();
    figures
}

fn one(environment: &Environment, figures: &mut Figures) {
    let started = Instant::now();
    let report = environment.devenv(["up", "--provider", "embedded", "-o", "json"]).run().ok();
    figures.samples.push(ms(started.elapsed()));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    for (name, value) in report["milestonesMs"].as_object().unwrap() {
        figures.phase(name, value.as_f64().unwrap());
    }
}

/// `kind create cluster`, where `scripts/bench --with-kind` has seen to an engine
/// and an image of nodes.
fn kind(environment: &Environment, figures: &mut Figures, runs: usize) {
    if std::env::var_os("KIND_NODE_IMAGE").is_none() {
        eprintln!("kind is not compared: ask for it with --with-kind");
        return;
    }
    let kind = Kind::new(environment);
    let mut samples = Vec::new();
    for _ in 0..runs.min(3) {
        samples.push(ms(kind.create()));
        kind.delete();
    }
    figures.peer = Some(("kind create cluster", samples));
}

/// Processor time and memory of all of the cluster's processes, over 20 s.
fn cost_at_rest(environment: &Environment, figures: &mut Figures) {
    let namespace = std::fs::read_link(format!("/proc/{}/ns/pid", environment.status().supervisor_pid)).unwrap();
    let processes = || {
        let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        numbers.filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|other| other == namespace)).collect::<Vec<_>>()
    };
    // Let the burst of the start pass.
    std::thread::sleep(Duration::from_secs(10));
    let ticks = |pids: &[i32]| pids.iter().map(|pid| cpu_ticks(*pid)).sum::<u64>();
    let pids = processes();
    let before = ticks(&pids);
    std::thread::sleep(Duration::from_secs(20));
    let used = ticks(&pids).saturating_sub(before) as f64;
    // USER_HZ is 100 on every architecture that we run on (times(2)).
    figures.more.insert("idleCpuPercent", used / 100.0 / 20.0 * 100.0);
    figures.more.insert("idleRssMb", pids.iter().map(|pid| resident_kib(*pid)).sum::<u64>() as f64 / 1024.0);
}

/// User and system time (`proc_pid_stat(5)`, fields 14 and 15).
pub(crate) fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, fields)| fields.split_ascii_whitespace().collect()).unwrap_or_default();
    [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum()
}

/// Resident memory (`proc_pid_status(5)`).
pub(crate) fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
}
