//! Delve lets go of a process: by its JSON-RPC interface, since a signal that
//! reaches it in the wrong moment leaves the process stopped
//! (<https://github.com/go-delve/delve/tree/master/Documentation/api/json-rpc>).

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long each of its answers may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Halts the process and detaches from it: only a halted one can be left.
pub(crate) fn detach(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    ask(&mut stream, &mut reader, r#"{"method":"RPCServer.Command","params":[{"name":"halt"}],"id":1}"#)?;
    ask(&mut stream, &mut reader, r#"{"method":"RPCServer.Detach","params":[{"Kill":false}],"id":2}"#)
}

/// One answer a line; all of it before the field `error` is the result.
fn ask(stream: &mut impl Write, reader: &mut impl BufRead, request: &str) -> io::Result<()> {
    writeln!(stream, "{request}")?;
    let mut answer = String::new();
    reader.read_line(&mut answer)?;
    if answer.trim_end().ends_with("\"error\":null}") {
        return Ok(());
    }
    let error = answer.rsplit("\"error\":").next().unwrap_or_default();
    Err(io::Error::other(error.trim_end_matches(['}', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_errors() {
        let mut asked = Vec::new();
        let mut say = |answer: &str| ask(&mut asked, &mut answer.as_bytes(), "{}");
        assert!(say("{\"id\":1,\"result\":{\"State\":null},\"error\":null}\n").is_ok());
        assert_eq!(say("{\"id\":1,\"result\":null,\"error\":\"no process\"}\n").unwrap_err().to_string(), "\"no process\"");
        assert!(say("").is_err());
    }
}
