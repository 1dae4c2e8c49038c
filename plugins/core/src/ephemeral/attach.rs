//! The streams of a program in a container, through the API server.
//!
//! The library's own pipes never end when the connection breaks: a reader would
//! wait for ever. So a task of ours stands between, whose ends do.

use super::error::{self, EphemeralError};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, AttachedProcess};
use kube::{Api, Client};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, copy};

/// So much waits for its reader, in each direction.
const BUFFER: usize = 256 * 1024;
/// How long a program may go on after its input has ended.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long what was said last may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The streams of a program. Dropped, its input ends, which ends a program that
/// reads it.
pub struct Attached {
    /// Its standard input; shut down to end it.
    pub stdin: WriteHalf<DuplexStream>,
    /// What it prints; ends when the program or the connection does.
    pub stdout: ReadHalf<DuplexStream>,
    /// What it complains about; may be open for longer than the others.
    pub stderr: Pin<Box<dyn AsyncRead + Send>>,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// Attaches to the program of a container that was started with an open input.
///
/// # Errors
/// When the API server or the kubelet refuses.
pub async fn attach(client: &Client, namespace: &str, pod: &str, container: &str) -> Result<Attached, EphemeralError> {
    const DOING: &str = "attach to";
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let process = pods.attach(pod, &parameters(container)).await.map_err(|error| error::of_request(error, namespace, pod, DOING))?;
    streams_of(process).ok_or_else(|| without_streams(DOING, pod))
}

/// Starts another program in a running container.
///
/// # Errors
/// When the API server or the kubelet refuses.
pub async fn exec(client: &Client, namespace: &str, pod: &str, container: &str, argv: &[String]) -> Result<Attached, EphemeralError> {
    const DOING: &str = error::START;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let process = pods.exec(pod, argv, &parameters(container)).await.map_err(|error| error::of_request(error, namespace, pod, DOING))?;
    streams_of(process).ok_or_else(|| without_streams(DOING, pod))
}

fn parameters(container: &str) -> AttachParams {
    AttachParams::default()
        .container(container)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .tty(false)
        .max_stdin_buf_size(BUFFER)
        .max_stdout_buf_size(BUFFER)
}

fn without_streams(doing: &'static str, pod: &str) -> EphemeralError {
    EphemeralError::Request { doing, pod: pod.to_owned(), source: "it has no streams".into() }
}

fn streams_of(mut process: AttachedProcess) -> Option<Attached> {
    let (stdin, stdout, stderr) = (process.stdin()?, process.stdout()?, process.stderr()?);
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    // It ends when the program or the connection does, and soon after our side
    // was dropped: it needs no one to end it.
    tokio::spawn(pump(process, stdin, stdout, theirs));
    let (reader, writer) = tokio::io::split(ours);
    Some(Attached { stdin: writer, stdout: reader, stderr: Box::pin(stderr) })
}

async fn pump(mut process: AttachedProcess, mut stdin: impl AsyncWrite + Unpin, mut stdout: impl AsyncRead + Unpin, theirs: DuplexStream) {
    let (mut from_us, mut to_us) = tokio::io::split(theirs);
    let status = process.take_status();
    let ended = async {
        match status {
            // Also when the connection broke.
            Some(status) => drop(status.await),
            None => std::future::pending().await,
        }
    };
    let input = async {
        let _ = copy(&mut from_us, &mut stdin).await;
        let _ = stdin.shutdown().await;
        tokio::time::sleep(FAREWELL).await;
    };
    {
        let output = copy(&mut stdout, &mut to_us);
        tokio::pin!(output);
        tokio::select! {
            _ = &mut output => {}
            () = input => {}
            () = ended => drop(tokio::time::timeout(LAST_WORDS, output).await),
        }
    }
    // Here `process` is dropped, which closes the connection.
}
