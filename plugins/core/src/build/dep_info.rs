//! What a compiler read, as it tells it.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// The inputs that a `.d` file in make's syntax names: `output: input input`,
/// with `\ ` for a space; see rustc's `--emit dep-info`.
pub fn parse_dep_info(text: &str) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.split_once(": ").map(|(_, inputs)| inputs)) {
        let escaped = line.replace("\\ ", "\0");
        paths.extend(escaped.split(' ').filter(|path| !path.is_empty()).map(|path| PathBuf::from(path.replace('\0', " "))));
    }
    paths
}
