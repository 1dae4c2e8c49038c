//! Packages of a cargo workspace, and which of them a binary is made of.

use super::way;
use crate::error::{CommandError, ErrorContext, Result};
use crate::watch::WatchRoot;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The packages of a workspace and all that they depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Workspace {
    root: PathBuf,
    packages: BTreeMap<String, Package>,
}

#[derive(Clone, Debug)]
struct Package {
    name: String,
    /// Where a package of this machine is; none for one from a registry or git.
    folder: Option<PathBuf>,
    /// What it is built with, but not what only its tests are.
    dependencies: Vec<String>,
}

/// Folders of a package that its binaries are not made of.
const OTHER_TARGETS: [&str; 3] = ["tests", "benches", "examples"];

/// Asks cargo. It resolves the default features, as the builds do.
pub(super) async fn workspace(root: &Path, manifest: &Path) -> Result<Workspace> {
    let mut command = MetadataCommand::new();
    command.manifest_path(manifest).current_dir(root);
    let asked = tokio::task::spawn_blocking(move || command.exec()).await.context("cargo's metadata can't be read")?;
    let metadata = asked.map_err(|error| {
        let error = match error {
            cargo_metadata::Error::CargoMetadata { stderr } => CommandError::new(stderr.trim().trim_start_matches("error: ").to_owned()),
            other => CommandError::new(other.to_string()),
        };
        CommandError::new(format!("cargo can't read the packages of {}", manifest.display())).caused_by(error)
    })?;
    Ok(Workspace::from_metadata(&metadata))
}

impl Workspace {
    pub(super) fn from_metadata(metadata: &Metadata) -> Self {
        let mut packages: BTreeMap<String, Package> = metadata
            .packages
            .iter()
            .map(|package| {
                let folder = package.manifest_path.parent().filter(|_| package.source.is_none());
                let folder = folder.map(|folder| folder.as_std_path().to_owned());
                (package.id.repr.clone(), Package { name: package.name.to_string(), folder, dependencies: Vec::new() })
            })
            .collect();
        for node in metadata.resolve.iter().flat_map(|resolve| &resolve.nodes) {
            let built_with = node.deps.iter().filter(|dependency| {
                dependency.dep_kinds.is_empty() || dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development)
            });
            if let Some(package) = packages.get_mut(&node.id.repr) {
                package.dependencies = built_with.map(|dependency| dependency.pkg.repr.clone()).collect();
            }
        }
        Self { root: metadata.workspace_root.as_std_path().to_owned(), packages }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("Cargo.lock")
    }

    /// The package of this name on this machine.
    pub(super) fn package(&self, name: &str) -> Result<String> {
        let local = self.packages.iter().find(|(_, package)| package.name == name && package.folder.is_some());
        local.map(|(id, _)| id.clone()).ok_or_else(|| {
            let known: BTreeSet<&str> =
                self.packages.values().filter(|package| package.folder.is_some()).map(|package| package.name.as_str()).collect();
            CommandError::usage(format!("no package {name:?} in {}", self.root.display()))
                .with_hint(format!("packages in it: {}", known.into_iter().collect::<Vec<_>>().join(", ")))
        })
    }

    /// The packages from the one that a file belongs to, to the service's; nothing
    /// where the file doesn't count for it.
    pub(super) fn via(&self, service: &str, file: &Path) -> Option<Vec<String>> {
        // Versions, features, profiles and lints of all may come from there.
        if file == self.root.join("Cargo.toml") {
            let own = self.packages.get(service).map(|package| package.name.clone());
            return Some(["workspace".to_owned()].into_iter().chain(own).collect());
        }
        // The innermost package: one may lie in the folder of another.
        let owner = self.owner(file)?;
        let relative = file.strip_prefix(self.packages.get(owner)?.folder.as_ref()?).ok()?;
        let first = relative.components().next().map(|component| component.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
        // Editors' and tools' own files; cargo's are looked at elsewhere.
        if OTHER_TARGETS.contains(&first.as_str()) || first.starts_with('.') || first == "target" {
            return None;
        }
        self.path(service, |id, _| id == owner)
    }

    /// The same for packages of which only the names are known.
    pub(super) fn via_names(&self, service: &str, names: &BTreeSet<String>) -> Option<Vec<String>> {
        self.path(service, |_, package| names.contains(&package.name))
    }

    fn owner(&self, file: &Path) -> Option<&str> {
        let local = self.packages.iter().filter_map(|(id, package)| Some((id, package.folder.as_ref()?)));
        let around = local.filter(|(_, folder)| file.starts_with(folder));
        around.max_by_key(|(_, folder)| folder.components().count()).map(|(id, _)| id.as_str())
    }

    /// The shortest way from a package that fits to the service's.
    fn path(&self, service: &str, fits: impl Fn(&str, &Package) -> bool) -> Option<Vec<String>> {
        let dependencies = |id: &str| Some(self.packages.get(id)?.dependencies.as_slice());
        let way = way::shortest(service, dependencies, |id| self.packages.get(id).is_some_and(|package| fits(id, package)))?;
        Some(way.into_iter().filter_map(|id| self.packages.get(id).map(|package| package.name.clone())).collect())
    }

    pub(super) fn roots(&self) -> Vec<WatchRoot> {
        let folders = self.packages.values().filter_map(|package| package.folder.clone());
        let settings = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "rust-toolchain.toml"].map(|name| self.root.join(name));
        folders.chain(settings).map(WatchRoot::sources).collect()
    }
}

