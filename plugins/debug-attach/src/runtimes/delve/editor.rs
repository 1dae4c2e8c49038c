//! What editors are told. Pure. The command says where the sources are, so the
//! settings to copy don't have to.

use super::protocol::substitutions;
use crate::args::EditorArg;
use crate::editor::{Settings, helix, neovim_adapter};
use serde_json::{Value, json};

/// What VS Code's Go extension takes
/// (<https://github.com/golang/vscode-go/wiki/debugging>).
pub(crate) fn entry(settings: &Settings) -> Value {
    let mut entry = json!({
        "name": settings.name,
        "type": "go",
        "request": "attach",
        "mode": "remote",
        "host": "127.0.0.1",
        "port": settings.port,
    });
    if !settings.rules.is_empty() {
        entry["substitutePath"] = substitutions(&settings.rules);
    }
    entry
}

/// Settings to copy.
pub(crate) fn text(editor: EditorArg, settings: &Settings) -> String {
    let Settings { name, port, .. } = settings;
    match editor {
        // https://zed.dev/docs/debugger
        EditorArg::Zed => format!(
            "Add to .zed/debug.json:\n[\n  {{\n    \"label\": \"{name}\",\n    \"adapter\": \"Delve\",\n    \"request\": \"attach\",\n    \"mode\": \"remote\",\n    \"tcp_connection\": {{ \"host\": \"127.0.0.1\", \"port\": {port} }}\n  }}\n]"
        ),
        // :help dap-configuration of nvim-dap
        EditorArg::Neovim => format!(
            "{}\ndap.configurations.go = dap.configurations.go or {{}}\ntable.insert(dap.configurations.go, {{ type = \"devloop\", name = \"{name}\", request = \"attach\", mode = \"remote\" }})",
            neovim_adapter(*port)
        ),
        EditorArg::Helix => helix(settings, "go", "", " mode = \"remote\" "),
        // https://www.jetbrains.com/help/go/attach-to-running-go-processes-with-debugger.html
        EditorArg::Jetbrains => format!(
            "In Run | Edit Configurations add \"Go Remote\":\n  name: {name}\n  host: 127.0.0.1\n  port: {port}\n  on disconnect: leave it running"
        ),
        EditorArg::Auto | EditorArg::Vscode | EditorArg::None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_editor_has_its_own() {
        let all = [EditorArg::Zed, EditorArg::Neovim, EditorArg::Helix, EditorArg::Jetbrains];
        insta::assert_snapshot!(all.map(|editor| text(editor, &crate::editor::tests::settings())).join("\n\n"));
    }
}
