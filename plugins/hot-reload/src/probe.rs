//! Asks a pod over HTTP until it answers, to learn when a change is served.
//!
//! A pod's address can be asked from this machine where there is a route to it;
//! elsewhere the API server forwards. Which of the two is found out by trying
//! both, once per pod.

use devloop_core::CommandError;
use devloop_core::project::HttpCall;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) path: String,
    pub(crate) port: u16,
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) pod: String,
    pub(crate) address: Option<String>,
    /// How, where that is known.
    pub(crate) way: Option<Way>,
}

/// How a pod is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By its address.
    Direct,
    /// Through the API server.
    Forward,
}

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause between two questions, by way: each forward is a connection to the
/// API server.
const PAUSE: Duration = Duration::from_millis(2);
const FORWARD_PAUSE: Duration = Duration::from_millis(25);
/// What the direct way is ahead of the other while both are tried.
const HEAD_START: Duration = Duration::from_millis(250);

impl Probe {
    /// Asks until the pod answers with success; how long that took and which way
    /// it went, or `None` when `limit` was reached.
    pub(crate) async fn served(&self, pods: &Api<Pod>, asked: &Asked, limit: Duration) -> Option<(Duration, Way)> {
        let started = Instant::now();
        let answered = async {
            match (asked.way, &asked.address) {
                (Some(Way::Direct), Some(address)) => self.until_direct(address).await,
                (Some(Way::Forward), _) | (_, None) => self.until_forwarded(pods, &asked.pod).await,
                (None, Some(address)) => {
                    let forwarded = async {
                        tokio::time::sleep(HEAD_START).await;
                        self.until_forwarded(pods, &asked.pod).await
                    };
                    tokio::select! {
                        biased;
                        way = self.until_direct(address) => way,
                        way = forwarded => way,
                    }
                }
            }
        };
        let way = tokio::time::timeout(limit, answered).await.ok()?;
        Some((started.elapsed(), way))
    }

    async fn until_direct(&self, address: &str) -> Way {
        while !matches!(tokio::time::timeout(PATIENCE, self.ask_directly(address)).await, Ok(Ok(true))) {
            tokio::time::sleep(PAUSE).await;
        }
        Way::Direct
    }

    async fn until_forwarded(&self, pods: &Api<Pod>, pod: &str) -> Way {
        while !matches!(tokio::time::timeout(PATIENCE, self.ask_forwarded(pods, pod)).await, Ok(Ok(true))) {
            tokio::time::sleep(FORWARD_PAUSE).await;
        }
        Way::Forward
    }

    async fn ask_directly(&self, address: &str) -> io::Result<bool> {
        let stream = TcpStream::connect((address, self.port)).await?;
        stream.set_nodelay(true)?;
        self.ask(stream, address).await
    }

    async fn ask_forwarded(&self, pods: &Api<Pod>, pod: &str) -> io::Result<bool> {
        let mut forward = Forward(pods.portforward(pod, &[self.port]).await.map_err(io::Error::other)?);
        let stream = forward.0.take_stream(self.port).ok_or_else(|| io::Error::other("no stream to the pod"))?;
        self.ask(stream, "localhost").await
    }

    async fn ask(&self, stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> io::Result<bool> {
        let request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: devloop\r\nConnection: close\r\n\r\n", self.path);
        Ok(is_success(&status_of(stream, &request).await?))
    }
}

/// Makes a call of an app's own, by the pod's address or through the API server.
///
/// # Errors
/// When the pod doesn't answer within `limit`, or not with success.
pub(crate) async fn call(pods: &Api<Pod>, pod: &str, address: Option<&str>, call: &HttpCall, limit: Duration) -> Result<(), CommandError> {
    let HttpCall { path, port, method } = call;
    let failed = || CommandError::new(format!("{method} {path} at port {port} of pod {pod} failed"));
    let request = |host: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: devloop\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let ask = async {
        let direct = async { TcpStream::connect((address?, *port)).await.ok() };
        let status = match tokio::time::timeout(HEAD_START, direct).await.ok().flatten() {
            Some(stream) => status_of(stream, &request(address.unwrap_or_default())).await?,
            None => {
                let mut forward = Forward(pods.portforward(pod, &[*port]).await.map_err(io::Error::other)?);
                let stream = forward.0.take_stream(*port).ok_or_else(|| io::Error::other("no stream to the pod"))?;
                status_of(stream, &request("localhost")).await?
            }
        };
        Ok::<_, io::Error>(status)
    };
    let status =
        tokio::time::timeout(limit, ask).await.map_err(|_| failed().caused_by(format!("no answer within {} s", limit.as_secs())))?;
    let status = status.map_err(|error| failed().caused_by(error))?;
    if is_success(&status) {
        Ok(())
    } else {
        Err(failed().caused_by(format!("the app answered {}", String::from_utf8_lossy(&status[9..]).trim())))
    }
}

async fn status_of(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> io::Result<[u8; 12]> {
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(status)
}

/// A forward that ends when it is dropped; the library's own goes on.
struct Forward(Portforwarder);

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether a response begins as `HTTP/1.1 2xx` or `3xx`.
fn is_success(start: &[u8; 12]) -> bool {
    start.starts_with(b"HTTP/1.") && start[8] == b' ' && matches!(start[9], b'2' | b'3')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of an API server that nobody runs.
    fn no_cluster() -> Api<Pod> {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        Api::namespaced(kube::Client::try_from(config).unwrap(), "default")
    }

    fn asked(way: Option<Way>) -> Asked {
        Asked { pod: "web-1".to_owned(), address: Some("127.0.0.1".to_owned()), way }
    }

    #[tokio::test]
    async fn it_waits_for_success_and_finds_the_way() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe = Probe { path: "/healthz".to_owned(), port: listener.local_addr().unwrap().port() };
        let server = tokio::spawn(async move {
            for answer in ["", "HTTP/1.1 503 Busy\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                let count = stream.read(&mut request).await.unwrap();
                assert!(request[..count].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let pods = no_cluster();
        let served = probe.served(&pods, &asked(None), Duration::from_secs(5)).await;
        assert_eq!(served.map(|(_, way)| way), Some(Way::Direct));
        server.await.unwrap();
        for way in [None, Some(Way::Direct), Some(Way::Forward)] {
            assert_eq!(probe.served(&pods, &asked(way), Duration::from_millis(30)).await, None);
        }
    }
}
