//! What the end-to-end tests and the benchmarks share: an environment of their
//! own, programs run as a user runs them, images that need no registry, the
//! examples and sessions on them.
//!
//! A check that fails panics with everything the program said: this crate is
//! for tests, where that is what is wanted.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

pub mod buildkit;
pub mod container;
pub mod dap;
pub mod dialogue;
pub mod docker;
pub mod environment;
pub mod example;
pub mod host;
pub mod images;
pub mod inspector;
pub mod program;
pub mod proxy;
pub mod session;
pub mod shop;
pub mod ssh;
pub mod toolbox;
pub mod tree;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The repository's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Where `scripts/build` puts the programs; `DEVLOOP_BIN` names another folder.
pub fn programs() -> PathBuf {
    std::env::var_os("DEVLOOP_BIN").map_or_else(|| repository().join("target/devloop/bin"), PathBuf::from)
}

/// A port on 127.0.0.1 where nobody listens. Somebody may before it is used, which fails
/// then, and says so.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Tries until `attempt` has an answer.
///
/// # Panics
/// After `limit`, with the last reason.
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(reason) if started.elapsed() > limit => panic!("{what}: not within {limit:?}; last: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
