//! A kind cluster's context in the user's kubeconfig, under the name that kind
//! itself gives it.

use crate::journal::{Created, Journal};
use crate::kubeconfig::{self, Entry};
use devloop_core::environment::EnvironmentRecord;
use devloop_core::error::{CommandError, ErrorHint, Result};

/// The context of a cluster, as kind names it.
pub(super) fn context_name(cluster: &str) -> String {
    format!("kind-{cluster}")
}

/// Makes sure that the context can be published: nothing is changed.
///
/// # Errors
/// When the kubeconfig can't be written, or the context is there and leads
/// elsewhere. `entry` is `None` while the cluster doesn't exist.
pub(super) fn check(name: &str, entry: Option<&Entry>, journal: &Journal) -> Result<()> {
    kubeconfig::check_writable(&kubeconfig::user_path()?)?;
    let Some(found) = kubeconfig::find(name)? else { return Ok(()) };
    if is_ours(name, journal) || entry.is_some_and(|entry| found.is_of(entry)) {
        return Ok(());
    }
    let leads = if found.server.is_empty() { "nowhere".to_owned() } else { format!("to {}", found.server) };
    Err(CommandError::new(format!("context {name:?} in {} leads {leads}, not to this cluster", found.path.display())))
        .hint(format!("rename it with `kubectl config rename-context {name} NAME`, or choose another environment with --name"))
        .hint(format!("if that cluster is gone: `kubectl config delete-context {name}`"))
}

/// Publishes the context and makes it the current one; what was current before
/// is noted in the record, which the caller writes.
///
/// # Errors
/// When the kubeconfig can't be written; it is unchanged then.
pub(super) fn publish(entry: &Entry, journal: &mut Journal, record: &mut EnvironmentRecord) -> Result<()> {
    let path = kubeconfig::user_path()?;
    let there = kubeconfig::find(&entry.name)?.is_some_and(|found| found.is_of(entry));
    if there && !is_ours(&entry.name, journal) {
        // Somebody else's entry: only which one is current changes.
        let current = devloop_core::cluster::load_kubeconfig(None)?.current_context.filter(|current| !current.is_empty());
        if current.as_deref() != Some(entry.name.as_str()) {
            kubeconfig::make_current(&path, &entry.name)?;
            record.previous_context = current;
        }
        return Ok(());
    }
    journal.add(created(&entry.name))?;
    if let Some(previous) = kubeconfig::merge(&path, entry)? {
        record.previous_context = Some(previous);
    }
    Ok(())
}

/// Takes the context out again if it is ours and still leads where we made it
/// lead; makes what was current before current again.
///
/// # Errors
/// When the kubeconfig can't be written; it is unchanged then.
pub(super) fn withdraw(name: &str, entry: Option<&Entry>, journal: &mut Journal, previous: Option<&str>) -> Result<()> {
    let path = kubeconfig::user_path()?;
    let ours = is_ours(name, journal);
    let unchanged = match (kubeconfig::find(name)?, entry) {
        (Some(found), Some(entry)) => found.is_of(entry),
        _ => true,
    };
    if ours && unchanged {
        kubeconfig::remove(&path, name, previous)?;
    } else if previous.is_some() {
        kubeconfig::give_back_current(&path, name, previous)?;
    }
    if ours {
        journal.remove(&created(name))?;
    }
    Ok(())
}

fn created(name: &str) -> Created {
    Created::KubeconfigContext { context: name.to_owned() }
}

fn is_ours(name: &str, journal: &Journal) -> bool {
    journal.newest_first().contains(&created(name))
}
