//! Which services a change of files is about, and why: by the packages of cargo
//! and Go that a binary is made of, and by the paths that a project file names.
//!
//! [`Inputs::of`] asks the tools; [`Inputs::affected`] decides, without IO. In
//! doubt a service is affected: a needless build is cheap, a missed one is wrong.

mod cargo;
mod dockerfile;
mod git;
mod go;
mod kustomize;
mod lock;
mod way;

pub use git::{Changes, changed_since};

use crate::deploy::kustomization_folder;
use crate::error::Result;
use crate::project::{Base, Build, ProjectFile, Service};
use crate::watch::WatchRoot;
use cargo::Workspace;
use dockerfile::Dockerfile;
use go::GoPackages;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A service that has to be built or deployed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// Its name.
    pub service: String,
    /// One for each changed file that counts, in the order of their names.
    pub reasons: Vec<Reason>,
}

/// What a changed file has to do with a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The file, relative to the project's root where it is below it.
    pub file: PathBuf,
    /// The packages from the one that changed to the service's own; or what the
    /// file is to the service: `manifest`, `image`, `sync`, ...
    pub via: Vec<String>,
}

/// What there was before a change, where it takes a look at the content to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Texts of `Cargo.lock` files by path; those that are missing here were not
    /// there, or are not known.
    pub locks: BTreeMap<PathBuf, String>,
    /// The project file's services, if they could be read.
    pub services: Option<Vec<Service>>,
}

/// What services are made of.
#[derive(Clone, Debug)]
pub struct Inputs {
    root: PathBuf,
    /// The project file.
    file: PathBuf,
    services: Vec<ServiceInputs>,
    workspaces: Vec<Workspace>,
    /// Texts of `Cargo.lock` files as they are.
    locks: BTreeMap<PathBuf, String>,
}

#[derive(Clone, Debug)]
struct ServiceInputs {
    service: Service,
    code: Code,
    /// Paths that count with all below them, and what they are to the service.
    listed: Vec<(PathBuf, &'static str)>,
}

#[derive(Clone, Debug)]
enum Code {
    /// A package of one of the workspaces.
    Cargo {
        workspace: usize,
        package: String,
    },
    Go(GoPackages),
    /// A Dockerfile, and the context that it may copy.
    Dockerfile(Box<Dockerfile>),
    /// Nothing that a tool could tell more about.
    Listed,
}

impl Inputs {
    /// Asks cargo and go what the services of a project are made of.
    ///
    /// # Errors
    /// When one of them can't be run or refuses.
    pub async fn of(project: &ProjectFile, services: &[&Service]) -> Result<Self> {
        let root = &project.root;
        let mut workspaces: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let mut inputs =
            Self { root: root.clone(), file: project.path.clone(), services: Vec::new(), workspaces: Vec::new(), locks: BTreeMap::new() };
        for service in services {
            let code = match &service.build {
                Some(Build::Cargo(build)) => {
                    let manifest = root.join(build.manifest.as_deref().unwrap_or(Path::new("Cargo.toml")));
                    let workspace = match workspaces.get(&manifest) {
                        Some(workspace) => *workspace,
                        None => {
                            inputs.workspaces.push(cargo::workspace(root, &manifest).await?);
                            workspaces.insert(manifest, inputs.workspaces.len() - 1);
                            inputs.workspaces.len() - 1
                        }
                    };
                    let package = inputs.workspaces[workspace].package(&build.package)?;
                    Code::Cargo { workspace, package }
                }
                Some(Build::Go(build)) => Code::Go(go::packages(root, build).await?),
                Some(Build::Dockerfile(build)) => Code::Dockerfile(Box::new(Dockerfile::of(root, build))),
                Some(_) | None => Code::Listed,
            };
            inputs.services.push(ServiceInputs { listed: listed(root, service), service: (*service).clone(), code });
        }
        for workspace in &inputs.workspaces {
            let path = workspace.lock();
            if let Ok(text) = std::fs::read_to_string(&path) {
                inputs.locks.insert(path, text);
            }
        }
        Ok(inputs)
    }

    /// The `Cargo.lock` files, whose former texts say which packages changed.
    pub fn locks(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.workspaces.iter().map(Workspace::lock)
    }

    /// The services that changes of these files are about, in the project's order.
    /// Paths are absolute; one may be a folder whose content is not known. Pure.
    pub fn affected(&self, changed: &[PathBuf], before: &Before) -> Vec<Affected> {
        let files: BTreeSet<&PathBuf> = changed.iter().collect();
        let affected = self.services.iter().map(|inputs| {
            let reasons = files.iter().filter_map(|file| {
                let via = self.via(inputs, file, before)?;
                Some(Reason { file: file.strip_prefix(&self.root).unwrap_or(file).to_owned(), via })
            });
            Affected { service: inputs.service.name.clone(), reasons: reasons.collect() }
        });
        affected.filter(|affected| !affected.reasons.is_empty()).collect()
    }

