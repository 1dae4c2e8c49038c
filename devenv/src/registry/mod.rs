//! The local image registry of an environment, by kind's convention and KEP-1755.
//!
//! This module's functions are for clusters whose nodes are containers: there the
//! registry is a container, too, which all environments of a machine share, and
//! which is somebody else's if there was one before. The embedded engine runs its
//! own and shares only the convention.

pub(crate) mod collection;
mod container;
pub(crate) mod convention;
mod image;
mod local_image;
mod nodes;
pub(crate) mod port;
mod removal;

pub use nodes::{connect, withdraw};
pub use removal::disconnect;

pub(crate) use collection::{Collection, collect_container, preview_container};
pub(crate) use container::VOLUME;
pub(crate) use removal::{abandoned, remove_abandoned};

use crate::journal::{Created, Journal};
use crate::request::RegistryChoice;
use container::Found;
use devloop_core::Context;
use devloop_core::docker::Engine;
use devloop_core::environment::Directories;
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::files::FileLock;

/// A registry that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Its container.
    pub container: String,
    /// Its port on loopback.
    pub port: u16,
    /// Whether it is ours; nothing of somebody else's is changed or removed.
    pub ours: bool,
}

impl Registry {
    /// Its name in images: `localhost:PORT`.
    pub fn host(&self) -> String {
        convention::host(self.port)
    }
}

/// Makes sure that a registry runs, if there is to be one: one that is there, or
/// a new one. Needs no cluster, so that it can be done while one is being made.
/// `None` when none is wanted, or, said to the user, when none can be had.
///
/// A cluster that is adopted may have a registry of its own already
/// ([`devloop_core::registry::hosting`]); then this is not to be called.
///
/// # Errors
/// When the user named a port and the registry can't be there, or the engine
/// fails. What was made until then is in the journal.
pub async fn start(
    context: &Context,
    engine: &Engine,
    directories: &Directories,
    choice: RegistryChoice,
    journal: &mut Journal,
) -> Result<Option<Registry>> {
    let RegistryChoice::Local { port: named } = choice else { return Ok(None) };
    // Two environments that come up at once share one.
    let _lock = lock(context, directories).await?;
    let found = container::find(engine, &directories.state).await?;
    let registry = match decide(named, &found)? {
        Decision::Reuse(found) => {
            if found.ours {
                note(journal)?;
            }
            let port = container::ensure_running(context, engine, &found).await?;
            Registry { container: found.name, port, ours: found.ours }
        }
        Decision::Make => {
            let Some(image) = image::ensure(context, engine).await? else {
                let error = "there is no image of a registry, and no docker-registry program to make one from";
                let hint = "install it with `apt-get install --no-install-recommends docker-registry`, or `docker pull registry:3`";
                if named.is_some() {
                    return Err(CommandError::new(error)).hint(hint);
                }
                context.ui.say(format!("No image registry in this environment: {error}; {hint}"));
                return Ok(None);
            };
            note(journal)?;
            let port = container::make(engine, &image, named, &directories.state).await?;
            Registry { container: convention::CONTAINER.to_owned(), port, ours: true }
        }
    };
    if container::is_local(engine) {
        let host = format!("127.0.0.1:{}", registry.port);
        devloop_core::registry::wait_until_serving(&host)
            .await
            .with_context(|| format!("registry {} does not answer", registry.container))
            .hint(format!("see what it says with `docker logs {}`", registry.container))?;
    }
    Ok(Some(registry))
}

/// Writes down the parts of our registry.
fn note(journal: &mut Journal) -> Result<()> {
    journal.add(Created::Volume { name: VOLUME.to_owned() })?;
    journal.add(Created::Container { name: convention::CONTAINER.to_owned() })
}

/// Guards the shared container.
async fn lock(context: &Context, directories: &Directories) -> Result<FileLock> {
    FileLock::wait(&directories.state.join("locks").join(".registry"), &context.shutdown).await
}

/// Which registry it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Reuse(Found),
    Make,
}

fn decide(named: Option<u16>, found: &[Found]) -> Result<Decision> {
    let fits = |found: &&Found| named.is_none() || named == found.port;
    if let Some(found) = found.iter().find(fits) {
        return Ok(Decision::Reuse(found.clone()));
    }
    let Some(taken) = found.iter().find(|found| found.name == convention::CONTAINER) else { return Ok(Decision::Make) };
    let place = taken.port.map_or_else(|| "without a published port".to_owned(), |port| format!("on port {port}"));
    Err(CommandError::new(format!("there is a registry {} already, {place}", taken.name)))
        .hint("leave --registry-port out to use it, or remove it with `docker rm --force kind-registry` if nothing needs it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, port: u16) -> Found {
        Found { name: name.into(), port: Some(port), running: true, ours: false }
    }

    #[test]
    fn a_registry_that_is_there_is_used_whosever_it_is() {
        assert_eq!(decide(None, &[]).unwrap(), Decision::Make);
        let (kind, ctlptl) = (found("kind-registry", 5001), found("ctlptl-registry", 5005));
        assert_eq!(decide(None, &[kind.clone(), ctlptl.clone()]).unwrap(), Decision::Reuse(kind.clone()));
        assert_eq!(decide(Some(5005), &[kind.clone(), ctlptl.clone()]).unwrap(), Decision::Reuse(ctlptl.clone()));
        assert_eq!(decide(Some(5002), &[ctlptl]).unwrap(), Decision::Make);
        let error = decide(Some(5002), &[kind]).unwrap_err();
        assert_eq!(error.to_string(), "there is a registry kind-registry already, on port 5001");
    }
}
