//! What LLDB is told in place of what an editor says. Pure.
//!
//! An editor need not know the program, where its sources were when it was built, nor
//! how to reach the process
//! (<https://github.com/llvm/llvm-project/tree/main/lldb/tools/lldb-dap>).

use crate::dap;
use crate::sources::Rule;
use serde_json::{Value, json};
use std::path::Path;

/// Waits until LLDB has taken note that the process stands still, for 10 s at most. The
/// adapter up to version 19 calls it "unloaded" before, and gives up at once: what it
/// connects by does not wait for its own thread that takes events.
const SETTLED: &str = "script import lldb, time; settled = any(lldb.debugger.GetSelectedTarget().GetProcess().GetState() != lldb.eStateUnloaded or time.sleep(0.005) for _ in range(2000))";

/// How LLDB begins.
#[derive(Debug)]
pub(super) struct Start<'a> {
    /// The program with its debug information, here.
    pub(super) program: &'a Path,
    /// The command that makes it connect to gdbserver.
    pub(super) connect: String,
    pub(super) rules: &'a [Rule],
    /// Others, first.
    pub(super) commands: &'a [String],
}

impl Start<'_> {
    /// A request of an editor as the adapter gets it.
    pub(super) fn rewritten(&self, content: Vec<u8>) -> Vec<u8> {
        dap::rewritten(content, |arguments| {
            // What leads to another process, or to none.
            if let Some(arguments) = arguments.as_object_mut() {
                for name in ["pid", "waitFor", "coreFile", "gdb-remote-port", "gdb-remote-hostname"] {
                    arguments.remove(name);
                }
            }
            arguments["program"] = json!(self.program);
            arguments["attachCommands"] = json!([self.connect, SETTLED]);
            let own = arguments["initCommands"].as_array().cloned().unwrap_or_default();
            arguments["initCommands"] = self.commands.iter().map(|command| json!(command)).chain(own).collect();
            let is_told = arguments["sourceMap"].as_array().is_some_and(|map| !map.is_empty());
            if !is_told && !self.rules.is_empty() {
                arguments["sourceMap"] = source_map(self.rules);
            }
        })
    }

    /// The same for LLDB's command line.
    pub(super) fn script(&self) -> String {
        let map =
            self.rules.iter().map(|rule| format!("settings append target.source-map {} {}", quoted(&rule.remote), quoted(&rule.local)));
        let target = format!("target create {}", quoted(&self.program.display().to_string()));
        let lines = self.commands.iter().cloned().chain(map).chain([target, self.connect.clone()]);
        lines.map(|line| line + "\n").collect()
    }
}

/// The rules as the option `sourceMap` has them.
pub(super) fn source_map(rules: &[Rule]) -> Value {
    rules.iter().map(|rule| json!([rule.remote, rule.local])).collect()
}

/// An argument of a command (`help settings set`, of LLDB).
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<Rule> {
        vec![Rule { local: "/home/dev/my shop".to_owned(), remote: "/build".to_owned() }]
    }

    fn start<'a>(rules: &'a [Rule], commands: &'a [String]) -> Start<'a> {
        Start { program: Path::new("/home/dev/my shop/target/debug/shop"), connect: "process connect x".to_owned(), rules, commands }
    }

    #[test]
    fn an_editor_need_not_know_how_to_attach() {
        let (rules, commands) = (rules(), ["type category enable Rust".to_owned()]);
        let rewrite = |message: Value| -> Value {
            serde_json::from_slice(&start(&rules, &commands).rewritten(message.to_string().into_bytes())).unwrap()
        };
        let wanted = json!({
            "program": "/home/dev/my shop/target/debug/shop",
            "attachCommands": ["process connect x", SETTLED],
            "initCommands": ["type category enable Rust"],
            "sourceMap": [["/build", "/home/dev/my shop"]],
        });
        assert_eq!(rewrite(json!({"command": "attach", "arguments": {"pid": 7}}))["arguments"], wanted);
        let own = json!({"command": "attach", "arguments": {"sourceMap": [["a", "b"]], "initCommands": ["own"]}});
        let own = rewrite(own);
        assert_eq!(own["arguments"]["sourceMap"], json!([["a", "b"]]));
        assert_eq!(own["arguments"]["initCommands"], json!(["type category enable Rust", "own"]));
    }

    #[test]
    fn a_command_line_gets_the_same() {
        let (rules, commands) = (rules(), ["type category enable Rust".to_owned()]);
        insta::assert_snapshot!(start(&rules, &commands).script());
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }
}
