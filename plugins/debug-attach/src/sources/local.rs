//! What there is of Go on this machine.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// How deep modules are looked for below a folder.
const DEPTH: usize = 5;
/// Of a module so many files are enough to tell where it was.
const MOST_FILES: usize = 20_000;

/// Folders of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Local {
    /// That of the program's own module.
    pub(crate) module: Option<PathBuf>,
    /// The module's Go files, relative to it.
    pub(crate) files: Vec<String>,
    /// Where Go is installed.
    pub(crate) goroot: Option<PathBuf>,
    /// Where it keeps modules.
    pub(crate) cache: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "UPPERCASE", default)]
struct GoEnvironment {
    goroot: String,
    gomodcache: String,
}

/// Looks for the module of this name in a folder, above and below it, and for Go.
pub(crate) async fn gather(folder: &Path, module: &str) -> Local {
    let (start, name) = (folder.to_owned(), module.to_owned());
    let looked = tokio::task::spawn_blocking(move || {
        let module = find_module(&start, &name);
        let files = module.as_deref().map(|module| files(module, &["go"])).unwrap_or_default();
        (module, files)
    });
    let (module, files) = looked.await.unwrap_or_default();
    // In the module's folder: its go.mod may name another version of Go.
    let environment = go_environment(module.as_deref().unwrap_or(folder)).await;
    let folder = |text: String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    Local { module, files, goroot: folder(environment.goroot), cache: folder(environment.gomodcache) }
}

/// Nothing where there is no Go: then its library is not here, either.
async fn go_environment(folder: &Path) -> GoEnvironment {
    let output = Command::new("go")
        .args(["env", "-json", "GOROOT", "GOMODCACHE"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default()
}

fn find_module(start: &Path, name: &str) -> Option<PathBuf> {
    let is_it = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("go.mod")).ok()?;
        (module_path(&text)? == name).then(|| folder.to_owned())
    };
    start.ancestors().find_map(is_it).or_else(|| {
        let mut left = vec![(start.to_owned(), 0)];
        while let Some((folder, depth)) = left.pop() {
            if let Some(found) = is_it(&folder) {
                return Some(found);
            }
            if depth < DEPTH {
                left.extend(folders(&folder).map(|folder| (folder, depth + 1)));
            }
        }
        None
    })
}

/// The path in the `module` line of a go.mod (<https://go.dev/ref/mod#go-mod-file>).
fn module_path(text: &str) -> Option<&str> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(line).trim());
    let path = lines.filter_map(|line| line.strip_prefix("module")).find(|rest| rest.starts_with(char::is_whitespace))?;
    Some(path.trim().trim_matches('"'))
}

/// The files below a folder whose names have one of these endings, by their paths in it.
pub(super) fn files(root: &Path, endings: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted))
                && let Some(relative) = path.strip_prefix(root).ok().and_then(Path::to_str)
            {
                files.push(relative.to_owned());
            }
        }
        if files.len() > MOST_FILES {
            break;
        }
        left.extend(folders(&folder));
    }
    files
}

/// Those that can have sources of the project.
fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let named = real.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        !name.starts_with('.') && !matches!(name.as_ref(), "node_modules" | "site-packages" | "target" | "testdata" | "venv")
    });
    named.map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_module_is_found_above_and_below() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("services/shop/go.mod", "// x\nmodule \"example.com/shop\" // y\n\ngo 1.21\n");
        write("services/shop/cmd/web/main.go", "package main");
        write("services/shop/.git/x.go", "package x");
        write("go.mod", "module example.com/all\n");
        for start in ["", "services", "services/shop", "services/shop/cmd/web"] {
            let local = gather(&root.join(start), "example.com/shop").await;
            assert_eq!(local.module, Some(root.join("services/shop")), "{start}");
            assert_eq!(local.files, ["cmd/web/main.go"]);
        }
        assert_eq!(gather(&root.join("services"), "example.com/all").await.module, Some(root.clone()));
        assert_eq!(gather(&root, "example.com/none").await.module, None);
    }
}
