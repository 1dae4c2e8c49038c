//! The Debug Adapter Protocol, as far as it is changed on its way to Delve. Pure.
//!
//! An editor need not know where the sources were when the program was built, nor
//! that the process is attached to already; and none may kill it
//! (<https://microsoft.github.io/debug-adapter-protocol/specification>).

use crate::sources::Rule;
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

/// What Delve is to be told in place of what an editor said.
pub(crate) fn rewritten(content: Vec<u8>, rules: &[Rule]) -> Vec<u8> {
    let Ok(mut message) = serde_json::from_slice::<Value>(&content) else { return content };
    let changed = match message["command"].as_str() {
        Some("attach") => attach(&mut message["arguments"], rules),
        // Whoever wants the process to end ends the pod.
        Some("disconnect") if message["arguments"]["terminateDebuggee"] == true => {
            message["arguments"]["terminateDebuggee"] = json!(false);
            true
        }
        _ => false,
    };
    if changed { message.to_string().into_bytes() } else { content }
}

/// Attaches to what Delve is attached to already, and says where the sources are
/// unless the editor does.
fn attach(arguments: &mut Value, rules: &[Rule]) -> bool {
    if !arguments.is_object() {
        *arguments = json!({});
    }
    arguments["mode"] = json!("remote");
    let is_told = arguments["substitutePath"].as_array().is_some_and(|rules| !rules.is_empty());
    if !is_told && !rules.is_empty() {
        arguments["substitutePath"] = substitutions(rules);
    }
    true
}

/// The rules as Delve's option `substitutePath` has them.
pub(crate) fn substitutions(rules: &[Rule]) -> Value {
    rules.iter().map(|rule| json!({"from": rule.local, "to": rule.remote})).collect()
}

/// What Delve is to be told in place of a line of its own command line's
/// (JSON-RPC): that one offers to detach, even to kill, as it ends. It gets an
/// answer all the same.
pub(crate) fn rewritten_line(line: &str) -> String {
    let Ok(mut request) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    if request["method"] != "RPCServer.Detach" {
        return line.to_owned();
    }
    request["method"] = json!("RPCServer.IsMulticlient");
    request["params"] = json!([{}]);
    format!("{request}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> Vec<Rule> {
        vec![Rule { local: "/home/dev/web".to_owned(), remote: "example.com/web".to_owned() }]
    }

    fn rewrite(message: &Value) -> Value {
        serde_json::from_slice(&rewritten(message.to_string().into_bytes(), &rules())).unwrap()
    }

    #[test]
    fn an_editor_attaches_to_what_is_attached_and_finds_the_sources() {
        let wanted = json!({"mode": "remote", "processId": 7, "substitutePath": [{"from": "/home/dev/web", "to": "example.com/web"}]});
        assert_eq!(rewrite(&json!({"command": "attach", "arguments": {"mode": "local", "processId": 7}}))["arguments"], wanted);
        assert_eq!(rewrite(&json!({"command": "attach"}))["arguments"]["mode"], "remote");
        let own = json!({"command": "attach", "arguments": {"mode": "remote", "substitutePath": [{"from": "a", "to": "b"}]}});
        assert_eq!(rewrite(&own), own);
    }

    #[test]
    fn nobody_kills_the_process() {
        let kill = json!({"seq": 1, "command": "disconnect", "arguments": {"terminateDebuggee": true}});
        assert_eq!(rewrite(&kill)["arguments"]["terminateDebuggee"], false);
        let line = rewritten_line("{\"method\":\"RPCServer.Detach\",\"params\":[{\"Kill\":true}],\"id\":9}\n");
        assert_eq!(line, "{\"id\":9,\"method\":\"RPCServer.IsMulticlient\",\"params\":[{}]}\n");
    }

    #[test]
    fn all_else_passes_as_it_is() {
        let other = br#"{ "command":"threads", "seq" : 3 }"#.to_vec();
        assert_eq!(rewritten(other.clone(), &rules()), other);
        assert_eq!(rewritten(b"no json".to_vec(), &rules()), b"no json");
        assert_eq!(rewritten_line("{\"method\":\"RPCServer.State\"}\n"), "{\"method\":\"RPCServer.State\"}\n");
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
