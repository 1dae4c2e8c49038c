//! Asks a pod over HTTP until it answers, to learn when a change is served.

use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) path: String,
    pub(crate) port: u16,
}

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(2);

impl Probe {
    /// Asks until the pod answers with success; how long that took, or `None`
    /// when `limit` was reached.
    pub(crate) async fn served(&self, address: &str, limit: Duration) -> Option<Duration> {
        let started = Instant::now();
        let ask = async {
            loop {
                let answer = tokio::time::timeout(PATIENCE, self.ask(address)).await;
                if matches!(answer, Ok(Ok(true))) {
                    return started.elapsed();
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(limit, ask).await.ok()
    }

    async fn ask(&self, address: &str) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((address, self.port)).await?;
        stream.set_nodelay(true)?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: devloop\r\nConnection: close\r\n\r\n", self.path);
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok(is_success(&status))
    }
}

/// Whether a response begins as `HTTP/1.1 2xx` or `3xx`.
fn is_success(start: &[u8; 12]) -> bool {
    start.starts_with(b"HTTP/1.") && start[8] == b' ' && matches!(start[9], b'2' | b'3')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_for_success() {
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
        assert!(probe.served("127.0.0.1", Duration::from_secs(5)).await.is_some());
        server.await.unwrap();
        assert_eq!(probe.served("127.0.0.1", Duration::from_millis(30)).await, None);
    }
}
