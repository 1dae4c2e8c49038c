//! HTTP to pods, the same on every cluster: through the API, by `kubectl proxy`.

use crate::environment::Environment;
use crate::program::Running;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A running `kubectl proxy`.
#[derive(Debug)]
pub struct Proxy {
    _running: Running,
    port: u16,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, 404, ...
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

impl Proxy {
    /// Starts it.
    ///
    /// # Panics
    /// When kubectl doesn't say where it listens.
    pub fn start(environment: &Environment) -> Self {
        let mut running = environment.kubectl(["proxy", "--port=0"]).start();
        let mut line = String::new();
        BufReader::new(running.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim_end().rsplit(':').next().and_then(|port| port.parse().ok());
        Self { _running: running, port: port.unwrap_or_else(|| panic!("kubectl proxy says {line:?}")) }
    }

    /// Asks a pod at port 8080.
    ///
    /// # Errors
    /// When nothing answers; that the pod doesn't is an answer of the API's.
    pub fn get(&self, namespace: &str, pod: &str, path: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // The old version, so that the answer comes in one piece.
        write!(
            stream,
            "GET /api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy{path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Ok(Answer { status, body: body.to_owned() })
    }
}
