//! Packages of a Go binary.

use super::way;
use crate::error::{CommandError, ErrorContext, Result};
use crate::project::GoBuild;
use crate::watch::WatchRoot;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// The packages of this machine that a binary is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct GoPackages {
    /// The folder of the module.
    module: PathBuf,
    /// The main package's import path.
    main: String,
    /// By import path.
    packages: BTreeMap<String, Package>,
}

/// Files that decide which packages there are.
const SETTINGS: [&str; 4] = ["go.mod", "go.sum", "go.work", "go.work.sum"];

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Package {
    import_path: String,
    dir: PathBuf,
    standard: bool,
    module: Option<Module>,
    imports: Vec<String>,
    embed_patterns: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Module {
    main: bool,
    replace: Option<Replacement>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Replacement {
    /// Absent for a folder.
    version: Option<String>,
}

/// Asks the go command.
pub(super) async fn packages(root: &Path, build: &GoBuild) -> Result<GoPackages> {
    let folder = build.folder.as_ref().map_or_else(|| root.to_owned(), |folder| root.join(folder));
    let mut command = Command::new("go");
    command.args(["list", "-deps", "-e", "-json=ImportPath,Dir,Standard,Module,Imports,EmbedPatterns"]);
    command.args(&build.flags).arg(&build.package).current_dir(&folder).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await;
    let output =
        output.map_err(|error| CommandError::new("could not run go").caused_by(error).with_hint("check that `go version` works"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(CommandError::new(format!("go can't list the packages of {}", build.package)).caused_by(reason));
    }
    let packages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Package>().collect::<Result<Vec<_>, _>>();
    let module = folder.canonicalize().unwrap_or(folder);
    Ok(GoPackages::new(module, packages.context("what `go list` says is not what was expected")?))
}

impl GoPackages {
    fn new(module: PathBuf, listed: Vec<Package>) -> Self {
        // Dependencies come first; the package that was asked for is the last.
        let main = listed.last().map(|package| package.import_path.clone()).unwrap_or_default();
        let is_local = |package: &Package| {
            let module = package.module.as_ref();
            let here = module.is_none_or(|module| module.main || module.replace.as_ref().is_some_and(|replace| replace.version.is_none()));
            !package.standard && here
        };
        let packages = listed.into_iter().filter(is_local).map(|package| (package.import_path.clone(), package)).collect();
        Self { module, main, packages }
    }

    pub(super) fn via(&self, file: &Path) -> Option<Vec<String>> {
        let (name, folder) = (file.file_name()?.to_str()?, file.parent()?);
        if SETTINGS.contains(&name) {
            let above = self.module.starts_with(folder) || self.packages.values().any(|package| package.dir.starts_with(folder));
            return above.then(|| vec!["module".to_owned()]);
        }
        let fits = |package: &Package| {
            let inside = folder == package.dir && !name.ends_with("_test.go");
            // What fits a pattern is known only for what is there.
            let embedded =
                !package.embed_patterns.is_empty() && file.starts_with(&package.dir) && file.extension() != Some(OsStr::new("go"));
            inside || embedded
        };
        let imports = |path: &str| Some(self.packages.get(path)?.imports.as_slice());
        let way = way::shortest(&self.main, imports, |path| self.packages.get(path).is_some_and(fits))?;
        Some(way.into_iter().map(str::to_owned).collect())
    }

    pub(super) fn roots(&self) -> Vec<WatchRoot> {
        let outside = self.packages.values().map(|package| &package.dir).filter(|folder| !folder.starts_with(&self.module));
        std::iter::once(&self.module).chain(outside).map(WatchRoot::sources).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_count_by_what_the_binary_imports() {
        let package = |path: &str, imports: &[&str], embeds: bool, more: &str| {
            let text = format!(r#"{{"ImportPath": "{path}", "Dir": "/w/{path}"{more}}}"#);
            let package: Package = serde_json::from_str(&text).unwrap();
            let imports = imports.iter().map(|import| (*import).to_owned()).collect();
            Package { imports, embed_patterns: if embeds { vec!["pages".to_owned()] } else { vec![] }, ..package }
        };
        let packages = GoPackages::new(
            "/w".into(),
            vec![
                package("fmt", &[], false, r#", "Standard": true"#),
                package("far", &[], false, r#", "Module": {"Main": false}"#),
                package("kit", &[], false, r#", "Module": {"Main": false, "Replace": {}}"#),
                package("lib", &["kit", "far"], true, r#", "Module": {"Main": true}"#),
                package("cmd", &["lib", "fmt"], false, r#", "Module": {"Main": true}"#),
            ],
        );
        let via = |path: &str| packages.via(&Path::new("/w").join(path)).map(|via| via.join(" "));
        for (path, expected) in [
            ("cmd/main.go", Some("cmd")),
            ("lib/a.s", Some("lib cmd")),
            ("lib/pages/a.html", Some("lib cmd")),
            ("kit/a.go", Some("kit lib cmd")),
            ("kit/a_test.go", None),
            ("kit/pages/a.html", None),
            ("far/a.go", None),
            ("other/a.go", None),
            ("go.mod", Some("module")),
            ("kit/go.mod", Some("module")),
            ("other/go.mod", None),
        ] {
            assert_eq!(via(path).as_deref(), expected, "{path}");
        }
    }
}
