//! What environments that are gone have left.

use super::plan::{Leftover, Snapshot};
use super::{Place, caches};
use crate::provider::Providers;
use crate::request::EnvironmentName;
use devloop_core::Context;
use devloop_core::environment::Directories;
use devloop_core::error::{CommandError, Result};
use devloop_core::files::FileLock;

/// Looks for folders of environments without a record, and for parts of our
/// registry that no environment has.
pub(super) async fn gather(place: &Place<'_>, snapshot: &mut Snapshot) {
    let directories = place.directories;
    for name in directories.environment_names().unwrap_or_default().into_iter().filter(|name| is_abandoned(directories, name)) {
        let folder = directories.environment(&name).root().to_owned();
        let bytes = folder.metadata().map(|metadata| caches::size(&folder, &metadata)).unwrap_or_default();
        snapshot.leftovers.push(Leftover::Folder { name, bytes });
    }
    let Some(engine) = &place.engine else { return };
    match crate::registry::abandoned(engine, directories).await {
        Ok(found) => snapshot.leftovers.extend(found.into_iter().map(Leftover::Created)),
        Err(error) => snapshot.notes.push(format!("what is left in Docker: {}", error.chain().join(": "))),
    }
}

/// Whether there is nothing but a folder, which nobody is busy with.
fn is_abandoned(directories: &Directories, name: &str) -> bool {
    let environment = directories.environment(name);
    let runs = environment.status().ok().flatten().is_some_and(|status| crate::embedded::is_running(&status));
    let lock = directories.state.join("locks").join(name);
    let busy = lock.exists() && FileLock::try_acquire(&lock).is_ok_and(|lock| lock.is_none());
    name.parse::<EnvironmentName>().is_ok() && !environment.record_path().exists() && !runs && !busy
}

/// Removes an environment's folder and what its journal has, if it is still
/// abandoned.
pub(super) async fn remove(context: &Context, providers: &Providers, directories: &Directories, name: &str) -> Result<()> {
    if !is_abandoned(directories, name) {
        return Err(CommandError::new("it is in use now"));
    }
    let name: EnvironmentName = name.parse()?;
    providers.of(&name).down(context, &name, false).await
}
