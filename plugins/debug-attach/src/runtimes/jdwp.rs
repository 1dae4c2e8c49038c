//! The debug agent of a Java virtual machine that was started with it: nothing is
//! brought along.

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
        let error = CommandError::usage("a Java virtual machine speaks JDWP, and no debug adapter protocol");
        return Err(error.with_hint("leave out --dap-stdio; editors have an adapter of their own, and connect it to the port"));
    }
    Ok(vec!["jdwp".to_owned()])
}

/// The command line of the Java development kit (`jdb`).
pub(super) fn command_line(port: u16) -> Result<Cli> {
    let mut command = Command::new("jdb");
    command.arg("-connect").arg(format!("com.sun.jdi.SocketAttach:hostname=127.0.0.1,port={port}"));
    Cli::start(command, None)
}

/// What VS Code's debugger for Java takes
/// (<https://code.visualstudio.com/docs/java/java-debugging>).
pub(super) fn entry(settings: &Settings) -> Value {
    json!({
        "name": settings.name,
        "type": "java",
        "request": "attach",
        "hostName": "127.0.0.1",
        "port": settings.port,
    })
}

/// Settings to copy.
pub(super) fn text(editor: EditorArg, settings: &Settings) -> String {
    let Settings { name, port, .. } = settings;
    match editor {
        // https://zed.dev/docs/languages/java#debugger
        EditorArg::Zed => format!(
            "Add to .zed/debug.json (with the extension for Java):\n[\n  {{\n    \"label\": \"{name}\",\n    \"adapter\": \"Java\",\n    \"request\": \"attach\",\n    \"hostName\": \"127.0.0.1\",\n    \"port\": {port}\n  }}\n]"
        ),
        // https://github.com/mfussenegger/nvim-jdtls#debugger-via-nvim-dap
        EditorArg::Neovim => format!(
            "Add to Neovim's configuration (nvim-dap, with nvim-jdtls as adapter java):\nlocal dap = require(\"dap\")\ndap.configurations.java = dap.configurations.java or {{}}\ntable.insert(dap.configurations.java, {{ type = \"java\", name = \"{name}\", request = \"attach\", hostName = \"127.0.0.1\", port = {port} }})"
        ),
        EditorArg::Helix => "Helix has no adapter that attaches to Java; `jdb` does (--cli)".to_owned(),
        // https://www.jetbrains.com/help/idea/tutorial-remote-debug.html
        EditorArg::Jetbrains => format!(
            "In Run | Edit Configurations add \"Remote JVM Debug\":\n  name: {name}\n  debugger mode: attach to remote JVM\n  host: 127.0.0.1\n  port: {port}"
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
