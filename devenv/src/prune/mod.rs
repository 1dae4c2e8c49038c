//! `kubectl devenv prune`: frees the space of what nothing uses any more.

use crate::provider::Providers;
use crate::request::PruneRequest;
use devloop_core::environment::Directories;
use devloop_core::{CommandError, Context, ExitStatus, Result};

/// Finds what can go, and removes it unless it is a dry run.
pub(crate) async fn run(
    _context: &Context,
    _providers: &Providers,
    _directories: &Directories,
    _request: &PruneRequest,
) -> Result<ExitStatus> {
    Err(CommandError::new("not there yet"))
}
