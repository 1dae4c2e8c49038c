//! Who builds: a Docker engine, or a BuildKit daemon by its address.

use super::address::Address;
use super::plan::Plan;
use super::progress::{Event, Step};
use super::session::{Agent, Credentials, Folders, Receiver, Secrets, Session};
use super::solve::{self, Exporter};
use super::{DockerfileError, Request, Told, classic, link};
use crate::docker::{DockerError, Engine};
use crate::tail::tail_of;
use bollard::query_parameters::RemoveImageOptionsBuilder;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Join, ReadBuf};
use tokio::process::Command;
use tonic::transport::Channel;

/// The builder that was found.
pub(super) enum Builders {
    Engine(Engine),
    Daemon { channel: Channel, shown: String },
}

/// What a build has left.
pub(super) struct Made {
    pub(super) steps: Vec<Step>,
    /// The engine's id of the image.
    pub(super) engine_image: Option<String>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Builders {
    pub(super) async fn find(request: &Request<'_>) -> Result<Self, DockerfileError> {
        let Some(builder) = &request.build.builder else { return Ok(Self::Engine(Engine::connect().await?)) };
        let shown = format!("the BuildKit daemon at {builder}");
        let address = Address::of(builder, request.root, &instances(request.docker_config.as_deref()));
        let channel = match address.map_err(|reason| DockerfileError::connection(&shown)(reason.into()))? {
            Address::Tcp(address) => link::to_tcp(&address).await,
            Address::Tls(address, trust) => link::to_tls(&address, &trust).await,
            Address::Unix(path) => link::to_socket(&path).await,
            Address::Ssh { destination, port } => to_ssh(&destination, port).await,
            Address::Container(name) => {
                let engine = Engine::connect().await?;
                let process = engine.exec(&name, DIAL.map(str::to_owned).into()).await?;
                link::channel_on(tokio::io::join(process.stdout, process.stdin)).await
            }
            Address::Pod { name, namespace, container } => match &request.cluster {
                Some((client, current)) => {
                    to_pod(client.clone(), namespace.as_deref().unwrap_or(current), &name, container.as_deref()).await
                }
                None => Err("there is no cluster to find the pod in".into()),
            },
        };
        Ok(Self::Daemon { channel: channel.map_err(DockerfileError::connection(&shown))?, shown })
    }

    /// Builds, and writes the image to a tar.
    pub(super) async fn build(
        &self,
        request: &Request<'_>,
        plan: &Plan,
        tar: &Path,
        tell: &(dyn Fn(Event) + Send + Sync),
    ) -> Result<Made, DockerfileError> {
        match self {
            Self::Daemon { channel, shown } => {
                let told = Told { builder: shown, tell };
                let session = session(request, plan, tar)?;
                let asked = solve::request(plan, request.build, &session.id, Exporter::Tar);
                let link = link::to_daemon(channel.clone(), session, shown)?;
                let (_, steps) = solve::solve(link, plan, asked, told).await?;
                Ok(Made { steps, engine_image: None })
            }
            Self::Engine(engine) => {
                let shown = format!("the Docker engine at {}", engine.endpoint());
                let told = Told { builder: &shown, tell };
                let (id, steps) = build_by_engine(engine, request, plan, tar, told).await?;
                export(engine, &id, tar).await?;
                Ok(Made { steps, engine_image: Some(id) })
            }
        }
    }

    /// Removes an image of an earlier build that nobody gave a name to. It is
    /// only in the way: this never fails.
    pub(super) async fn forget(&self, id: &str) {
        let Self::Engine(engine) = self else { return };
        let found = engine.client().inspect_image(id).await;
        let is_nameless = found.is_ok_and(|image| image.repo_tags.unwrap_or_default().is_empty());
        if is_nameless {
            let options = RemoveImageOptionsBuilder::new().force(false).build();
            let removed = engine.client().remove_image(id, Some(options), None).await;
            if let Err(error) = removed {
                tracing::debug!(id, %error, "an image of an earlier build stays");
            }
        }
    }
}

async fn build_by_engine(
    engine: &Engine,
    request: &Request<'_>,
    plan: &Plan,
    tar: &Path,
    told: Told<'_>,
) -> Result<(String, Vec<Step>), DockerfileError> {
    // As with Docker's own client.
    let wants_classic = std::env::var_os("DOCKER_BUILDKIT").is_some_and(|value| value == "0");
    let session = session(request, plan, tar)?;
    let asked = solve::request(plan, request.build, &session.id, Exporter::Engine);
    let link = if wants_classic { None } else { link::to_engine(engine, session).await? };
    let Some(link) = link else { return classic::build(engine, plan, request.build, request.docker_config.as_deref(), told).await };
    let (response, steps) = solve::solve(link, plan, asked, told).await?;
    let id = ["containerimage.digest", "containerimage.config.digest"].iter().find_map(|key| response.get(*key));
    match id {
        Some(id) => Ok((id.clone(), steps)),
        None => Err(DockerfileError::connection(told.builder)("it did not say which image it made".into())),
    }
}

/// What `docker save` writes.
async fn export(engine: &Engine, id: &str, tar: &Path) -> Result<(), DockerfileError> {
    let failed = |source: io::Error| DockerfileError::Read { path: tar.to_owned(), source };
    let mut file = tokio::fs::OpenOptions::new().write(true).truncate(true).open(tar).await.map_err(failed)?;
    let mut content = Box::pin(engine.client().export_image(id));
    while let Some(chunk) = content.next().await {
        let chunk = chunk.map_err(DockerError::request(format!("get image {id}")))?;
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

/// What BuildKit may ask for while it builds.
fn session(request: &Request<'_>, plan: &Plan, tar: &Path) -> Result<Session, DockerfileError> {
    let secrets = Secrets { root: request.root.to_owned(), secrets: request.build.secrets.clone() };
    for secret in &request.build.secrets {
        // Before the build begins, not in the middle of it.
        secrets.read(&secret.id).map_err(DockerfileError::Missing)?;
    }
    let agent = match request.build.ssh.as_slice() {
        [] => None,
        ids => {
            let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
            let socket = socket
                .ok_or_else(|| DockerfileError::Missing("the build wants an SSH agent (`ssh`), and SSH_AUTH_SOCK names none".to_owned()))?;
            Some(Agent { socket: socket.into(), ids: ids.to_vec() })
        }
    };
    // Two keys of the hasher are new in each process, and the third value in each call.
    let random = || std::hash::RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
    Ok(Session {
        id: format!("devloop{:016x}{:016x}", random(), random()),
        shared_key: format!("devloop-{}", &blake3::hash(plan.context.as_os_str().as_encoded_bytes()).to_hex()[..32]),
        folders: Folders { context: plan.context.clone(), dockerfile: plan.file.clone() },
        credentials: Credentials { docker_config: request.docker_config.clone() },
        secrets,
        agent,
        receiver: Receiver { path: tar.to_owned() },
    })
}

/// Where buildx describes its builders: `BUILDX_CONFIG`, else beside Docker's
/// `config.json`.
fn instances(docker_config: Option<&Path>) -> PathBuf {
    let own = std::env::var_os("BUILDX_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let beside = || docker_config.and_then(Path::parent).map(|folder| folder.join("buildx"));
    own.or_else(beside).unwrap_or_default().join("instances")
}

/// So much of what ssh says is kept, and so long it may take to say it.
const SAID: usize = 4096;
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The program beside a daemon that connects its standard streams to it.
const DIAL: [&str; 2] = ["buildctl", "dial-stdio"];

/// Whatever ssh asks, nobody is there to answer; keys and agents are.
async fn to_ssh(destination: &str, port: Option<u16>) -> Result<Channel, BoxError> {
    let mut command = Command::new("ssh");
    command.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
    if let Some(port) = port {
        command.args(["-p", &port.to_string()]);
    }
    command.args(["--", destination]).args(DIAL);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().map_err(|error| format!("ssh can't be run: {error}"))?;
    let (Some(stdout), Some(stdin), stderr) = (process.stdout.take(), process.stdin.take(), process.stderr.take()) else {
        return Err("the streams of ssh are not there".into());
    };
    // Its words say why there is no connection.
    let said = tokio::spawn(tail_of(stderr, SAID));
    let streams = ProcessStream { streams: tokio::io::join(Box::pin(stdout), Box::pin(stdin)), _process: process };
    let opened = async {
        let channel = link::channel_on(streams).await?;
        // Nothing is heard of ssh's own fate before something is asked.
        link::answers(&channel).await?;
        Ok::<_, BoxError>(channel)
    };
    match opened.await {
        Ok(channel) => Ok(channel),
        Err(error) => {
            let said = tokio::time::timeout(LAST_WORDS, said).await.ok().and_then(Result::ok).unwrap_or_default();
            Err(if said.trim().is_empty() { error } else { said.trim().into() })
        }
    }
}

async fn to_pod(client: kube::Client, namespace: &str, name: &str, container: Option<&str>) -> Result<Channel, BoxError> {
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let parameters =
        AttachParams { container: container.map(str::to_owned), ..AttachParams::default() }.stdin(true).stdout(true).stderr(false);
    let mut process = pods.exec(name, DIAL, &parameters).await?;
    let (Some(stdout), Some(stdin)) = (process.stdout(), process.stdin()) else { return Err("the pod's streams are not there".into()) };
    link::channel_on(ProcessStream { streams: tokio::io::join(Box::pin(stdout), Box::pin(stdin)), _process: process }).await
}

/// A connection that ends with the program at its other end.
struct ProcessStream<R, W, P> {
    streams: Join<Pin<Box<R>>, Pin<Box<W>>>,
    _process: P,
}

impl<R: AsyncRead, W: AsyncWrite, P: Unpin> AsyncRead for ProcessStream<R, W, P> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.streams).poll_read(context, buffer)
    }
}

impl<R: AsyncRead, W: AsyncWrite, P: Unpin> AsyncWrite for ProcessStream<R, W, P> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.streams).poll_write(context, buffer)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.streams).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.streams).poll_shutdown(context)
    }
}
