//! The files of the context and the Dockerfile, sent as BuildKit asks for them:
//! first what there is, then the content of what is new to it
//! (`tonistiigi/fsutil`, whose packets these are).

use super::super::context::{self, ContextError, Entry, Kind, Selection};
use super::super::ignore::Matcher;
use super::follow::follow;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSync;
use futures::channel::mpsc;
use futures::stream::{BoxStream, Empty};
use futures::{FutureExt, SinkExt, StreamExt};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// So much of a file is sent in a packet.
const CHUNK: usize = 256 * 1024;
/// So many packets wait for BuildKit to take them.
const WAITING: usize = 8;

/// What may be read.
#[derive(Clone, Debug)]
pub(in crate::dockerfile) struct Folders {
    /// What BuildKit knows as `context`.
    pub(in crate::dockerfile) context: PathBuf,
    /// Known as `dockerfile`: of its folder, only this file and its own patterns.
    pub(in crate::dockerfile) dockerfile: PathBuf,
}

/// What one request is about.
struct Listing {
    root: PathBuf,
    entries: Vec<Entry>,
}

impl Folders {
    fn list(&self, asked: &Asked) -> Result<Listing, Status> {
        match asked.folder.as_str() {
            "context" => {
                let include = match follow(&self.context, &asked.follow) {
                    Some(followed) => asked.include.iter().cloned().chain(followed).collect(),
                    None => asked.include.clone(),
                };
                let matcher = |patterns: &[String]| {
                    Matcher::new(patterns.iter().map(String::as_str)).map_err(|error| Status::invalid_argument(error.to_string()))
                };
                let include = if include.is_empty() { None } else { Some(matcher(&include)?) };
                let selection = Selection { exclude: matcher(&asked.exclude)?, include };
                let entries = context::entries(&self.context, &selection).map_err(refused)?;
                Ok(Listing { root: self.context.clone(), entries })
            }
            "dockerfile" => {
                let root = self.dockerfile.parent().unwrap_or(Path::new("/")).to_owned();
                let name = self.dockerfile.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let names = [name.to_owned(), format!("{name}.dockerignore")];
                let entries = names.iter().filter_map(|name| context::file(&root, name).transpose());
                let entries = entries.collect::<Result<_, _>>().map_err(refused)?;
                Ok(Listing { root, entries })
            }
            other => Err(Status::not_found(format!("there is no folder {other:?} for the build"))),
        }
    }
}

fn refused(error: ContextError) -> Status {
    let why = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    Status::failed_precondition(format!("{error}{why}"))
}

/// A request's settings; they come as metadata of the call.
struct Asked {
    folder: String,
    include: Vec<String>,
    exclude: Vec<String>,
    follow: Vec<String>,
}

impl Asked {
    fn read(metadata: &MetadataMap) -> Self {
        let all = |key: &str| -> Vec<String> {
            let is_encoded = metadata.get(format!("{key}-encoded")).is_some_and(|value| value == "1");
            let values = metadata.get_all(key).iter().filter_map(|value| value.to_str().ok());
            values.map(|value| if is_encoded { decoded(value) } else { value.to_owned() }).collect()
        };
        Self {
            folder: all("dir-name").into_iter().next().unwrap_or_default(),
            include: all("include-patterns"),
            exclude: all("exclude-patterns"),
            follow: all("followpaths"),
        }
    }
}

/// As in the query of a URL, which is how names that are not ASCII come.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        bytes.push(high * 16 + low);
                        rest = ahead;
                    }
                    _ => bytes.push(b'%'),
                }
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

type Sink = mpsc::Sender<Result<Packet, Status>>;

#[tonic::async_trait]
impl FileSync for Folders {
    type DiffCopyStream = BoxStream<'static, Result<Packet, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let asked = Asked::read(request.metadata());
        let folders = self.clone();
        let (mut packets_tx, packets_rx) = mpsc::channel(WAITING);
        let work = async move {
            let outcome = match tokio::task::spawn_blocking(move || folders.list(&asked)).await {
                Ok(Ok(listing)) => send(&listing, request.into_inner(), &mut packets_tx).await,
                Ok(Err(status)) => Err(status),
                Err(error) => Err(Status::internal(error.to_string())),
            };
            if let Err(status) = outcome {
                // What the packet says is what BuildKit shows.
                let said = packet(PacketType::PacketErr, 0, status.message().as_bytes().to_vec());
                let _ = packets_tx.send(Ok(said)).await;
                let _ = packets_tx.send(Err(status)).await;
            }
        };
        // The work goes on as the stream is read, and ends with it.
        let work = futures::stream::once(work.map(|()| None));
        let packets = futures::stream::select(packets_rx.map(Some), work).filter_map(|packet| async { packet });
        Ok(Response::new(packets.boxed()))
    }

    type TarStreamStream = Empty<Result<Packet, Status>>;

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("files are sent by DiffCopy"))
    }
}

/// Speaks the protocol to its end.
async fn send(listing: &Listing, mut requests: Streaming<Packet>, packets_tx: &mut Sink) -> Result<(), Status> {
    let (wanted_tx, wanted_rx) = mpsc::unbounded();
    // Requests are read all the time: a BuildKit that can't get rid of them would
    // take no packets, either.
    let read = async {
        while let Some(packet) = requests.next().await {
            let packet = packet?;
            match PacketType::try_from(packet.r#type) {
                // Whoever takes them has ended with an error of its own.
                Ok(PacketType::PacketReq) => drop(wanted_tx.unbounded_send(packet.id)),
                Ok(PacketType::PacketFin) => {
                    wanted_tx.close_channel();
                    return Ok(());
                }
                Ok(PacketType::PacketErr) => {
                    return Err(Status::aborted(format!("BuildKit could not take the files: {}", String::from_utf8_lossy(&packet.data))));
                }
                Ok(_) | Err(_) => return Err(Status::invalid_argument("BuildKit sent a packet that only its client sends")),
            }
        }
        Err(Status::aborted("BuildKit ended the transfer"))
    };
    let write = write(listing, wanted_rx, packets_tx);
    tokio::try_join!(read, write).map(|_| ())
}

