//! What changed in a `Cargo.lock`. Pure.

use std::collections::BTreeSet;

/// The names of packages of which one text says something else than the other:
/// another version, source, checksum or list of dependencies.
pub(super) fn changed(before: &str, after: &str) -> BTreeSet<String> {
    let (before, after) = (packages(before), packages(after));
    before.symmetric_difference(&after).filter_map(|package| name_of(package)).collect()
}

/// The packages as cargo writes them, one table each.
fn packages(text: &str) -> BTreeSet<String> {
    let tables = text.split("[[package]]").skip(1);
    // What follows the last one is about no package.
    let tables = tables.map(|table| table.split("\n[").next().unwrap_or_default());
    tables.map(|table| table.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")).collect()
}

fn name_of(table: &str) -> Option<String> {
    let line = table.lines().find_map(|line| line.strip_prefix("name = "))?;
    Some(line.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n\n[metadata]\nx = \"1\"\n";

    fn names(after: &str) -> Vec<String> {
        changed(LOCK, after).into_iter().collect()
    }

    #[test]
    fn a_package_changed_when_its_table_did() {
        assert_eq!(names(LOCK), Vec::<String>::new());
        assert_eq!(names(&LOCK.replace("version = 4", "version = 3").replace("x = \"1\"", "x = \"2\"")), Vec::<String>::new());
        assert_eq!(names(&LOCK.replace("2.0.0", "2.0.1")), ["b"]);
        assert_eq!(names(&LOCK.replace(" \"b\",\n", "")), ["a"]);
        assert_eq!(names(&LOCK.replace("\n", "\r\n")), Vec::<String>::new());
        assert_eq!(names(""), ["a", "b"]);
    }
}
