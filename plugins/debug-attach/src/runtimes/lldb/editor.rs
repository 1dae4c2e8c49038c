//! What editors are told. Pure. The command knows the program, its sources and the way
//! to the process, so the settings don't have to.

use crate::args::EditorArg;
use crate::editor::{Settings, helix, neovim_adapter};
use serde_json::{Value, json};

/// What VS Code's extension LLDB DAP takes
/// (<https://marketplace.visualstudio.com/items?itemName=llvm-vs-code-extensions.lldb-dap>).
pub(crate) fn entry(settings: &Settings) -> Value {
    json!({
        "name": settings.name,
        "type": "lldb-dap",
        "request": "attach",
        "debugAdapterHostname": "127.0.0.1",
        "debugAdapterPort": settings.port,
    })
}

/// Settings to copy.
pub(crate) fn text(editor: EditorArg, settings: &Settings) -> String {
    let Settings { name, target, port, .. } = settings;
    match editor {
        // https://zed.dev/docs/debugger
        EditorArg::Zed => format!(
            "Zed starts the adapter itself. End this command, and add to .zed/settings.json:\n{{\n  \"dap\": {{\n    \"CodeLLDB\": {{ \"binary\": \"kubectl-debug_attach\", \"args\": [\"{target}\", \"--dap-stdio\"] }}\n  }}\n}}\nand to .zed/debug.json:\n[\n  {{\n    \"label\": \"{name}\",\n    \"adapter\": \"CodeLLDB\",\n    \"request\": \"attach\"\n  }}\n]"
        ),
        // :help dap-configuration of nvim-dap
        EditorArg::Neovim => format!(
            "{}\nfor _, language in ipairs({{ \"rust\", \"c\", \"cpp\" }}) do\n  dap.configurations[language] = dap.configurations[language] or {{}}\n  table.insert(dap.configurations[language], {{ type = \"devloop\", name = \"{name}\", request = \"attach\" }})\nend",
            neovim_adapter(*port)
        ),
        EditorArg::Helix => helix(settings, "rust", " (or for \"c\", \"cpp\")", ""),
        // https://www.jetbrains.com/help/clion/dap-support.html
        EditorArg::Jetbrains => format!(
            "CLion starts the adapter itself. End this command, and add in Settings | Build, Execution, Deployment | Debugger | DAP Debuggers:\n  name: {name}\n  program: kubectl-debug_attach\n  arguments: {target} --dap-stdio\n  connection: stdin and stdout; then attach to any process with it"
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
        let settings = crate::editor::tests::settings();
        let entry = serde_json::to_string_pretty(&entry(&settings)).unwrap();
        insta::assert_snapshot!(all.map(|editor| text(editor, &settings)).into_iter().chain([entry]).collect::<Vec<_>>().join("\n\n"));
    }
}
