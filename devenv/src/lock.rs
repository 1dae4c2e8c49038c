//! One `up` or `down` of an environment at a time, whichever engine it is of.

use crate::request::EnvironmentName;
use devloop_core::Context;
use devloop_core::environment::Directories;
use devloop_core::error::Result;
use devloop_core::files::FileLock;

/// Waits until no other command changes the environment. The kernel frees the
/// lock when its holder dies.
///
/// # Errors
/// When the lock file can't be made, or on Ctrl-C.
pub(crate) async fn environment(context: &Context, directories: &Directories, name: &EnvironmentName) -> Result<FileLock> {
    let path = directories.state.join("locks").join(name.as_str());
    let step = context.ui.step(format!("Waiting for another `up` or `down` of {:?}", name.as_str()));
    let lock = FileLock::wait(&path, &context.shutdown).await?;
    step.clear();
    Ok(lock)
}
