//! The checks: pure functions from facts to findings.

mod docker;
mod environments;
mod kubeconfig;
mod machine;
mod network;
mod programs;

use super::facts::Facts;
use super::finding::{Finding, weigh};

/// Makes every check.
pub(crate) fn examine(facts: &Facts) -> Vec<Finding> {
    let all = [
        machine::check(facts),
        programs::check(facts),
        docker::check(facts),
        network::check(facts),
        kubeconfig::check(facts),
        environments::check(facts),
    ];
    weigh(all.into_iter().flatten().collect())
}

#[cfg(test)]
pub(super) mod tests;
