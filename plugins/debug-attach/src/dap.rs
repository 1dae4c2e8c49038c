//! The Debug Adapter Protocol, as far as all debuggers are meant by it. Pure.
//! (<https://microsoft.github.io/debug-adapter-protocol/specification>)

use serde_json::{Value, json};

/// The headers of a message are shorter than this.
const MOST_HEADERS: usize = 4096;
/// A message is shorter than this.
const MOST_CONTENT: usize = 64 << 20;
const END_OF_HEADERS: &[u8] = b"\r\n\r\n";

/// Turns a stream of bytes into the contents of messages.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    buffer: Vec<u8>,
}

/// What is no message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no message of the debug adapter protocol: {0}")]
pub(crate) struct NoMessage(&'static str);

impl Framing {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The content of the next message, once it is there.
    pub(crate) fn pop(&mut self) -> Result<Option<Vec<u8>>, NoMessage> {
        let Some(end) = self.buffer.windows(END_OF_HEADERS.len()).take(MOST_HEADERS).position(|window| window == END_OF_HEADERS) else {
            return if self.buffer.len() > MOST_HEADERS { Err(NoMessage("its headers don't end")) } else { Ok(None) };
        };
        let headers = std::str::from_utf8(&self.buffer[..end]).map_err(|_| NoMessage("its headers are no text"))?;
        let length = headers.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.filter(|length| *length <= MOST_CONTENT).ok_or(NoMessage("it has no fitting Content-Length"))?;
        let start = end + END_OF_HEADERS.len();
        if self.buffer.len() < start + length {
            return Ok(None);
        }
        let content = self.buffer[start..start + length].to_vec();
        self.buffer.drain(..start + length);
        Ok(Some(content))
    }
}

/// A message with its header.
pub(crate) fn framed(content: &[u8]) -> Vec<u8> {
    let mut message = format!("Content-Length: {}\r\n\r\n", content.len()).into_bytes();
    message.extend_from_slice(content);
    message
}

/// Changes a request, if `attach` or this wants it: whoever wants the process to end
/// ends the pod. `attach` changes the arguments of that request.
pub(crate) fn rewritten(content: Vec<u8>, attach: impl FnOnce(&mut Value)) -> Vec<u8> {
    let Ok(mut message) = serde_json::from_slice::<Value>(&content) else { return content };
    match message["command"].as_str() {
        Some("attach") => {
            if !message["arguments"].is_object() {
                message["arguments"] = json!({});
            }
            attach(&mut message["arguments"]);
        }
        Some("disconnect") if message["arguments"]["terminateDebuggee"] == true => {
            message["arguments"]["terminateDebuggee"] = json!(false);
        }
        _ => return content,
    }
    message.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewrite(message: &Value) -> Value {
        let bytes = rewritten(message.to_string().into_bytes(), |arguments| arguments["mode"] = json!("remote"));
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn attaching_is_changed_and_nobody_kills_the_process() {
        assert_eq!(rewrite(&json!({"command": "attach"}))["arguments"], json!({"mode": "remote"}));
        let kill = json!({"seq": 1, "command": "disconnect", "arguments": {"terminateDebuggee": true}});
        assert_eq!(rewrite(&kill)["arguments"]["terminateDebuggee"], false);
    }

    #[test]
    fn all_else_passes_as_it_is() {
        for other in [&br#"{ "command":"threads", "seq" : 3 }"#[..], b"no json"] {
            assert_eq!(rewritten(other.to_vec(), |_| panic!()), other);
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let pop = |text: &str| {
            let mut framing = Framing::default();
            framing.push(text.as_bytes());
            framing.pop()
        };
        for text in ["Content-Length: x\r\n\r\n", "X: 1\r\n\r\n{}", "Content-Length: 99999999999\r\n\r\n", &"x".repeat(5000)] {
            assert!(pop(text).is_err(), "{text:.40}");
        }
        assert_eq!(pop("Content-Type: a\r\ncontent-length: 2\r\n\r\n{}"), Ok(Some(b"{}".to_vec())));
        assert_eq!(pop("Content-Length: 5\r\n\r\n{}"), Ok(None));
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..6), cut in 1_usize..40) {
            let stream: Vec<u8> = contents.iter().flat_map(|content| framed(content)).collect();
            let mut framing = Framing::default();
            let mut found = Vec::new();
            for piece in stream.chunks(cut) {
                framing.push(piece);
                while let Some(content) = framing.pop().unwrap() {
                    found.push(content);
                }
            }
            prop_assert_eq!(found, contents);
        }
    }
}
