//! What editors are told. Pure. The command says where the sources are, so the
//! settings to copy don't have to.

use super::mappings;
use crate::args::EditorArg;
use crate::editor::{Settings, helix, neovim_adapter};
use serde_json::{Value, json};

/// What VS Code's extension for Python takes
/// (<https://code.visualstudio.com/docs/python/debugging>).
pub(crate) fn entry(settings: &Settings) -> Value {
    let mut entry = json!({
        "name": settings.name,
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": "127.0.0.1", "port": settings.port},
    });
    if !settings.rules.is_empty() {
        entry["pathMappings"] = mappings(&settings.rules);
    }
    entry
}

/// Settings to copy.
pub(crate) fn text(editor: EditorArg, settings: &Settings) -> String {
    let Settings { name, port, .. } = settings;
    match editor {
        // https://zed.dev/docs/languages/python#debugging
        EditorArg::Zed => format!(
            "Add to .zed/debug.json:\n[\n  {{\n    \"label\": \"{name}\",\n    \"adapter\": \"Debugpy\",\n    \"request\": \"attach\",\n    \"connect\": {{ \"host\": \"127.0.0.1\", \"port\": {port} }}\n  }}\n]"
        ),
        // :help dap-configuration of nvim-dap
        EditorArg::Neovim => format!(
            "{}\ndap.configurations.python = dap.configurations.python or {{}}\ntable.insert(dap.configurations.python, {{ type = \"devloop\", name = \"{name}\", request = \"attach\" }})",
            neovim_adapter(*port)
        ),
        EditorArg::Helix => helix(settings, "python", "", ""),
        EditorArg::Jetbrains => format!(
            "PyCharm's own debugger is another one; versions with a run configuration for debug adapters attach to 127.0.0.1:{port} by it"
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
