//! The end-to-end tests: real clusters, stock kubectl, our programs as a user
//! runs them. `scripts/test` builds and installs what they need, then runs them.
//!
//! One environment serves most tests, one after another; those that kill or
//! break things have environments of their own.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod devenv;
mod faults;
mod hot_reload;
mod isolation;
mod kubectl;
mod logs_tail;
mod rebuild;

use devloop_tests::environment::Environment;
use devloop_tests::toolbox;
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::sync::OnceLock;

/// The environment that most tests share, brought up by the first that asks.
fn shared() -> &'static Environment {
    static SHARED: OnceLock<Environment> = OnceLock::new();
    SHARED.get_or_init(|| {
        let environment = Environment::new("shared", "e2e");
        environment.up();
        let archive = toolbox::archive(&environment.scratch("toolbox"));
        environment.devenv(["load".as_ref(), archive.as_os_str()]).run().ok();
        environment
    })
}

/// A test by its name, in a form that the runner takes.
fn trial(name: &'static str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests share two cores and one cluster; their times would blur.
    arguments.test_threads = Some(1);
    let places = [Environment::new("shared", "e2e"), Environment::new("own", "own")];
    for place in &places {
        place.clear();
    }
    let trials = [
        // First, while the host is as it was found.
        isolation::trials(),
        kubectl::trials(),
        devenv::trials(),
        rebuild::trials(),
        hot_reload::trials(),
        logs_tail::trials(),
        faults::trials(),
        // Last: started by the first of the kubectl tests, due by now.
        kubectl::late_trials(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    for place in &places {
        place.clear();
    }
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
