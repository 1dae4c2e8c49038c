//! The port of a target on this machine: the same each time, so that an editor's
//! settings stay true.

use devloop_core::environment::Directories;
use devloop_core::files::{self, FileLock};
use devloop_core::{CommandError, ErrorContext, Result};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use tokio::net::TcpListener;

/// Below those that Linux gives out by itself (`ip_local_port_range`, from 32768)
/// and those of node ports (from 30000).
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;
/// How many are tried.
const TRIES: u16 = 50;

/// A port that listens.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) listener: TcpListener,
    pub(crate) port: u16,
    /// The port that it would have been, which is taken.
    pub(crate) instead_of: Option<u16>,
}

/// Opens the port of a target. `key` names it.
///
/// # Errors
/// When a port that was asked for, or all that are tried, can't be had.
pub(crate) async fn open(key: &str, wanted: Option<u16>) -> Result<Opened> {
    if let Some(port) = wanted {
        let listener = bind(port).await.map_err(|error| {
            CommandError::new(format!("port {port} can't be opened"))
                .caused_by(error)
                .with_hint("name another with --port, or leave that out")
        })?;
        return Ok(Opened { listener, port, instead_of: None });
    }
    let folder = Directories::from_env()?.state.join("debug-attach");
    std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    // Two commands at once must not give one port to two targets.
    let _lock = FileLock::acquire(&folder.join(".lock")).context("could not lock the ports")?;
    open_at(&folder.join("ports.json"), key).await
}

async fn open_at(record: &Path, key: &str) -> Result<Opened> {
    let content = files::read_optional(record).with_context(|| format!("could not read {}", record.display()))?;
    // One that is damaged costs the ports' staying the same, no more.
    let mut ports: BTreeMap<String, u16> = content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default();
    let own = ports.get(key).copied().unwrap_or_else(|| derived(key, &ports));
    let mut refused = None;
    for port in std::iter::once(own).chain(candidates(own).filter(|port| !ports.values().any(|other| other == port))) {
        match bind(port).await {
            Ok(listener) => {
                if port == own && ports.insert(key.to_owned(), port).is_none() {
                    let text = serde_json::to_vec_pretty(&ports).context("could not write the ports")?;
                    files::write_atomic(record, &text, 0o600).with_context(|| format!("could not write {}", record.display()))?;
                }
                return Ok(Opened { listener, port, instead_of: (port != own).then_some(own) });
            }
            Err(error) => refused = Some(error),
        }
    }
    let error = CommandError::new(format!("none of the ports from {own} on can be opened"));
    Err(match refused {
        Some(cause) => error.caused_by(cause),
        None => error,
    })
}

async fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// From the name alone, unless that port is another target's.
fn derived(key: &str, others: &BTreeMap<String, u16>) -> u16 {
    let hash = blake3::hash(key.as_bytes());
    let number = u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
    let first = FIRST + number % COUNT;
    std::iter::once(first).chain(candidates(first)).find(|port| !others.values().any(|other| other == port)).unwrap_or(first)
}

fn candidates(after: u16) -> impl Iterator<Item = u16> {
    (1..TRIES).map(move |step| FIRST + (after.saturating_sub(FIRST) + step) % COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_target_keeps_its_port_and_gets_another_only_while_that_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("ports.json");
        let first = open_at(&record, "a").await.unwrap();
        assert_eq!(first.instead_of, None);
        let second = open_at(&record, "a").await.unwrap();
        assert_eq!(second.instead_of, Some(first.port));
        assert_ne!(second.port, first.port);
        let port = first.port;
        drop((first, second));
        let third = open_at(&record, "a").await.unwrap();
        assert_eq!((third.port, third.instead_of), (port, None));
        std::fs::write(&record, "damaged").unwrap();
        drop(third);
        assert_eq!(open_at(&record, "a").await.unwrap().port, port);
    }

    #[test]
    fn two_targets_have_two_ports() {
        let own = derived("a", &BTreeMap::new());
        let other = derived("a", &[("b".to_owned(), own)].into());
        assert!((FIRST..FIRST + COUNT).contains(&own) && own != other);
        assert!(candidates(FIRST + COUNT - 1).all(|port| (FIRST..FIRST + COUNT).contains(&port)));
    }
}
