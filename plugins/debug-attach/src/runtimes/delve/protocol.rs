//! What Delve is told in place of what its clients say. Pure.
//!
//! An editor need not know where the sources were when the program was built, nor
//! that the process is attached to already.

use crate::dap;
use crate::sources::Rule;
use serde_json::{Value, json};

/// Attaches to what Delve is attached to already, and says where the sources are
/// unless the editor does.
pub(super) fn rewritten(content: Vec<u8>, rules: &[Rule]) -> Vec<u8> {
    dap::rewritten(content, |arguments| {
        arguments["mode"] = json!("remote");
        let is_told = arguments["substitutePath"].as_array().is_some_and(|rules| !rules.is_empty());
        if !is_told && !rules.is_empty() {
            arguments["substitutePath"] = substitutions(rules);
        }
    })
}

/// The rules as Delve's option `substitutePath` has them.
pub(super) fn substitutions(rules: &[Rule]) -> Value {
    rules.iter().map(|rule| json!({"from": rule.local, "to": rule.remote})).collect()
}

/// What Delve is to be told in place of a line of its own command line's
/// (JSON-RPC): that one offers to detach, even to kill, as it ends. It gets an
/// answer all the same.
pub(super) fn rewritten_line(line: &str) -> String {
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
    fn its_command_line_does_not_detach_it() {
        let line = rewritten_line("{\"method\":\"RPCServer.Detach\",\"params\":[{\"Kill\":true}],\"id\":9}\n");
        assert_eq!(line, "{\"id\":9,\"method\":\"RPCServer.IsMulticlient\",\"params\":[{}]}\n");
        assert_eq!(rewritten_line("{\"method\":\"RPCServer.State\"}\n"), "{\"method\":\"RPCServer.State\"}\n");
    }
}