#[cfg(test)]
impl Workspace {
    /// Local packages in folders of their names below `root`, with their
    /// dependencies; names in capitals are of a registry.
    pub(super) fn made(root: &Path, packages: &[(&str, &[&str])]) -> Self {
        let packages = packages.iter().map(|(name, dependencies)| {
            let folder = name.starts_with(char::is_lowercase).then(|| root.join(name));
            let dependencies = dependencies.iter().map(|name| (*name).to_owned()).collect();
            ((*name).to_owned(), Package { name: (*name).to_owned(), folder, dependencies })
        });
        Self { root: root.to_owned(), packages: packages.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[tokio::test]
    async fn cargo_tells_what_is_built_with_what() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        write(&root, "Cargo.toml", "[workspace]\nresolver = \"2\"\nmembers = [\"*\"]\nexclude = [\"target\"]\n");
        for (name, more) in [
            (
                "app",
                "[features]\ndefault = [\"on\"]\non = [\"dep:used\"]\n[dependencies]\nused = { path = \"../used\", optional = true }\nunused = { path = \"../unused\", optional = true }\n[dev-dependencies]\ntested = { path = \"../tested\" }\n[build-dependencies]\nmaker = { path = \"../maker\" }\n",
            ),
            ("used", ""),
            ("unused", ""),
            ("tested", ""),
            ("maker", ""),
        ] {
            write(
                &root,
                &format!("{name}/Cargo.toml"),
                &format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}"),
            );
            write(&root, &format!("{name}/src/lib.rs"), "");
        }
        let workspace = workspace(&root, &root.join("Cargo.toml")).await.unwrap();
        let app = workspace.package("app").unwrap();
        let via = |path: &str| workspace.via(&app, &root.join(path)).map(|via| via.join(" "));
        assert_eq!(via("used/src/lib.rs").as_deref(), Some("used app"));
        assert_eq!(via("maker/src/lib.rs").as_deref(), Some("maker app"));
        assert_eq!(via("tested/src/lib.rs"), None);
        assert_eq!(via("unused/src/lib.rs"), None);
        assert_eq!(workspace.package("nothing").unwrap_err().hints(), ["packages in it: app, maker, tested, unused, used"]);
        let error = super::workspace(&root, &root.join("none/Cargo.toml")).await.unwrap_err();
        assert!(error.to_string().starts_with("cargo can't read the packages of"), "{error}");
    }
}
