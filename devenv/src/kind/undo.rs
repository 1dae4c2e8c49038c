//! Removing exactly what the journal lists, newest first.

use super::{containers, files, publish};
use crate::journal::{Created, Journal};
use crate::registry;
use devloop_core::Context;
use devloop_core::docker::Engine;
use devloop_core::environment::{Directories, EnvironmentDirectory, EnvironmentRecord};
use devloop_core::error::{ErrorContext, Result};

/// Removes all of it, and the environment's folder in the end.
///
/// # Errors
/// When something can't be removed: it is still on the journal then.
pub(super) async fn everything(
    context: &Context,
    directories: &Directories,
    engine: &Engine,
    name: &str,
    journal: &mut Journal,
    record: &EnvironmentRecord,
) -> Result<()> {
    let environment = directories.environment(name);
    let context_name = publish::context_name(name);
    let entry = files::any_entry(&environment, &context_name);
    publish::withdraw(&context_name, entry.as_ref(), journal, record.previous_context.as_deref())?;
    for created in journal.newest_first() {
        if let Created::KindCluster { cluster } = &created {
            containers::remove_cluster(engine, cluster).await?;
            journal.remove(&created)?;
        }
    }
    // What was put on nodes and into the API went with them.
    registry::disconnect(context, engine, directories, name, journal).await?;
    forget(&environment)
}

/// Removes the environment's folder.
///
/// # Errors
/// When it can't be removed.
pub(super) fn forget(environment: &EnvironmentDirectory) -> Result<()> {
    devloop_core::files::remove_all(environment.root()).with_context(|| format!("could not remove {}", environment.root().display()))
}