async fn write(listing: &Listing, mut wanted_rx: mpsc::UnboundedReceiver<u32>, packets_tx: &mut Sink) -> Result<(), Status> {
    let gone = |_| Status::aborted("BuildKit went away");
    for entry in &listing.entries {
        let packet = Packet { r#type: PacketType::PacketStat as i32, stat: Some(stat(entry)), ..Packet::default() };
        packets_tx.send(Ok(packet)).await.map_err(gone)?;
    }
    packets_tx.send(Ok(packet(PacketType::PacketStat, 0, Vec::new()))).await.map_err(gone)?;
    while let Some(id) = wanted_rx.next().await {
        let entry = usize::try_from(id).ok().and_then(|id| listing.entries.get(id)).filter(|entry| entry.kind == Kind::File);
        let entry = entry.ok_or_else(|| Status::invalid_argument(format!("there is no file {id}")))?;
        let path = listing.root.join(&entry.path);
        let failed = |error: std::io::Error| Status::failed_precondition(format!("could not read {}: {error}", path.display()));
        let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
        loop {
            let mut data = Vec::with_capacity(CHUNK.min(usize::try_from(entry.size + 1).unwrap_or(CHUNK)));
            (&mut file).take(CHUNK as u64).read_to_end(&mut data).await.map_err(failed)?;
            let is_end = data.is_empty();
            // An empty one says that this was all.
            packets_tx.send(Ok(packet(PacketType::PacketData, id, data))).await.map_err(gone)?;
            if is_end {
                break;
            }
        }
    }
    packets_tx.send(Ok(packet(PacketType::PacketFin, 0, Vec::new()))).await.map_err(gone)
}

fn packet(kind: PacketType, id: u32, data: Vec<u8>) -> Packet {
    Packet { r#type: kind as i32, stat: None, id, data }
}

/// Owned by root, as with Docker's own client.
fn stat(entry: &Entry) -> Stat {
    let (kind, link) = match &entry.kind {
        Kind::File => (0, String::new()),
        Kind::Folder => (1 << 31, String::new()),
        Kind::Link(target) => (1 << 27, target.clone()),
    };
    Stat {
        path: entry.path.clone(),
        mode: kind | go_mode(entry.mode),
        size: if let Kind::Link(target) = &entry.kind {
            i64::try_from(target.len()).unwrap_or(0)
        } else {
            i64::try_from(entry.size).unwrap_or(i64::MAX)
        },
        mod_time: entry.modified,
        linkname: link,
        ..Stat::default()
    }
}

/// Go keeps set-user-id and its like in bits of its own (<https://pkg.go.dev/io/fs#FileMode>).
fn go_mode(mode: u32) -> u32 {
    let moved = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    moved.iter().filter(|(unix, _)| mode & unix != 0).fold(mode & 0o777, |bits, (_, go)| bits | go)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_buildkit_writes_them() {
        let mut metadata = MetadataMap::new();
        metadata.insert("dir-name", "context".parse().unwrap());
        metadata.append("followpaths", "b%C3%A9+x".parse().unwrap());
        metadata.append("followpaths", "100%25".parse().unwrap());
        metadata.insert("followpaths-encoded", "1".parse().unwrap());
        metadata.append("exclude-patterns", "50%41".parse().unwrap());
        let asked = Asked::read(&metadata);
        assert_eq!((asked.folder.as_str(), asked.include.len()), ("context", 0));
        assert_eq!(asked.follow, ["bé x", "100%"]);
        assert_eq!(asked.exclude, ["50%41"]);
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }

    #[test]
    fn only_the_dockerfile_of_its_folder_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Dockerfile", "Dockerfile.dockerignore", "secret"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let folders = Folders { context: folder.path().join("none"), dockerfile: folder.path().join("Dockerfile") };
        let asked = |folder: &str| Asked { folder: folder.into(), include: vec!["*".into()], exclude: vec![], follow: vec![] };
        let listing = folders.list(&asked("dockerfile")).unwrap();
        assert_eq!(listing.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["Dockerfile", "Dockerfile.dockerignore"]);
        assert_eq!(folders.list(&asked("/etc")).map(|_| ()).unwrap_err().code(), tonic::Code::NotFound);
        assert_eq!(folders.list(&asked("context")).map(|_| ()).unwrap_err().code(), tonic::Code::FailedPrecondition);
    }

    #[test]
    fn modes_are_those_of_go() {
        let entry = |kind, mode| Entry { path: "x".into(), kind, mode, size: 3, modified: 5, changed: 0, inode: 0 };
        assert_eq!(stat(&entry(Kind::File, 0o4755)).mode, 0o755 | 1 << 23);
        assert_eq!(stat(&entry(Kind::Folder, 0o1777)).mode, 0o777 | 1 << 31 | 1 << 20);
        let link = stat(&entry(Kind::Link("/a".into()), 0o777));
        assert_eq!((link.mode, link.linkname.as_str(), link.size), (0o777 | 1 << 27, "/a", 2));
    }
}
