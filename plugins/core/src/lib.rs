//! What the devloop kubectl plugins share.
//!
//! One module per capability; each is the only user of the library behind it.
//! Nothing here prints to stdout or stderr except through [`ui`], and nothing
//! ends the process.

pub mod affected;
pub mod agent;
pub mod app;
pub mod args;
pub mod build;
pub mod changes;
pub mod cluster;
pub mod deliver;
pub mod deploy;
pub mod detect;
pub mod docker;
pub mod dockerfile;
pub mod environment;
pub mod ephemeral;
pub mod error;
pub mod exec;
pub mod files;
pub mod image;
pub mod logs;
pub mod node;
pub mod output;
pub mod patterns;
pub mod project;
pub mod registry;
pub mod shutdown;
pub mod symbols;
mod tail;
pub mod target;
pub mod telemetry;
pub mod ui;
pub mod watch;
pub mod workload;

pub use app::Context;
pub use error::{CommandError, ErrorContext, ExitStatus, Result};
