//! Delve lets go of a process, by its JSON-RPC interface
//! (<https://github.com/go-delve/delve/tree/master/Documentation/api/json-rpc>).
//!
//! Only a halted process can be left. Delve halts one by a SIGTRAP to the process:
//! when that comes upon a breakpoint at the same moment, the signal stays pending,
//! and would end the process as soon as nobody traces it any more. So a signal
//! that waits is waited for.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long each of its answers may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one may take to the question whether it is there.
const SOON: Duration = Duration::from_millis(500);
/// How often a signal that waits is let through.
const ROUNDS: u32 = 8;

const STATE: &str = r#"{"method":"RPCServer.State","params":[{"NonBlocking":true}],"id":1}"#;
const HALT: &str = r#"{"method":"RPCServer.Command","params":[{"name":"halt"}],"id":2}"#;
const CONTINUE: &str = r#"{"method":"RPCServer.Command","params":[{"name":"continue"}],"id":3}"#;
const DETACH: &str = r#"{"method":"RPCServer.Detach","params":[{"Kill":false}],"id":4}"#;

/// Halts the process and detaches from it. `is_trap_pending` tells whether a
/// SIGTRAP waits for it.
pub(crate) fn detach(socket: &Path, is_trap_pending: impl Fn() -> bool) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let reader = BufReader::new(stream.try_clone()?);
    let mut delve = Delve { stream, reader };
    if is_running(&delve.ask(STATE)?) {
        delve.ask(HALT)?;
    }
    for _ in 0..ROUNDS {
        if !is_trap_pending() {
            break;
        }
        // It stops at once, for that signal.
        delve.ask(CONTINUE)?;
    }
    delve.ask(DETACH).map(drop)
}

/// Whether it takes requests, which it does once it is attached.
pub(crate) fn answers(socket: &Path) -> bool {
    let asked = UnixStream::connect(socket).and_then(|stream| {
        stream.set_read_timeout(Some(SOON))?;
        let reader = BufReader::new(stream.try_clone()?);
        Delve { stream, reader }.ask(STATE)
    });
    asked.is_ok()
}

struct Delve<W, R> {
    stream: W,
    reader: R,
}

impl<W: Write, R: BufRead> Delve<W, R> {
    /// One answer a line; all of it before the field `error` is the result.
    fn ask(&mut self, request: &str) -> io::Result<String> {
        writeln!(self.stream, "{request}")?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer)?;
        if answer.trim_end().ends_with("\"error\":null}") {
            return Ok(answer);
        }
        let error = answer.rsplit("\"error\":").next().unwrap_or_default();
        Err(io::Error::other(error.trim_end_matches(['}', '\n']).to_owned()))
    }
}

/// In the answer to `State`, of which no other part has a field of this name.
fn is_running(answer: &str) -> bool {
    answer.contains("\"Running\":true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_errors() {
        let say = |answer: &str| Delve { stream: Vec::new(), reader: answer.as_bytes() }.ask("{}");
        let running = say("{\"id\":1,\"result\":{\"State\":{\"Pid\":1,\"Running\":true}},\"error\":null}\n").unwrap();
        assert!(is_running(&running) && !is_running("{\"Running\":false}"));
        assert_eq!(say("{\"id\":1,\"result\":null,\"error\":\"no process\"}\n").unwrap_err().to_string(), "\"no process\"");
        assert!(say("").is_err());
    }
}
