//! Follows the logs of every pod of a target, across restarts.
//!
//! `args` (clap) become a `request`; `execute` lets `devloop_core::logs` read
//! and hands each event to the `printer`, which writes what `render` makes of it.

mod args;
mod execute;
mod printer;
mod render;
mod request;

pub use args::Args;

use devloop_core::{Context, ExitStatus, Result};

/// Runs the command to its end.
///
/// # Errors
/// When the arguments make no request, the target can't be found, or its logs
/// can't be read.
pub async fn run(context: Context, args: Args) -> Result<ExitStatus> {
    let request = request::Request::new(args)?;
    execute::execute(&context, &request).await
}
