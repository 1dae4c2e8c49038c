//! What was done, a line of JSON each, in devloop's state folder.

use devloop_core::environment::Directories;
use devloop_core::{ErrorContext, Result};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A longer one loses its older half.
const MOST_BYTES: u64 = 1 << 20;

/// Where it is.
pub(crate) fn path() -> Result<PathBuf> {
    Ok(Directories::from_env()?.state.join("debug-attach/journal.jsonl"))
}

/// Adds what was done, with the time.
///
/// # Errors
/// When it can't be written.
pub(crate) fn note(what: Value) -> Result<()> {
    let path = path()?;
    append(&path, what).with_context(|| format!("could not write {}", path.display()))
}

fn append(path: &Path, mut what: Value) -> std::io::Result<()> {
    what["time"] = k8s_openapi::jiff::Timestamp::now().to_string().into();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if path.metadata().is_ok_and(|metadata| metadata.len() > MOST_BYTES) {
        let text = std::fs::read_to_string(path)?;
        let middle = text.len() / 2 - text.as_bytes()[..text.len() / 2].iter().rev().take_while(|byte| **byte != b'\n').count();
        devloop_core::files::write_atomic(path, &text.as_bytes()[middle..], 0o600)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    // One write: lines of two commands don't mix.
    file.write_all(format!("{what}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_added_and_the_oldest_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/journal.jsonl");
        append(&path, json!({"did": 1})).unwrap();
        append(&path, json!({"did": 2})).unwrap();
        let lines = |path: &Path| -> Vec<Value> {
            std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        assert_eq!(lines(&path)[1]["did"], 2);
        assert!(lines(&path)[0]["time"].as_str().unwrap().ends_with('Z'));
        for did in 0..3 {
            append(&path, json!({"did": did, "filler": "x".repeat(700_000)})).unwrap();
        }
        let kept = lines(&path);
        assert!(kept.len() < 5 && kept.last().unwrap()["did"] == 2, "{}", kept.len());
    }
}
