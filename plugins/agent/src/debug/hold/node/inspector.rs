//! Asks Node to close its inspector, by the protocol of that: one message over a
//! WebSocket (RFC 6455,
//! <https://chromedevtools.github.io/devtools-protocol/v8/Runtime/#method-evaluate>).

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::debug::network::{Address, Network, Stream, connect};

/// How long each answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long others may take to be gone.
const GRACE: Duration = Duration::from_secs(1);
/// An answer is shorter than this.
const MOST: u64 = 64 * 1024;
/// After this connection has ended, which Node before version 19 would wait for; and
/// a failure must not become the program's.
const CLOSE: &str = r#"{"id":1,"method":"Runtime.evaluate","params":{"includeCommandLineAPI":true,"expression":"(inspector => { setTimeout(() => { try { inspector.close(); } catch {} }, 50); })(require('inspector'))"}}"#;
/// A key that means nothing: nobody is between the two.
const KEY: &str = "ZGV2bG9vcCBjbG9zZXMgaQ==";

/// Closes it, unless somebody else is connected: Node would wait for that one.
/// `has_others` tells.
pub(super) fn close(network: Network, address: SocketAddr, has_others: impl Fn() -> bool) -> io::Result<()> {
    let started = Instant::now();
    while has_others() {
        if started.elapsed() > GRACE {
            return Err(io::Error::other("somebody else is connected to the inspector"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    // A thread of its own: it may go into another network.
    let asked = thread::spawn(move || network.enter().and_then(|()| ask(address)));
    asked.join().unwrap_or_else(|_| Err(io::Error::other("the thread that closes the inspector panicked")))
}

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut list = Connection::open(address)?;
    list.say(format!("GET /json/list HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let targets = list.until(b"} ]")?;
    let path = path(&targets).ok_or_else(|| io::Error::other("the inspector names no target"))?;
    let mut socket = Connection::open(address)?;
    let upgrade = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    socket.say(upgrade.as_bytes())?;
    socket.until(b"\r\n\r\n")?;
    socket.say(&frame(CLOSE.as_bytes()))?;
    socket.until(b"\"id\":1").map(drop)
}

struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let Stream::Tcp(stream) = connect(&Address::Port(address))? else { return Err(io::ErrorKind::Unsupported.into()) };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads until the end of this, which comes in one way or another.
    fn until(&mut self, end: &[u8]) -> io::Result<String> {
        let mut bytes = Vec::new();
        for byte in (&mut self.reader).take(MOST).bytes() {
            bytes.push(byte?);
            if bytes.ends_with(end) {
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Where the first target takes connections.
fn path(targets: &str) -> Option<&str> {
    let (_, rest) = targets.split_once("\"webSocketDebuggerUrl\"")?;
    let (_, rest) = rest.split_once("ws://")?;
    let url = rest.split('"').next()?;
    url.find('/').map(|start| &url[start..])
}

/// A text in one frame, masked with zeros (RFC 6455, 5.2).
fn frame(text: &[u8]) -> Vec<u8> {
    const TEXT: u8 = 0x81;
    const MASKED: u8 = 0x80;
    let mut frame = vec![TEXT];
    match u16::try_from(text.len()) {
        Ok(length) if length < 126 => frame.push(MASKED | length.to_be_bytes()[1]),
        length => {
            frame.push(MASKED | 126);
            frame.extend(length.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(text);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_found_in_the_list() {
        let list = "HTTP/1.0 200 OK\r\n\r\n[ {\n  \"description\": \"node.js instance\",\n  \"webSocketDebuggerUrl\": \"ws://127.0.0.1:9229/0f2c936f-b1cd-4ac9-aab3-f63b0f33d55e\"\n} ]";
        assert_eq!(path(list), Some("/0f2c936f-b1cd-4ac9-aab3-f63b0f33d55e"));
        assert_eq!(path("[]"), None);
    }

    #[test]
    fn frames_are_short_or_long() {
        assert_eq!(frame(b"hi"), [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(frame(&[b'x'; 300])[..4], [0x81, 0x80 | 126, 1, 44]);
        assert_eq!(frame(CLOSE.as_bytes()).len(), CLOSE.len() + 8);
    }
}
