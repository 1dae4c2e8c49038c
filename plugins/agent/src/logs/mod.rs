//! `devloop-agent logs`: the log files of a node's containers, read and followed.
//!
//! One process reads all containers that a client wants of a node. `names`,
//! `cri` and `assemble` know the format and are pure; a `file` is read in blocks;
//! `begin` finds where; a `container` makes one log of files that are renamed,
//! compressed and deleted; the `engine` merges logs, and `serve` speaks to the client
//! and hears from the kernel.

mod assemble;
mod begin;
mod container;
mod cri;
mod engine;
mod file;
mod names;
mod serve;
#[cfg(test)]
mod tests;
mod watches;
mod writer;

#[cfg(doc)]
use {container::Container, engine::Engine, file::LogFile};

pub use serve::{serve, serve_standard_streams};
