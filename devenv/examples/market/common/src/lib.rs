//! A server of a few fixed answers: what both services are made of.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// What all services of the market say of themselves.
pub const MARKET: &str = "the market";

/// A client that says nothing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers `GET` on port 8080, one after another; nothing for a path that
/// `answer` doesn't know.
///
/// # Errors
/// When the port can't be listened on.
pub fn serve(answer: impl Fn(&str) -> Option<String>) -> std::io::Result<()> {
    for stream in TcpListener::bind(("0.0.0.0", 8080))?.incoming() {
        // Whoever went away needs no answer.
        let _ = stream.and_then(|stream| reply(stream, &answer));
    }
    Ok(())
}

fn reply(mut stream: TcpStream, answer: impl Fn(&str) -> Option<String>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (status, body) = answer(path).map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
