//! Which files a Go binary is made of.

use devloop_core::project::GoBuild;
use devloop_core::watch::WatchRoot;
use devloop_core::{CommandError, ErrorContext, Result};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// The local packages behind a binary, and what they embed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GoSources {
    /// The folder of the module, where a new package would be.
    module: PathBuf,
    /// Folders of local packages.
    packages: BTreeSet<PathBuf>,
    /// Files that are compiled in as they are (`//go:embed`).
    embedded: BTreeSet<PathBuf>,
}

/// What the go command compiles or links, beside Go itself (`go help filetype`).
const COMPILED: [&str; 7] = ["go", "c", "h", "s", "S", "cc", "cpp"];
/// Files that decide which packages there are.
const SETTINGS: [&str; 4] = ["go.mod", "go.sum", "go.work", "go.work.sum"];

impl GoSources {
    pub(super) fn contains(&self, path: &Path) -> bool {
        if self.embedded.contains(path) || self.shapes(path) {
            return true;
        }
        let in_package = path.parent().is_some_and(|folder| self.packages.contains(folder));
        let is_test = path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with("_test.go"));
        let is_compiled = path.extension().and_then(OsStr::to_str).is_some_and(|extension| COMPILED.contains(&extension));
        in_package && is_compiled && !is_test
    }

    pub(super) fn shapes(&self, path: &Path) -> bool {
        let is_setting = path.file_name().and_then(OsStr::to_str).is_some_and(|name| SETTINGS.contains(&name));
        is_setting
            && path
                .parent()
                .is_some_and(|folder| self.module.starts_with(folder) || self.packages.iter().any(|package| package.starts_with(folder)))
    }

    pub(super) fn roots(&self) -> Vec<WatchRoot> {
        // Packages of other modules that a workspace or a `replace` brings in.
        let outside = self.packages.iter().filter(|package| !package.starts_with(&self.module));
        let embedded = self.embedded.iter().filter(|file| !file.starts_with(&self.module));
        std::iter::once(&self.module).chain(outside).chain(embedded).map(WatchRoot::sources).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Package {
    dir: PathBuf,
    #[serde(default)]
    standard: bool,
    #[serde(default)]
    module: Option<Module>,
    #[serde(default)]
    embed_files: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Module {
    #[serde(default)]
    main: bool,
    #[serde(default)]
    replace: Option<Replacement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Replacement {
    /// Absent for a folder.
    #[serde(default)]
    version: Option<String>,
}

impl Package {
    fn is_local(&self) -> bool {
        let module_is_local = |module: &Module| module.main || module.replace.as_ref().is_some_and(|replace| replace.version.is_none());
        !self.standard && self.module.as_ref().is_none_or(module_is_local)
    }
}

/// Asks the go command which local packages a binary is made of.
///
/// # Errors
/// When it can't be run or refuses.
pub(super) async fn of_build(root: &Path, build: &GoBuild) -> Result<GoSources> {
    let folder = build.folder.as_ref().map_or_else(|| root.to_owned(), |folder| root.join(folder));
    let folder: PathBuf = folder.components().collect();
    let mut command = Command::new("go");
    command.args(["list", "-deps", "-e", "-json=Dir,Standard,Module,EmbedFiles", &build.package]);
    let output = command
        .current_dir(&folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| CommandError::new("could not run go").caused_by(error).with_hint("check that `go version` works"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(CommandError::new(format!("go can't read the packages of {}", folder.display())).caused_by(reason));
    }
    from_list(&output.stdout, folder).context("go's list of packages is not what was expected")
}

fn from_list(output: &[u8], module: PathBuf) -> std::result::Result<GoSources, serde_json::Error> {
    let mut sources = GoSources { module, ..GoSources::default() };
    for package in serde_json::Deserializer::from_slice(output).into_iter::<Package>() {
        let package = package?;
        if package.is_local() {
            sources.embedded.extend(package.embed_files.iter().map(|file| package.dir.join(file)));
            sources.packages.insert(package.dir);
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_the_local_packages_and_what_they_embed() {
        let list = r#"{"Dir":"/go/src/fmt","Standard":true}
            {"Dir":"/m/cache/lib","Module":{"Path":"lib"}}
            {"Dir":"/other/kit","Module":{"Path":"kit","Replace":{"Path":"../kit"}}}
            {"Dir":"/w/cmd/web","Module":{"Path":"w","Main":true},"EmbedFiles":["pages/a.html"]}"#;
        let sources = from_list(list.as_bytes(), "/w".into()).unwrap();
        for path in ["/w/cmd/web/main.go", "/w/cmd/web/pages/a.html", "/w/go.mod", "/other/kit/kit.go"] {
            assert!(sources.contains(Path::new(path)), "{path}");
        }
        for path in ["/w/cmd/web/main_test.go", "/w/cmd/other/main.go", "/w/README.md", "/go/src/fmt/print.go", "/w/cmd/web/pages/b.html"] {
            assert!(!sources.contains(Path::new(path)), "{path}");
        }
        assert_eq!(sources.roots().len(), 2);
        assert!(sources.shapes(Path::new("/w/go.mod")) && !sources.shapes(Path::new("/w/cmd/web/main.go")));
    }
}