    fn via(&self, inputs: &ServiceInputs, file: &Path, before: &Before) -> Option<Vec<String>> {
        if file == self.file {
            let same = before.services.as_ref().is_some_and(|services| services.contains(&inputs.service));
            return (!same).then(|| vec!["project file".to_owned()]);
        }
        // A submodule or another repository is told of as a folder.
        let listed = inputs.listed.iter().find(|(path, _)| file.starts_with(path) || path.starts_with(file));
        if let Some((_, what)) = listed {
            return Some(vec![(*what).to_owned()]);
        }
        match &inputs.code {
            Code::Listed => None,
            Code::Go(packages) => packages.via(file),
            Code::Dockerfile(dockerfile) => dockerfile.via(file),
            Code::Cargo { workspace, package } => {
                let workspace = &self.workspaces[*workspace];
                if is_setting_of_rust(file, &[&self.root, workspace.root()]) {
                    return Some(vec!["toolchain".to_owned()]);
                }
                if file == workspace.lock() {
                    let (now, then) = (self.locks.get(file)?, before.locks.get(file));
                    // One that was not there, or is not known, may mean anything.
                    let Some(then) = then else { return Some(vec!["lock file".to_owned()]) };
                    return workspace.via_names(package, &lock::changed(then, now));
                }
                // What belongs to a service alone is no source, wherever it lies.
                let of_others = || self.services.iter().flat_map(|other| &other.listed).any(|(path, _)| file.starts_with(path));
                workspace.via(package, file).filter(|_| !of_others())
            }
        }
    }

    /// What to watch.
    pub fn roots(&self) -> Vec<WatchRoot> {
        let mut roots: BTreeMap<PathBuf, WatchRoot> = BTreeMap::new();
        let mut add = |root: WatchRoot| {
            roots.entry(root.path.clone()).or_insert(root);
        };
        add(WatchRoot::sources(&self.file));
        for inputs in &self.services {
            for (path, what) in &inputs.listed {
                add(if *what == "image" || *what == "sync" { WatchRoot::content(path) } else { WatchRoot::sources(path) });
            }
            if let Code::Go(packages) = &inputs.code {
                packages.roots().into_iter().for_each(&mut add);
            }
            if let Code::Dockerfile(dockerfile) = &inputs.code {
                dockerfile.roots().into_iter().for_each(&mut add);
            }
        }
        self.workspaces.iter().flat_map(Workspace::roots).for_each(add);
        roots.into_values().collect()
    }

    fn decides_about_context(&self, path: &Path) -> bool {
        self.services.iter().any(|inputs| matches!(&inputs.code, Code::Dockerfile(dockerfile) if dockerfile.decides(path)))
    }

    /// Whether a change of these files may change what the services are made of.
    pub fn shapes(&self, changed: &[PathBuf]) -> Shapes {
        const SHAPING: [&str; 7] =
            ["Cargo.toml", "Cargo.lock", "go.mod", "go.work", "kustomization.yaml", "kustomization.yml", "Kustomization"];
        let shapes = changed.iter().map(|path| {
            if *path == self.file || path.file_name().is_some_and(|name| SHAPING.iter().any(|known| name == *known)) {
                Shapes::Folders
            } else if path.extension().is_some_and(|extension| extension == "go") || self.decides_about_context(path) {
                Shapes::Packages
            } else {
                Shapes::Nothing
            }
        });
        shapes.max().unwrap_or(Shapes::Nothing)
    }
}

/// What a change may change about what services are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shapes {
    /// Nothing.
    Nothing,
    /// Which packages of a module: an import may be new.
    Packages,
    /// Which folders there are to watch.
    Folders,
}

/// `rust-toolchain.toml` and `.cargo/config.toml` count for all folders below.
fn is_setting_of_rust(file: &Path, folders: &[&Path]) -> bool {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return false };
    let Some(folder) = file.parent() else { return false };
    let base = match name {
        "rust-toolchain" | "rust-toolchain.toml" => folder,
        "config" | "config.toml" if folder.ends_with(".cargo") => folder.parent().unwrap_or(folder),
        _ => return false,
    };
    folders.iter().any(|below| below.starts_with(base))
}

/// The paths that the project file names for a service, with what links lead to.
fn listed(root: &Path, service: &Service) -> Vec<(PathBuf, &'static str)> {
    let mut listed: Vec<(PathBuf, &'static str)> = Vec::new();
    let mut add = |path: &Path, what: &'static str| {
        let path: PathBuf = root.join(path).components().collect();
        if let Ok(target) = path.canonicalize()
            && target != path
        {
            listed.push((target, what));
        }
        listed.push((path, what));
    };
    match &service.build {
        Some(Build::Command(build)) => build.watch.iter().for_each(|path| add(path, "build")),
        Some(Build::Node(build)) => build.inputs().iter().for_each(|path| add(path, "dependencies")),
        Some(Build::Python(build)) => build.inputs().iter().for_each(|path| add(path, "dependencies")),
        Some(Build::Cargo(_) | Build::Go(_) | Build::Dockerfile(_)) | None => {}
    }
    if let Some(image) = &service.image {
        image.files.iter().for_each(|mapping| add(&mapping.from, "image"));
        if let Base::File(path) = &image.base {
            add(path, "base");
        }
    }
    service.sync.iter().for_each(|rule| add(&rule.from, "sync"));
    for path in &service.deploy.manifests {
        match kustomization_folder(&root.join(path)) {
            Some(folder) => kustomize::inputs(&folder).iter().for_each(|path| add(path, "manifest")),
            None => add(path, "manifest"),
        }
    }
    if let Some(helm) = &service.deploy.helm {
        helm.values.iter().for_each(|path| add(path, "helm"));
        if root.join(&helm.chart).exists() {
            add(Path::new(&helm.chart), "helm");
        }
    }
    listed
}

#[cfg(test)]
mod tests;
