//! `kubectl devenv`: brings up a cluster to work in, looks after it, takes it
//! down again without a trace.
//!
//! `args` -> [`request`] -> one function of [`provider::Provider`] -> what a
//! person sees. The engines are [`embedded`], [`kind`] and [`context`]; what they
//! make is written down in [`journal`] first, so that it can be removed.

mod args;
mod choice;
mod commands;
pub mod context;
mod doctor;
pub mod embedded;
pub mod journal;
pub mod kind;
pub mod kubeconfig;
mod load;
mod lock;
pub mod provider;
mod prune;
mod records;
pub mod registry;
pub mod request;

use devloop_core::{Context, ExitStatus, Result};
use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    // The first process of a node is this program, too; it must not start with
    // a runtime, signal handlers or argument parsing made for people.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == embedded::NODE_INIT) {
        return embedded::node_init(arguments.next());
    }
    devloop_core::app::run(|args: &args::Args| &args.global, execute)
}

async fn execute(context: Context, args: args::Args) -> Result<ExitStatus> {
    commands::run(&context, request::Request::try_from(args.command)?).await
}
