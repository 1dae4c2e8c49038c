//! containerd on a node, through its own client `ctr`.

use super::DeliverError;
use crate::node::{Node, NodeProcess};
use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Where Kubernetes keeps its images in containerd.
const NAMESPACE: &str = "k8s.io";
/// An archive is handed over in pieces of this many bytes, so many at a time.
const CHUNK: usize = 256 * 1024;
const CHUNKS_WAITING: usize = 4;

/// A way to ask a node's containerd.
#[derive(Clone, Debug)]
pub(super) struct Containerd<'a> {
    node: &'a Node,
    /// Its socket; the default one when absent.
    address: Option<String>,
}

impl<'a> Containerd<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        Self { node, address: None }
    }

    #[cfg(test)]
    pub(super) fn at(node: &'a Node, address: String) -> Self {
        Self { node, address: Some(address) }
    }

    /// The digest of the image that is known by `reference`.
    pub(super) async fn image_digest(&self, reference: &str) -> Result<Option<String>, DeliverError> {
        let table = self.output("list images", &["images", "ls", &format!("name=={reference}")]).await?;
        Ok(column(&table, "DIGEST").into_iter().next())
    }

    /// The chain ids of all unpacked stacks of layers.
    pub(super) async fn snapshots(&self) -> Result<HashSet<String>, DeliverError> {
        let table = self.output("list snapshots", &["snapshots", "ls"]).await?;
        Ok(column(&table, "KEY").into_iter().collect())
    }

    /// Forgets an image. Done after a failure that is what the user wants to hear
    /// of, so that its own failure is not.
    pub(super) async fn remove(&self, reference: &str) {
        if let Err(error) = self.output("remove an image", &["images", "rm", reference]).await {
            tracing::debug!(%error, reference, "could not remove");
        }
    }

    /// Imports the archive that `write` writes; answers its size in bytes and
    /// what `ctr` printed. When the returned future is dropped, the archive ends
    /// early, and containerd refuses it.
    pub(super) async fn import(
        &self,
        flags: &[String],
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<(u64, String), DeliverError> {
        const DOING: &str = "import the image";
        let mut arguments = vec!["images", "import"];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.push("-");
        let NodeProcess { mut stdin, mut stdout, mut stderr, ended } = self.start(&arguments).await?;
        let (chunk_tx, mut chunk_rx) = mpsc::channel(CHUNKS_WAITING);
        let writer = tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(CHUNK, Sending { chunk_tx });
            write(&mut out).and_then(|()| out.flush())
        });
        let send = async move {
            let mut sent = 0;
            while let Some(chunk) = chunk_rx.recv().await {
                stdin.write_all(&chunk).await?;
                sent += chunk.len() as u64;
            }
            stdin.shutdown().await?;
            Ok::<u64, io::Error>(sent)
        };
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let (written, sent, said_all, complained_all) =
            tokio::join!(writer, send, stdout.read_to_end(&mut said), stderr.read_to_end(&mut complained));
        let code = ended.code().await.map_err(|error| self.io("run ctr on", error))?;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        if code != 0 {
            // A broken pipe is only how its failure looks from here, but trouble
            // with a file of ours is the cause of a cut archive.
            if let Err(error) = written
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                return Err(self.io("send the image to", error));
            }
            return Err(self.failed(DOING, &String::from_utf8_lossy(&complained)));
        }
        written.and(said_all).and(complained_all).map_err(|error| self.io("send the image to", error))?;
        let sent = sent.map_err(|error| self.io("send the image to", error))?;
        Ok((sent, String::from_utf8_lossy(&said).into_owned()))
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
        DeliverError::Io { doing: format!("{doing} the {}", self.node.describe()), source }
    }

    async fn output(&self, doing: &'static str, arguments: &[&str]) -> Result<String, DeliverError> {
        let output = self.start(arguments).await?.output().await.map_err(|error| self.io("run ctr on", error))?;
        if output.code != 0 {
            return Err(self.failed(doing, &output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn start(&self, arguments: &[&str]) -> Result<NodeProcess, DeliverError> {
        let address = self.address.iter().flat_map(|address| ["--address", address.as_str()]);
        let all: Vec<&str> = address.chain(["--namespace", NAMESPACE]).chain(arguments.iter().copied()).collect();
        self.node.start("ctr", &all).await.map_err(|error| self.io("run ctr on", error))
    }
}

/// The first word of a table's column, for each row. `ctr` aligns with spaces,
/// so that a column begins where its title does.
fn column(table: &str, title: &str) -> Vec<String> {
    let mut lines = table.lines();
    let Some(start) = lines.next().and_then(|header| header.find(title)) else { return Vec::new() };
    lines.filter_map(|line| line.get(start..)?.split_whitespace().next().map(str::to_owned)).collect()
}

/// The names in `unpacking NAME (sha256:...)...done`.
pub(super) fn imported_names(stdout: &str) -> Vec<String> {
    let name_of = |line: &str| line.strip_prefix("unpacking ")?.split(" (").next().map(str::to_owned);
    stdout.lines().filter_map(name_of).collect()
}

/// Hands an archive over to the task that sends it. When that is gone, so is
/// whoever wanted the archive: writing fails, and `ctr` sees it cut short.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_ctr_are_read_by_column() {
        let images = "REF                 TYPE              DIGEST        SIZE     PLATFORMS   LABELS \n\
                      devloop.local/t:one application/vnd.x sha256:d1d1bf 20.9 KiB linux/amd64 -      \n";
        assert_eq!(column(images, "DIGEST"), ["sha256:d1d1bf"]);
        let snapshots = "KEY      PARENT   KIND      \nsha256:a          Committed \nsha256:b sha256:a Committed \n";
        assert_eq!(column(snapshots, "KEY"), ["sha256:a", "sha256:b"]);
        assert!(column("", "KEY").is_empty() && column("REF DIGEST\n", "DIGEST").is_empty());
    }

    #[test]
    fn names_come_from_what_was_unpacked() {
        let stdout = "unpacking docker.io/library/shop:1 (sha256:d1)...done\nunpacking a.b/c:2 (sha256:d2)...done\n";
        assert_eq!(imported_names(stdout), ["docker.io/library/shop:1", "a.b/c:2"]);
    }
}
