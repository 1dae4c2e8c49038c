//! A container's process is found, and its files are compared with the local ones.

use crate::plan::{Item, Layout};
use crate::pods::RunningContainer;
use crate::session::Event;
use devloop_core::agent::{Agent, AgentError, CheckEntry, Located, ProcessId};
use devloop_core::watch;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a container's process may take to show up.
const LOCATE_PATIENCE: Duration = Duration::from_secs(5);
/// More files, or more bytes, than this are compared by size at first: reading
/// all of them would hold up the session.
const FILES_READ_AT_ONCE: usize = 20_000;
const BYTES_READ_AT_ONCE: u64 = 512 << 20;

/// What attaching to a container found.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) located: Located,
    pub(crate) running: Option<blake3::Hash>,
}

/// Finds a container's process and what it runs. The runtime may report a
/// container before its process can be seen.
pub(crate) async fn attach(agent: Agent, number: u64, lane: usize, pod: String, container: RunningContainer) -> Event {
    let started = Instant::now();
    let located = loop {
        match agent.locate(&container.id).await {
            Err(error) if error.is_vanished() && started.elapsed() < LOCATE_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            outcome => break outcome,
        }
    };
    let outcome = located.map(|located| {
        // Unknown is fine: then the first build is swapped to in any case.
        let running = located.blake3.map(blake3::Hash::from_bytes);
        Attachment { located, running }
    });
    Event::Attached { lane, pod, container_id: container.id, number, outcome: Box::new(outcome) }
}

/// How closely files are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// By content; by size where there is very much of it.
    Quick,
    /// By content.
    Full,
}

/// What comparing a container's files with the local ones found.
#[derive(Debug)]
pub(crate) struct Checked {
    /// What it lacks or has otherwise.
    pub(crate) differing: BTreeMap<String, Item>,
    /// Whether contents were compared.
    pub(crate) is_full: bool,
    /// How many files were compared.
    pub(crate) files: usize,
}

/// Compares a container's files with the local ones.
pub(crate) async fn check(
    agent: Agent,
    lane: usize,
    pod: String,
    container_id: String,
    process: ProcessId,
    layout: Layout,
    depth: Depth,
) -> Event {
    let outcome = compare(&agent, process, layout, depth).await;
    Event::Checked { lane, pod, container_id, outcome }
}

async fn compare(agent: &Agent, process: ProcessId, layout: Layout, depth: Depth) -> Result<Checked, AgentError> {
    let surveyed = tokio::task::spawn_blocking(move || survey(&layout, depth)).await;
    let (mut items, entries, is_full) = surveyed.map_err(|error| AgentError::Start(std::io::Error::other(error)))?;
    let files = entries.len();
    let indices = agent.check(process, &entries).await?;
    let differing = indices.into_iter().filter_map(|index| items.remove_entry(&entries.get(index)?.path)).collect();
    Ok(Checked { differing, is_full, files })
}

/// The local files and what they are.
fn survey(layout: &Layout, depth: Depth) -> (BTreeMap<String, Item>, Vec<CheckEntry>, bool) {
    let items = layout.items(layout.content().iter().flat_map(watch::list));
    let sizes: u64 = items.values().filter_map(|item| item.local.metadata().ok()).map(|metadata| metadata.len()).sum();
    let is_full = depth == Depth::Full || items.len() <= FILES_READ_AT_ONCE && sizes <= BYTES_READ_AT_ONCE;
    let all: Vec<(&String, &Item)> = items.iter().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let entries = std::thread::scope(|scope| {
        let part = |part: &[(&String, &Item)]| part.iter().filter_map(|(path, item)| entry(path, item, is_full)).collect::<Vec<_>>();
        let parts: Vec<_> = all.chunks(all.len().div_ceil(threads).max(1)).map(|chunk| scope.spawn(move || part(chunk))).collect();
        parts.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    (items, entries, is_full)
}

/// `None` for what is gone by now, or can't be synced.
fn entry(path: &str, item: &Item, with_content: bool) -> Option<CheckEntry> {
    let path = path.to_owned();
    if let Some(target) = item.link() {
        return Some(CheckEntry { path, size: 0, blake3: None, mode: None, link: Some(target) });
    }
    let metadata = item.local.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let blake3 = if with_content { Some(hash(&item.local).ok()?) } else { None };
    Some(CheckEntry { path, size: metadata.len(), blake3, mode: None, link: None })
}

fn hash(path: &Path) -> std::io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}
