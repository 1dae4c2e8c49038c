//! The way from what changed to what is built of it.

use std::collections::{BTreeMap, VecDeque};

/// The shortest way from a package that fits, along those that depend on it, to
/// `start`. A package without `dependencies` is not known, and leads nowhere.
pub(super) fn shortest<'a>(
    start: &'a str,
    dependencies: impl Fn(&str) -> Option<&'a [String]>,
    fits: impl Fn(&str) -> bool,
) -> Option<Vec<&'a str>> {
    let mut from: BTreeMap<&str, Option<&str>> = BTreeMap::from([(start, None)]);
    let mut next = VecDeque::from([start]);
    while let Some(package) = next.pop_front() {
        let Some(dependencies) = dependencies(package) else { continue };
        if fits(package) {
            return Some(std::iter::successors(Some(package), |step| from.get(step).copied().flatten()).collect());
        }
        for dependency in dependencies {
            if !from.contains_key(dependency.as_str()) {
                from.insert(dependency, Some(package));
                next.push_back(dependency);
            }
        }
    }
    None
}
