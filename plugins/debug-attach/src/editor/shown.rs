//! Settings to copy. Pure. The command says where the sources are, so they don't
//! have to.

use super::Settings;
use crate::args::EditorArg;

pub(super) fn text(editor: EditorArg, settings: &Settings) -> String {
    let Settings { name, port, .. } = settings;
    match editor {
        // https://zed.dev/docs/debugger
        EditorArg::Zed => format!(
            "Add to .zed/debug.json:\n[\n  {{\n    \"label\": \"{name}\",\n    \"adapter\": \"Delve\",\n    \"request\": \"attach\",\n    \"mode\": \"remote\",\n    \"tcp_connection\": {{ \"host\": \"127.0.0.1\", \"port\": {port} }}\n  }}\n]"
        ),
        // :help dap-adapter, :help dap-configuration of nvim-dap
        EditorArg::Neovim => format!(
            "Add to Neovim's configuration (nvim-dap):\nlocal dap = require(\"dap\")\ndap.adapters.devloop = {{ type = \"server\", host = \"127.0.0.1\", port = {port} }}\ndap.configurations.go = dap.configurations.go or {{}}\ntable.insert(dap.configurations.go, {{ type = \"devloop\", name = \"{name}\", request = \"attach\", mode = \"remote\" }})"
        ),
        // https://docs.helix-editor.com/guides/debugger.html
        EditorArg::Helix => format!(
            "Add to .helix/languages.toml, then :debug-remote 127.0.0.1:{port}:\n[[language]]\nname = \"go\"\n\n[language.debugger]\nname = \"devloop\"\ntransport = \"tcp\"\ncommand = \"\"\nargs = []\n\n[[language.debugger.templates]]\nname = \"{name}\"\nrequest = \"attach\"\nargs = {{ mode = \"remote\" }}"
        ),
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
        insta::assert_snapshot!(all.map(|editor| text(editor, &super::super::tests::settings())).join("\n\n"));
    }
}
