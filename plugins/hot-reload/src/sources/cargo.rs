//! Which files a cargo binary is made of.

use devloop_core::build::parse_dep_info;
use devloop_core::project::CargoBuild;
use devloop_core::watch::WatchRoot;
use devloop_core::{CommandError, ErrorContext, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// The local packages behind a binary, and single files that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CargoSources {
    /// Folders of local packages: the binary's own and path dependencies.
    packages: BTreeSet<PathBuf>,
    /// Manifests, lock file, cargo configuration.
    settings: BTreeSet<PathBuf>,
    /// What the compiler said that it read, outside of the packages' sources
    /// too (`include_str!`, build scripts).
    read: BTreeSet<PathBuf>,
}

/// Folders of a package that its binaries are not made of.
const OTHER_TARGETS: [&str; 3] = ["tests", "benches", "examples"];

impl CargoSources {
    /// Whether a change of `path` may change the binary.
    pub(super) fn contains(&self, path: &Path) -> bool {
        if self.settings.contains(path) || self.read.contains(path) {
            return true;
        }
        // The innermost package: one may lie in the folder of another.
        let Some(package) = path.ancestors().find(|folder| self.packages.contains(*folder)) else { return false };
        let relative = path.strip_prefix(package).unwrap_or(path);
        let first = relative.components().next().map(|component| component.as_os_str());
        let in_folder = |name: &str| first == Some(OsStr::new(name));
        if OTHER_TARGETS.iter().any(|name| in_folder(name)) {
            return false;
        }
        in_folder("src") || relative == Path::new("Cargo.toml") || relative.extension() == Some(OsStr::new("rs"))
    }

    /// Whether a change of `path` may change which files there are in the graph.
    pub(super) fn shapes(&self, path: &Path) -> bool {
        path.file_name() == Some(OsStr::new("Cargo.toml")) && self.contains(path)
    }

    /// What to watch.
    pub(super) fn roots(&self) -> Vec<WatchRoot> {
        self.packages.iter().chain(&self.settings).map(WatchRoot::sources).collect()
    }

    /// Adds what the compiler read, from the `.d` file beside a binary.
    pub(super) fn learn(&mut self, dep_info: &str) {
        self.read = parse_dep_info(dep_info);
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    /// Absent for a package on this machine.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// Asks cargo which local packages a binary is made of.
///
/// # Errors
/// When cargo can't be run or refuses the manifest.
pub(super) async fn of_build(root: &Path, build: &CargoBuild) -> Result<CargoSources> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--format-version", "1", "--color", "never"]);
    if let Some(manifest) = &build.manifest {
        command.arg("--manifest-path").arg(root.join(manifest));
    }
    let output = command
        .current_dir(root)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| CommandError::new("could not run cargo").caused_by(error).with_hint("check that `cargo --version` works"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(CommandError::new(format!("cargo can't read the packages of {}", root.display())).caused_by(reason));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo's metadata is not what was expected")?;
    from_metadata(&metadata, &build.package)
        .ok_or_else(|| CommandError::usage(format!("no package {:?} in {}", build.package, root.display())))
}

fn from_metadata(metadata: &Metadata, package: &str) -> Option<CargoSources> {
    let by_id: BTreeMap<&str, &Package> = metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let edges: BTreeMap<&str, &[String]> =
        metadata.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| (node.id.as_str(), node.dependencies.as_slice())).collect();
    let start = metadata.packages.iter().find(|candidate| candidate.name == package && candidate.source.is_none())?;
    let mut reached = BTreeSet::new();
    let mut next = vec![start.id.as_str()];
    while let Some(id) = next.pop() {
        if reached.insert(id) {
            next.extend(edges.get(id).into_iter().flat_map(|dependencies| dependencies.iter().map(String::as_str)));
        }
    }
    let local = reached.iter().filter_map(|id| by_id.get(id)).filter(|package| package.source.is_none());
    let packages = local.filter_map(|package| package.manifest_path.parent()).map(Path::to_owned).collect();
    let workspace = &metadata.workspace_root;
    let settings = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain"];
    Some(CargoSources { packages, settings: settings.iter().map(|name| workspace.join(name)).collect(), read: BTreeSet::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> CargoSources {
        let metadata: Metadata = serde_json::from_value(serde_json::json!({
            "workspace_root": "/w",
            "packages": [
                {"id": "web", "name": "web", "source": null, "manifest_path": "/w/web/Cargo.toml"},
                {"id": "kit", "name": "kit", "source": null, "manifest_path": "/w/kit/Cargo.toml"},
                {"id": "other", "name": "other", "source": null, "manifest_path": "/w/other/Cargo.toml"},
                {"id": "serde", "name": "serde", "source": "registry", "manifest_path": "/c/serde/Cargo.toml"},
            ],
            "resolve": {"nodes": [
                {"id": "web", "dependencies": ["serde", "kit"]},
                {"id": "kit", "dependencies": []},
                {"id": "other", "dependencies": ["kit"]},
                {"id": "serde", "dependencies": []},
            ]},
        }))
        .unwrap();
        assert_eq!(from_metadata(&metadata, "nothing"), None);
        from_metadata(&metadata, "web").unwrap()
    }

    #[test]
    fn sources_are_the_package_and_its_path_dependencies() {
        let sources = sources();
        for path in
            ["web/src/main.rs", "web/src/page.html", "web/build.rs", "kit/src/lib.rs", "kit/Cargo.toml", "Cargo.lock", ".cargo/config.toml"]
        {
            assert!(sources.contains(&Path::new("/w").join(path)), "{path}");
        }
        for path in ["web/static/a.css", "web/README.md", "web/tests/it.rs", "other/src/lib.rs", "../c/serde/src/lib.rs"] {
            assert!(!sources.contains(&Path::new("/w").join(path)), "{path}");
        }
        assert!(sources.shapes(Path::new("/w/kit/Cargo.toml")) && !sources.shapes(Path::new("/w/kit/src/lib.rs")));
    }

    #[test]
    fn the_compiler_tells_what_else_it_read() {
        let mut sources = sources();
        assert!(!sources.contains(Path::new("/w/web/my pages/a.html")));
        sources.learn("/w/target/web: /w/web/src/main.rs /w/web/my\\ pages/a.html\n\n/w/web/src/main.rs:\n");
        assert!(sources.contains(Path::new("/w/web/my pages/a.html")));
    }
}
