//! The end-to-end tests: real clusters, stock kubectl, our programs as a user
//! runs them. `scripts/test` builds and installs what they need, then runs them.
//!
//! What our programs do by nodes is tested on each kind of them: the embedded one,
//! kind with one node and with three, and through nothing but the API of a cluster
//! whose nodes can't be reached. What a cluster makes no difference to is tested on the
//! embedded one, as is all that stock kubectl expects of it. One environment of each serves most tests, one
//! after another; those that kill or break things have environments of their own.
//!
//! `DEVLOOP_E2E=embedded,kind` runs the tests of those clusters only.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod buildkit;
mod clusters;
mod debug_attach;
mod delivery;
mod devenv;
mod dockerfile;
mod faults;
mod hot_reload;
mod image_base;
mod isolation;
mod kind;
mod kubectl;
mod logs_tail;
mod rebuild;
mod screen;
mod supervise;
mod watch;

use clusters::{Cluster, Tally, shared};
use devloop_tests::environment::Environment;
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::sync::Arc;

/// A test: its name and what it does, on whichever cluster.
type Case = (&'static str, fn());

/// A test whose name is put together.
struct Named {
    name: String,
    test: Box<dyn FnOnce() + Send>,
}

impl Named {
    fn new(name: impl Into<String>, test: impl FnOnce() + Send + 'static) -> Self {
        Self { name: name.into(), test: Box::new(test) }
    }
}

/// All tests of a cluster, in the order in which they run.
fn cases(cluster: Cluster) -> Vec<Named> {
    let named = |suites: Vec<Vec<Case>>| suites.concat().into_iter().map(|(name, test)| Named::new(name, test));
    let (early, late) = suites(cluster);
    named(early).chain(hot_reload::matrix(cluster)).chain(debug_attach::cases(cluster)).chain(named(late)).collect()
}

/// What comes before the matrix of hot-reload, and what comes after.
fn suites(cluster: Cluster) -> (Vec<Vec<Case>>, Vec<Vec<Case>>) {
    match cluster {
        Cluster::Embedded => (
            // First, while the host is as it was found.
            vec![
                isolation::cases(),
                kubectl::cases(),
                devenv::embedded_cases(),
                rebuild::cases(),
                rebuild::node_cases(),
                rebuild::examples::cases(),
                dockerfile::cases_without_engine(),
                delivery::cases(),
                image_base::cases(),
                hot_reload::cases(),
                hot_reload::commands::cases(),
            ],
            // What was begun by the first of the kubectl tests is due by now, and what was
            // to be built is.
            vec![
                buildkit::cases(),
                buildkit::cases_without_engine(),
                logs_tail::cases(),
                logs_tail::node_cases(),
                screen::cases(),
                supervise::cases(),
                devenv::late_cases(),
                faults::cases(),
                kubectl::late_cases(),
            ],
        ),
        Cluster::Kind => (
            vec![
                devenv::cases(),
                kind::cases(),
                rebuild::basics(),
                rebuild::examples::cases(),
                dockerfile::cases(),
                buildkit::cases(),
                buildkit::cases_with_engine(),
                delivery::cases(),
                image_base::cases(),
                image_base::docker_cases(),
                hot_reload::cases(),
                hot_reload::commands::cases(),
            ],
            vec![logs_tail::cases(), logs_tail::node_cases(), screen::cases(), devenv::late_cases(), kind::fault_cases()],
        ),
        Cluster::Kind3 => (vec![kind::multi_node_cases(), rebuild::basics(), hot_reload::cases()], vec![logs_tail::cases()]),
        Cluster::Api => (
            vec![devenv::api_cases(), rebuild::cases(), dockerfile::cases(), delivery::api_cases(), hot_reload::cases()],
            vec![logs_tail::cases()],
        ),
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests share two cores and one cluster; their times would blur.
    arguments.test_threads = Some(1);
    let chosen = match Cluster::chosen(std::env::var("DEVLOOP_E2E").ok().as_deref()) {
        Ok(chosen) => chosen,
        Err(reason) => {
            clusters::say(&format!("Error: {reason}"));
            return ExitCode::from(2);
        }
    };
    let tally = Arc::new(Tally::new());
    let mut trials = Vec::new();
    for cluster in chosen.iter().copied() {
        for Named { name, test } in cases(cluster) {
            let tally = Arc::clone(&tally);
            let trial = Trial::test(format!("{}::{name}", cluster.name()), move || {
                tally.run(cluster, &name, test);
                Ok(())
            });
            trials.push(trial);
        }
    }
    trials.push(Trial::test("every_cluster_was_tested", move || {
        hot_reload::leave();
        clusters::leave();
        clusters::say(&tally.to_string());
        tally.check(&chosen).map_err(Into::into)
    }));
    if !arguments.list {
        clear();
        if arguments.filter.is_none() {
            // Which takes minutes, and is needed late.
            std::thread::spawn(devloop_tests::buildkit::programs);
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        hot_reload::leave();
        clusters::leave();
        clear();
    }
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Removes what an earlier run left, or this one.
fn clear() {
    for place in [Environment::new("shared", "e2e"), Environment::new("own", "own")] {
        place.clear();
    }
}
