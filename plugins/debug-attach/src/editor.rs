//! The settings of editors: those of VS Code are written, others are shown.

mod launch;

use crate::args::EditorArg;
use crate::runtime::Debugger;
use crate::runtimes::{entry, shown};
use crate::sources::Rule;
use devloop_core::{CommandError, ErrorContext, Result, files};
use std::path::{Path, PathBuf};

/// What an editor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Of the entry among others.
    pub(crate) name: String,
    /// As the command line names it.
    pub(crate) target: String,
    pub(crate) debugger: Debugger,
    pub(crate) port: u16,
    pub(crate) rules: Vec<Rule>,
}

/// What is done for an editor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// This file of VS Code gets an entry.
    Write(PathBuf),
    /// This is for the user to copy.
    Show(String),
    /// Nothing.
    Nothing,
}

/// What is to be done. `folder` is that of the sources.
pub(crate) fn plan(editor: EditorArg, folder: &Path, has_settings: bool, settings: &Settings) -> Work {
    match editor {
        EditorArg::Vscode => Work::Write(folder.join(".vscode/launch.json")),
        EditorArg::Auto if has_settings => Work::Write(folder.join(".vscode/launch.json")),
        EditorArg::Auto | EditorArg::None => Work::Nothing,
        other => Work::Show(shown(other, settings)),
    }
}

/// The folder that is open in an editor, and whether it has settings: the nearest
/// with a `.vscode`, from the module's up to that of the repository, else the
/// module's.
pub(crate) fn folder(module: &Path) -> (PathBuf, bool) {
    for folder in module.ancestors() {
        // VS Code keeps its extensions in a folder of that name at the user's home.
        if folder.join(".vscode").is_dir() && !folder.join(".vscode/extensions").is_dir() {
            return (folder.to_owned(), true);
        }
        if folder.join(".git").exists() {
            break;
        }
    }
    (module.to_owned(), false)
}

/// Puts the entry into a launch.json; answers whether the file changed.
///
/// # Errors
/// When it can't be read as JSON with comments, or not be written. It stays as it
/// is then.
pub(crate) fn write(path: &Path, settings: &Settings) -> Result<bool> {
    let read = files::read_optional(path).with_context(|| format!("could not read {}", path.display()))?;
    let before = read.map(String::from_utf8).transpose().with_context(|| format!("{} is no text", path.display()))?;
    let after = launch::merged(before.as_deref().unwrap_or_default(), &entry(settings)).map_err(|why| {
        CommandError::new(format!("{} can't be added to", path.display()))
            .caused_by(why)
            .with_hint("mend the file, or leave the editor alone with --editor none")
    })?;
    if before.as_deref() == Some(after.as_str()) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    files::write_atomic(path, after.as_bytes(), 0o644).with_context(|| format!("could not write {}", path.display()))?;
    Ok(true)
}

/// The adapter that connects Neovim to our port (`:help dap-adapter` of nvim-dap).
pub(crate) fn neovim_adapter(port: u16) -> String {
    format!(
        "Add to Neovim's configuration (nvim-dap):\nlocal dap = require(\"dap\")\ndap.adapters.devloop = {{ type = \"server\", host = \"127.0.0.1\", port = {port} }}"
    )
}

/// What Helix takes for a language; `aside` is said of others, `arguments` go along
/// with the request (<https://docs.helix-editor.com/guides/debugger.html>).
pub(crate) fn helix(settings: &Settings, language: &str, aside: &str, arguments: &str) -> String {
    let Settings { name, port, .. } = settings;
    format!(
        "Add to .helix/languages.toml{aside}, then :debug-remote 127.0.0.1:{port}:\n[[language]]\nname = \"{language}\"\n\n[language.debugger]\nname = \"devloop\"\ntransport = \"tcp\"\ncommand = \"\"\nargs = []\n\n[[language.debugger.templates]]\nname = \"{name}\"\nrequest = \"attach\"\nargs = {{{arguments}}}"
    )
}

/// The address that opens a folder in VS Code
/// (<https://code.visualstudio.com/docs/configure/command-line#_opening-vs-code-with-urls>).
pub(crate) fn url(folder: &Path) -> String {
    let mut url = "vscode://file".to_owned();
    for byte in folder.to_string_lossy().bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settings() -> Settings {
        let rules = vec![Rule { local: "/home/dev/shop".to_owned(), remote: "example.com/shop".to_owned() }];
        Settings {
            name: "deployment/web (devloop)".to_owned(),
            target: "deployment/web".to_owned(),
            debugger: Debugger::Delve,
            port: 23_456,
            rules,
        }
    }

    #[test]
    fn a_file_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("services/shop");
        std::fs::create_dir_all(&module).unwrap();
        assert_eq!(super::folder(&module), (module.clone(), false));
        std::fs::create_dir_all(folder.path().join(".vscode/extensions")).unwrap();
        assert_eq!(super::folder(&module), (module.clone(), false));
        let path = module.join(".vscode/launch.json");
        assert!(write(&path, &settings()).unwrap());
        assert!(!write(&path, &settings()).unwrap());
        assert_eq!(super::folder(&module.join("x")), (module.clone(), true));
        let wanted = Work::Write(path.clone());
        assert_eq!(plan(EditorArg::Auto, &module, true, &settings()), wanted);
        assert_eq!(plan(EditorArg::Auto, &module, false, &settings()), Work::Nothing);
        std::fs::write(&path, "{ broken").unwrap();
        let error = write(&path, &settings()).unwrap_err();
        assert!(error.to_string().ends_with("launch.json can't be added to"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ broken");
    }

    #[test]
    fn an_address_has_no_odd_letters() {
        assert_eq!(url(Path::new("/home/dev/my shop")), "vscode://file/home/dev/my%20shop");
    }
}
