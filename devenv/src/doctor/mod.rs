//! `kubectl devenv doctor`: what is wrong with this machine, and the fix.

use devloop_core::environment::Directories;
use devloop_core::output::Format;
use devloop_core::{CommandError, Context, ExitStatus, Result};

/// Looks, and prints what was found; a failure when something blocks.
pub(crate) async fn run(_context: &Context, _directories: &Directories, _output: Format) -> Result<ExitStatus> {
    Err(CommandError::new("not there yet"))
}
