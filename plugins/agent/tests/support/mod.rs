//! What the integration tests share: a container of our own making, programs to
//! run in it, and a client of the real agent binary. All of it needs root.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

pub mod client;
pub mod container;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use client::Client;
pub use container::{Container, Options};

/// Content, mode, owner, time, by path.
pub type Tree = Vec<(String, Vec<u8>, u32, (u32, u32), (i64, i64))>;

/// A folder and all that is in it.
pub fn tree(folder: &Path) -> Tree {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if stat.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let time = (stat.mtime(), stat.mtime_nsec());
        found.push((path.to_string_lossy().into_owned(), content, stat.mode(), (stat.uid(), stat.gid()), time));
    }
    found.sort();
    found
}

/// Asks until `condition` holds; panics with `what` after ten seconds.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The test server as `v1` or `v2`, static; built once per test binary.
pub fn program(version: &str) -> Vec<u8> {
    static BUILT: OnceLock<(TempDir, PathBuf, PathBuf)> = OnceLock::new();
    let (_, first, second) = BUILT.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let first = build(directory.path(), "v1", &["-C", "target-feature=+crt-static"]);
        let second = build(directory.path(), "v2", &["-C", "target-feature=+crt-static"]);
        (directory, first, second)
    });
    std::fs::read(if version == "v1" { first } else { second }).unwrap()
}

/// The same, but linked against a C library that no test container has.
pub fn dynamic_program() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::read(build(directory.path(), "v2", &[])).unwrap()
}

fn build(directory: &Path, version: &str, options: &[&str]) -> PathBuf {
    let program = directory.join(version);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/victims/server.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition", "2024", "--target", "x86_64-unknown-linux-gnu", "-C", "strip=symbols"])
        .args(options)
        .arg("-o")
        .arg(&program)
        .arg(source)
        .env("VICTIM_VERSION", version)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}
