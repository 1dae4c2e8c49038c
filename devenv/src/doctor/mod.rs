//! `kubectl devenv doctor`: what is wrong with this machine, and the fix.
//!
//! [`gather`] finds facts out, each within a time limit; [`checks`] makes
//! findings of them and is pure; [`render`] shows them.

mod checks;
mod facts;
mod finding;
mod gather;
mod render;

use devloop_core::environment::Directories;
use devloop_core::output::{self, Format};
use devloop_core::{Context, ExitStatus, Result};
use finding::Severity;

/// Looks, and prints what was found; a failure when something blocks.
pub(crate) async fn run(context: &Context, directories: &Directories, format: Format) -> Result<ExitStatus> {
    let step = context.ui.step("Looking around");
    let facts = context.shutdown.guard(async { Ok(gather::facts(directories).await) }).await?;
    step.clear();
    let findings = checks::examine(&facts);
    output::print(format, &findings, || render::render(&findings))?;
    let blocks = findings.iter().any(|finding| finding.severity == Severity::Blocks);
    Ok(if blocks { ExitStatus::Failure } else { ExitStatus::Success })
}
