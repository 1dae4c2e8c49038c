//! Follows the logs of every pod of a target, across restarts.
//!
//! `args` (clap, with the defaults of a `config` file) become a `request`, and
//! of its half that says what is done with lines a `setup`. `gather` finds out what its
//! targets (`query`) are in the clusters, `prompt` asks for them. `execute` lets
//! `devloop_core::logs` read and hands each event to the `printer`; there `lines`
//! makes records of lines and chooses among them, and the `writer` writes what
//! `render` makes of each. `standard_input` does the same without a cluster.

mod args;
mod config;
mod execute;
mod files;
mod gather;
mod lines;
mod narrator;
mod printer;
mod prompt;
mod query;
mod render;
mod request;
mod screen;
mod setup;
mod standard_input;
#[cfg(test)]
mod stern_tests;
mod writer;

pub use args::Args;

use devloop_core::{Context, ErrorContext, ExitStatus, Result};

/// Runs the command to its end.
///
/// # Errors
/// When the arguments make no request, the target can't be found, or its logs
/// can't be read.
pub async fn run(context: Context, args: Args) -> Result<ExitStatus> {
    let args = config::apply(args)?;
    devloop_core::app::apply_color(args.global.color);
    let template = args
        .output
        .template_file
        .as_deref()
        .map(std::fs::read_to_string)
        .transpose()
        .context("could not read the file of --template-file")?;
    let request = request::Request::new(args, template.as_deref(), console::colors_enabled(), jiff::Timestamp::now())?;
    execute::execute(&context, request).await
}
