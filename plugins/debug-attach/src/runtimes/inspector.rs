//! The inspector that is part of Node: nothing is brought along.

use crate::args::EditorArg;
use crate::cli::Cli;
use crate::editor::Settings;
use crate::request::{Aim, Request};
use devloop_core::{CommandError, Result};
use serde_json::{Value, json};
use tokio::process::Command;

/// What the agent is told.
pub(super) fn prepare(request: &Request) -> Result<Vec<String>> {
    if request.aim == Aim::Stdio {
        let error = CommandError::usage("Node speaks the inspector protocol, and no debug adapter protocol");
        return Err(error.with_hint("leave out --dap-stdio; editors have an adapter of their own, and connect it to the port"));
    }
    Ok(vec!["node".to_owned()])
}

/// Node's own command line (`node inspect`).
pub(super) fn command_line(port: u16) -> Result<Cli> {
    let mut command = Command::new("node");
    command.arg("inspect").arg(format!("127.0.0.1:{port}"));
    Cli::start(command, None)
}

/// What VS Code's debugger for JavaScript takes
/// (<https://code.visualstudio.com/docs/nodejs/nodejs-debugging>).
pub(super) fn entry(settings: &Settings) -> Value {
    let mut entry = json!({
        "name": settings.name,
        "type": "node",
        "request": "attach",
        "address": "127.0.0.1",
        "port": settings.port,
        "skipFiles": ["<node_internals>/**"],
    });
    if let Some(rule) = settings.rules.first() {
        entry["localRoot"] = json!(rule.local);
        entry["remoteRoot"] = json!(rule.remote);
    }
    entry
}

/// Settings to copy.
pub(super) fn text(editor: EditorArg, settings: &Settings) -> String {
    let Settings { name, port, .. } = settings;
    let (local, remote) = settings.rules.first().map(|rule| (rule.local.as_str(), rule.remote.as_str())).unwrap_or_default();
    match editor {
        // https://zed.dev/docs/languages/javascript#debugging
        EditorArg::Zed => format!(
            "Add to .zed/debug.json:\n[\n  {{\n    \"label\": \"{name}\",\n    \"adapter\": \"JavaScript\",\n    \"type\": \"pwa-node\",\n    \"request\": \"attach\",\n    \"address\": \"127.0.0.1\",\n    \"port\": {port},\n    \"localRoot\": \"{local}\",\n    \"remoteRoot\": \"{remote}\"\n  }}\n]"
        ),
        // https://github.com/microsoft/vscode-js-debug, by nvim-dap
        EditorArg::Neovim => format!(
            "Add to Neovim's configuration (nvim-dap, with vscode-js-debug as adapter pwa-node):\nlocal dap = require(\"dap\")\ndap.configurations.javascript = dap.configurations.javascript or {{}}\ntable.insert(dap.configurations.javascript, {{ type = \"pwa-node\", name = \"{name}\", request = \"attach\", address = \"127.0.0.1\", port = {port}, localRoot = \"{local}\", remoteRoot = \"{remote}\" }})"
        ),
        EditorArg::Helix => "Helix has no adapter that attaches to Node; chrome://inspect and `node inspect` do (--cli)".to_owned(),
        // https://www.jetbrains.com/help/webstorm/running-and-debugging-node-js.html
        EditorArg::Jetbrains => format!(
            "In Run | Edit Configurations add \"Attach to Node.js/Chrome\":\n  name: {name}\n  host: 127.0.0.1\n  port: {port}\n  attach to: Node.js\n  remote URL of {local}: {remote}"
        ),
        EditorArg::Auto | EditorArg::Vscode | EditorArg::None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_editor_has_its_own() {
        let settings = crate::editor::tests::settings();
        let all = [EditorArg::Zed, EditorArg::Neovim, EditorArg::Helix, EditorArg::Jetbrains];
        let texts = all.map(|editor| text(editor, &settings)).join("\n\n");
        insta::assert_snapshot!(format!("{:#}\n\n{texts}", entry(&settings)));
    }
}
