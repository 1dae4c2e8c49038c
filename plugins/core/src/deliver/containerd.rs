//! containerd on a node: by its own interface where its socket is a file of this machine
//! (`direct`), else through its client `ctr` on the node (`ctr`), which takes a program's
//! start for each question.

mod api;
mod ctr;
mod direct;
mod messages;

pub(super) use self::ctr::PRELUDE;

use self::api::Api;
use self::direct::Failure;
use super::DeliverError;
use super::package::{Identity, Package};
use super::progress::Progress;
use crate::node::Node;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinHandle;

/// An archive is handed over in pieces of this many bytes, so many at a time.
const CHUNK: usize = 256 * 1024;
const CHUNKS_WAITING: usize = 4;

/// How long a node may take for an answer, or to take in a piece of an archive.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to unpack an image that it has received.
const UNPACKING: Duration = Duration::from_secs(600);

/// Where containerd listens, if nothing else is said.
const SOCKET: &str = "/run/containerd/containerd.sock";
const CONFIGURATION: &str = "/etc/containerd/config.toml";

/// A way to ask a node's containerd.
#[derive(Clone, Debug)]
pub(crate) struct Containerd<'a> {
    node: &'a Node,
    /// Its socket; the default one when absent.
    address: Option<String>,
    /// Its interface, where it can be reached.
    api: Arc<OnceCell<Option<Api>>>,
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// As Go names it.
    pub(super) architecture: String,
    /// Digest by name, of images that are unpacked.
    pub(super) images: HashMap<String, String>,
    /// Names, also of images that aren't.
    pub(super) names: HashSet<String>,
    /// The ids of all unpacked stacks of layers; none when they weren't needed.
    pub(super) snapshots: HashSet<String>,
    /// Whether `ctr images import` can work without containerd's transfer
    /// service, which is slower.
    pub(super) can_import_locally: bool,
}

impl<'a> Containerd<'a> {
    pub(crate) fn of(node: &'a Node) -> Self {
        Self { node, address: None, api: Arc::default() }
    }

    #[cfg(test)]
    pub(super) fn at(node: &'a Node, address: String) -> Self {
        Self { address: Some(address), ..Self::of(node) }
    }

    /// As of a node whose files are not this machine's.
    #[cfg(test)]
    pub(super) fn without_api(self) -> Self {
        Self { api: Arc::new(OnceCell::new_with(Some(None))), ..self }
    }

    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    async fn api(&self) -> Option<&Api> {
        let connect = async {
            let socket = self.node.host_path(self.address.as_deref().unwrap_or(SOCKET))?;
            let configuration = self.node.host_path(CONFIGURATION).and_then(|path| std::fs::read_to_string(path).ok());
            let snapshotter = direct::snapshotter(configuration.as_deref().unwrap_or_default());
            match tokio::time::timeout(PATIENCE, Api::connect(&socket, snapshotter)).await {
                Ok(Ok(api)) => Some(api),
                Ok(Err(error)) => {
                    tracing::info!(%error, node = self.node.name(), "containerd's socket can't be reached, its client is used");
                    None
                }
                Err(_) => None,
            }
        };
        self.api.get_or_init(|| connect).await.as_ref()
    }

    /// Asks what is there of these images.
    pub(super) async fn observe(&self, wanted: &[Identity]) -> Result<Observed, DeliverError> {
        match self.api().await {
            Some(api) => direct::observe(api, wanted).await.map_err(|failure| self.refused("list images", failure)),
            None => self.observe_by_ctr(wanted).await,
        }
    }

    /// Gives an image that is there these names.
    pub(super) async fn tag(&self, id: &str, names: &[String]) -> Result<(), DeliverError> {
        match self.api().await {
            Some(api) => direct::tag(api, id, names).await.map_err(|failure| self.refused("name the image", failure)),
            None => self.tag_by_ctr(id, names).await,
        }
    }

    /// Takes an image in, with these of its layers, and gives it its names once it can
    /// run: a name never leads to an image that can't. Answers the bytes that were sent.
    pub(super) async fn import(
        &self,
        observed: &Observed,
        package: &Package,
        include: &[bool],
        progress: &Progress,
    ) -> Result<u64, DeliverError> {
        match self.api().await {
            Some(api) => {
                let imported = direct::import(api, observed, package, include, progress).await;
                imported.map_err(|failure| self.refused("import the image", failure))
            }
            None => {
                let (to_write, include) = (package.clone(), include.to_owned());
                self.import_by_ctr(observed, &package.identity(), progress, move |out| to_write.write(&include, out)).await
            }
        }
    }

    fn refused(&self, doing: &'static str, failure: Failure) -> DeliverError {
        match failure {
            Failure::Refused(status) if status.code() == tonic::Code::DeadlineExceeded => self.silent(),
            Failure::Refused(status) => self.failed(doing, status.message()),
            Failure::Unreadable(error) => self.io("send the image to", error),
        }
    }

    /// An error in containerd's words.
    pub(super) fn failed(&self, doing: &'static str, stderr: &str) -> DeliverError {
        let node = self.node.describe();
        if !self.node.is_running() {
            return DeliverError::NodeGone { node };
        }
        if stderr.contains("no space left on device") {
            return DeliverError::DiskFull { node };
        }
        // Lines in logfmt are for its log; the last line in plain words counts.
        let message = stderr.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("time=")).unwrap_or(stderr);
        let message = message.trim().trim_start_matches("ctr: ").to_owned();
        DeliverError::Containerd { node, doing, message }
    }

    fn io(&self, doing: &str, source: io::Error) -> DeliverError {
        let node = self.node.describe();
        // An engine says so in a sentence of its own.
        if !self.node.is_running() || source.to_string().contains("is not running") {
            return DeliverError::NodeGone { node };
        }
        DeliverError::Io { doing: format!("{doing} the {node}"), source }
    }

    fn silent(&self) -> DeliverError {
        DeliverError::Silent { node: self.node.describe() }
    }

    async fn in_time<T>(&self, limit: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, DeliverError> {
        match tokio::time::timeout(limit, work).await {
            Ok(outcome) => outcome.map_err(|error| self.io("run ctr on", error)),
            Err(_) => Err(self.silent()),
        }
    }
}

fn filter(name: &str) -> String {
    format!("name==\"{name}\"")
}

/// All that is to be asked about.
fn filters(wanted: &[Identity]) -> Vec<String> {
    let mut filters: Vec<String> =
        wanted.iter().flat_map(|identity| identity.names.iter().chain([&identity.id])).map(|name| filter(name)).collect();
    filters.dedup();
    filters
}

/// What `write` writes, in pieces, and how that ends; in a thread where it may wait.
fn pieces(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> (mpsc::Receiver<Vec<u8>>, JoinHandle<io::Result<()>>) {
    let (chunk_tx, chunk_rx) = mpsc::channel(CHUNKS_WAITING);
    let writing = tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(CHUNK, Sending { chunk_tx });
        write(&mut out).and_then(|()| out.flush())
    });
    (chunk_rx, writing)
}

/// Hands what is written over to the task that sends it. It knows nothing of whoever
/// wanted it: writing fails, and containerd sees it cut short.
struct Sending {
    chunk_tx: mpsc::Sender<Vec<u8>>,
}

impl Write for Sending {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let sent = self.chunk_tx.blocking_send(buffer.to_vec());
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into()).map(|()| buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
