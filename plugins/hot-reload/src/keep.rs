//! The folder for copies of the last good binaries of a session.

use std::path::Path;
use tempfile::TempDir;

/// Before the number of the process that the folder belongs to.
const PREFIX: &str = "devloop-hot-reload-";

/// Makes a folder that goes with the session. Those of sessions that were killed
/// are removed.
pub(crate) fn folder() -> std::io::Result<TempDir> {
    let place = std::env::temp_dir();
    remove_leftovers(&place, |pid| Path::new("/proc").join(pid.to_string()).exists());
    tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir_in(place)
}

fn remove_leftovers(place: &Path, is_running: impl Fn(u32) -> bool) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok());
        if pid.is_some_and(|pid| !is_running(pid)) {
            // Another user's stays, and so does one that somebody is just removing.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_processes_that_are_gone_are_removed_and_no_others() {
        let place = tempfile::tempdir().unwrap();
        for name in
            ["devloop-hot-reload-1-abc", "devloop-hot-reload-2-abc", "devloop-hot-reload-x-abc", "devloop-hot-reload-2", "other-2-abc"]
        {
            std::fs::create_dir(place.path().join(name)).unwrap();
        }
        remove_leftovers(place.path(), |pid| pid == 1);
        let mut left: Vec<String> =
            std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["devloop-hot-reload-1-abc", "devloop-hot-reload-2", "devloop-hot-reload-x-abc", "other-2-abc"]);
    }
}
