//! `devloop.yaml`: what devloop needs to know about a project's services.
//!
//! The file is found from any folder below it; every path in it is relative to
//! the folder that holds it and stays inside. Mistakes are reported with file,
//! line and column.

mod base;
mod builder;
mod dependencies;
mod deploy;
mod dockerfile;
mod document;
mod image;
mod parse;
mod sync;

pub use base::Base;
pub use builder::Builder;
pub(crate) use dependencies::{NODE_LOCKS, PYPROJECT, PYTHON_LOCKS, UV_LOCK};
pub use dependencies::{NodeBuild, PythonBuild};
pub use deploy::{DeploySpec, HelmSpec, ImageField, ImageStep};
pub use dockerfile::{DockerfileBuild, Secret, SecretSource, Value};
pub use image::{FileMapping, ImageSpec};
pub use sync::{HttpCall, ReloadAction, ReloadRule, RestartBy, RestartSpec, SyncRule};

use document::parse;
use parse::{inside_paths, optional_image_path, optional_inside_path, service_name};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The file's name.
pub const FILE_NAME: &str = "devloop.yaml";
/// The only version of the format so far.
pub const API_VERSION: &str = "devloop/v1";
/// The format as a JSON schema, for editors. It says what [`load`] reads; what
/// depends on several fields at once is left to that.
pub const SCHEMA: &str = include_str!("../schema/devloop.schema.json");
/// Where [`SCHEMA`] is published.
pub const SCHEMA_URL: &str = "https://raw.githubusercontent.com/devloop-dev/devloop/main/plugins/core/schema/devloop.schema.json";

/// A project file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectFile {
    /// The file itself, absolute.
    pub path: PathBuf,
    /// The folder that holds it, absolute: what its paths are relative to.
    pub root: PathBuf,
    /// In the file's order; at least one.
    pub services: Vec<Service>,
}

/// Something that is built, put in an image and deployed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name on the command line, unique in the file.
    #[serde(deserialize_with = "service_name")]
    pub name: String,
    /// How its binary, or a folder of its files, is made; absent where what
    /// runs is the sources themselves.
    #[serde(default)]
    pub build: Option<Build>,
    /// What its image holds; absent where somebody else makes the image.
    #[serde(default)]
    pub image: Option<ImageSpec>,
    /// Where the built binary is in the container; the image's when absent.
    #[serde(default, deserialize_with = "optional_image_path")]
    pub binary: Option<String>,
    /// Files that are kept the same in the running containers, beside those of
    /// the image.
    #[serde(default)]
    pub sync: Vec<SyncRule>,
    /// What makes the app take note of changed files: the first rule that fits.
    #[serde(default)]
    pub reload: Vec<ReloadRule>,
    /// How the app is started again where that is asked for.
    #[serde(default)]
    pub restart: RestartSpec,
    /// How it gets into a cluster.
    pub deploy: DeploySpec,
}

impl Service {
    /// Where the built binary is in the container, if the build makes one.
    pub fn binary(&self) -> Option<&str> {
        self.binary.as_deref().or_else(|| self.image.as_ref()?.binary.as_deref())
    }

    /// All files that the running containers are to have: the image's, then
    /// those of the sync rules, which win. What a sync rule names, too, goes where
    /// that says: the image's place may be one that can't be written.
    pub fn synced(&self) -> Vec<SyncRule> {
        let is_named = |from: &Path| self.sync.iter().any(|rule| rule.from == from);
        let of_image = self.image.iter().flat_map(|image| &image.files).filter(|mapping| !is_named(&mapping.from));
        of_image.map(|mapping| SyncRule::from(mapping.clone())).chain(self.sync.iter().cloned()).collect()
    }

    /// What single fields can't tell.
    fn check(&self) -> Result<(), String> {
        if let Some(Build::Dockerfile(_)) = &self.build {
            return dockerfile::check(&self.name, self.image.as_ref(), self.binary());
        }
        match (&self.build, self.binary()) {
            (Some(Build::Cargo(_) | Build::Go(_)), None) => Err(format!(
                "service {:?} is built, and it is not said where its binary is in the container; add `binary: /path`",
                self.name
            )),
            (None, Some(path)) if self.image.is_none() => {
                Err(format!("service {:?} has the binary {path} and no build that makes it", self.name))
            }
            (Some(Build::Command(build)), Some(path)) if build.output.is_none() => Err(format!(
                "service {:?} has the binary {path}, and it is not said what its build makes; add `output: FILE` to build.command",
                self.name
            )),
            (Some(Build::Command(CommandBuild { output: Some(output), .. })), None) => Err(format!(
                "the build of service {:?} makes {}, and it is not said where that is in the container; add `binary: /path`",
                self.name,
                output.display()
            )),
            (Some(Build::Node(_) | Build::Python(_)), Some(path)) => {
                Err(format!("service {:?} has the binary {path}, and its build makes none, but installs what its sources need", self.name))
            }
            _ => Ok(()),
        }
    }
}

/// How a service's binary is made, or what its sources need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Build {
    /// By cargo.
    Cargo(CargoBuild),
    /// By the go command.
    Go(GoBuild),
    /// By npm, pnpm or yarn: what the sources need.
    Node(NodeBuild),
    /// By uv or pip: what the sources need.
    Python(PythonBuild),
    /// By any program.
    Command(CommandBuild),
    /// Of a Dockerfile, which makes the whole image.
    Dockerfile(DockerfileBuild),
}

impl Build {
    /// Whether something is made of the sources; if not, they run as they are.
    pub fn makes_something(&self) -> bool {
        !matches!(self, Self::Node(_) | Self::Python(_))
    }
}

/// A main package of a Go module.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoBuild {
    /// The package, as `go build` takes it, relative to the folder: `./cmd/web`.
    #[serde(default = "this_folder")]
    pub package: String,
    /// The folder of the module, relative to the root; the root when absent.
    #[serde(default, deserialize_with = "optional_inside_path")]
    pub folder: Option<PathBuf>,
    /// More arguments of `go build`, such as `-tags=dev`.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// Any program that makes a binary, or files in a folder that is synced.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandBuild {
    /// The program and its arguments; no shell is involved.
    #[serde(deserialize_with = "parse::command")]
    pub run: Vec<String>,
    /// Files and folders whose changes ask for it, relative to the root.
    #[serde(deserialize_with = "inside_paths")]
    pub watch: Vec<PathBuf>,
    /// Where it runs, relative to the root; the root when absent.
    #[serde(default, deserialize_with = "optional_inside_path")]
    pub folder: Option<PathBuf>,
    /// The binary that it makes, relative to the root; absent when it makes
    /// files that a sync rule covers.
    #[serde(default, deserialize_with = "optional_inside_path")]
    pub output: Option<PathBuf>,
}

fn this_folder() -> String {
    ".".to_owned()
}

/// A binary target of a cargo package.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CargoBuild {
    /// The package's name (`cargo build --package`).
    pub package: String,
    /// The binary target's name (`cargo build --bin`).
    pub binary: String,
    /// The profile (`cargo build --profile`); cargo's `dev` when absent.
    #[serde(default)]
    pub profile: Option<String>,
    /// Path of the Cargo.toml, relative to the root; the root's when absent.
    #[serde(default, deserialize_with = "optional_inside_path")]
    pub manifest: Option<PathBuf>,
}

/// Why there is no usable project file.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// Neither the folder nor one above it has a file.
    #[error("no {FILE_NAME} in {} or a folder above it", start.display())]
    NotFound {
        /// Where the search began.
        start: PathBuf,
    },
    /// The file system said no.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The content is not what it should be.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A service that the file doesn't have was asked for.
    #[error("no service {name:?} in {}", path.display())]
    UnknownService {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
}

impl ProjectError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some(format!("write a {FILE_NAME} in the project's root, or name one with -f FILE")),
            Self::UnknownService { known, .. } => Some(format!("services in it: {}", known.join(", "))),
            Self::Read { .. } | Self::Invalid { .. } => None,
        }
    }
}

impl From<ProjectError> for crate::CommandError {
    fn from(error: ProjectError) -> Self {
        let hint = error.hint();
        let message = error.to_string();
        let command = match error {
            ProjectError::Read { source, .. } => Self::usage(message).caused_by(source),
            _ => Self::usage(message),
        };
        match hint {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}

/// Reads the project file: `explicit`, else the `devloop.yaml` of `start` or of
/// the nearest folder above it that has one.
///
/// # Errors
/// [`ProjectError`], as a request that can't be carried out (exit code 2).
pub fn load(explicit: Option<&Path>, start: &Path) -> crate::Result<ProjectFile> {
    Ok(find_and_read(explicit, start)?)
}

/// The same, or `None` where none was named and none is found.
///
/// # Errors
/// As [`load`], but for there being none.
pub fn load_if_any(explicit: Option<&Path>, start: &Path) -> crate::Result<Option<ProjectFile>> {
    match find_and_read(explicit, start) {
        Ok(project) => Ok(Some(project)),
        Err(ProjectError::NotFound { .. }) if explicit.is_none() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A project that a text describes, as a `devloop.yaml` in `root` would.
///
/// # Errors
/// As [`load`].
pub fn from_text(root: &Path, text: &str) -> crate::Result<ProjectFile> {
    let path = root.join(FILE_NAME);
    let services = parse(&path, text)?;
    let root = root.canonicalize().map_err(|source| ProjectError::Read { path: root.to_owned(), source })?;
    Ok(ProjectFile { path, root, services })
}

fn find_and_read(explicit: Option<&Path>, start: &Path) -> Result<ProjectFile, ProjectError> {
    let named = match explicit {
        Some(path) => start.join(path),
        None => start
            .ancestors()
            .map(|folder| folder.join(FILE_NAME))
            .find(|candidate| candidate.is_file())
            .ok_or_else(|| ProjectError::NotFound { start: start.to_owned() })?,
    };
    let path = std::path::absolute(&named).map_err(|source| ProjectError::Read { path: named.clone(), source })?;
    let text = std::fs::read_to_string(&path).map_err(|source| ProjectError::Read { path: path.clone(), source })?;
    let services = parse(&path, &text)?;
    let root = path.parent().unwrap_or(Path::new("/")).to_owned();
    // What is watched and what cargo reports have symbolic links resolved.
    let root = root.canonicalize().map_err(|source| ProjectError::Read { path: root.clone(), source })?;
    Ok(ProjectFile { path, root, services })
}

/// The services in the text of a project file.
///
/// # Errors
/// [`ProjectError::Invalid`], with the line in the text.
pub fn parse_text(text: &str) -> Result<Vec<Service>, ProjectError> {
    parse(Path::new(FILE_NAME), text)
}

impl ProjectFile {
    /// The services of these names, in the order asked for, each once; all for
    /// no name.
    ///
    /// # Errors
    /// [`ProjectError::UnknownService`], with a hint that lists the known ones.
    pub fn select(&self, names: &[String]) -> crate::Result<Vec<&Service>> {
        if names.is_empty() {
            return Ok(self.services.iter().collect());
        }
        let mut selected: Vec<&Service> = Vec::new();
        for name in names {
            let service = self.services.iter().find(|service| service.name == *name).ok_or_else(|| ProjectError::UnknownService {
                path: self.path.clone(),
                name: name.clone(),
                known: self.services.iter().map(|service| service.name.clone()).collect(),
            })?;
            if !selected.iter().any(|other| other.name == service.name) {
                selected.push(service);
            }
        }
        Ok(selected)
    }
}

#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod schema_tests;

#[cfg(test)]
mod tests {
    use super::parse::normalize_inside;
    use super::*;
    use crate::target::{Kind, Target};
    use std::collections::BTreeMap;
    use std::path::Component;

    const SHOP: &str = r#"apiVersion: devloop/v1
services:
  - name: shop
    build: { cargo: { package: shop, binary: shop } }
    image:
      name: shop
      base: scratch
      user: "65532:65532"
      entrypoint: ["/app/shop"]
      binary: /app/shop
      files: [ { from: ./static/, to: /srv/static/ } ]
      ports: [8080]
    deploy: { manifests: [k8s], target: deploy/shop, container: shop }
"#;

    fn fail(text: &str) -> String {
        parse(Path::new("devloop.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_project_is_read_and_its_paths_are_made_plain() {
        let services = parse(Path::new("devloop.yaml"), SHOP).unwrap();
        let shop = &services[0];
        assert_eq!(shop.image.as_ref().unwrap().files, [FileMapping { from: "static".into(), to: "/srv/static".into() }]);
        assert_eq!(shop.deploy.target, Target::Object { kind: Kind::Deployment, name: "shop".into() });
        let Some(Build::Cargo(cargo)) = &shop.build else { panic!("{shop:?}") };
        assert_eq!((cargo.package.as_str(), cargo.profile.as_deref()), ("shop", None));
        assert_eq!(shop.image.as_ref().unwrap().env, BTreeMap::new());
    }

    #[test]
    fn mistakes_name_line_and_column() {
        insta::assert_snapshot!(fail(&SHOP.replace("base: scratch", "base: Debian:12")), @r#"devloop.yaml:7:13: services[0].image.base: "Debian:12" is not the name of an image: "Debian" is not a part of a name: lower-case letters, digits, and . _ - between them"#);
        insta::assert_snapshot!(fail(&SHOP.replace("./static/", "../static")), @r#"devloop.yaml:11:24: services[0].image.files[0].from: path "../static" leads outside the folder of devloop.yaml"#);
        insta::assert_snapshot!(fail(&SHOP.replace("ports: [8080]", "ports: [80800]")), @"devloop.yaml:12:15: services[0].image.ports[0]: invalid value: integer `80800`, expected u16");
        insta::assert_snapshot!(fail(&SHOP.replace("container:", "contianer:")), @"devloop.yaml:13:54: services[0].deploy: unknown field `contianer`, expected one of `manifests`, `helm`, `images`, `target`, `container`");
        insta::assert_snapshot!(fail(&SHOP.replace("devloop/v1", "devloop/v2")), @r#"devloop.yaml:1:13: apiVersion: version "devloop/v2" is not known; known: devloop/v1"#);
        insta::assert_snapshot!(fail(&SHOP.replace("binary: /app/shop", "binary: app/shop")), @r#"devloop.yaml:10:15: services[0].image.binary: "app/shop" is not an absolute path in the image"#);
        insta::assert_snapshot!(fail(&SHOP.replace("deploy/shop", "node/shop")), @r#"devloop.yaml:13:41: services[0].deploy.target: unknown kind "node" in target; known: pod, deploy, sts, ds, rs, job, svc"#);
        insta::assert_snapshot!(fail("apiVersion: devloop/v1\nservices: ["), @"devloop.yaml:3:1: did not find expected node content");
        insta::assert_snapshot!(fail(&format!("{SHOP}{}", SHOP.split_once("services:\n").unwrap().1)), @r#"devloop.yaml:14:5: services[1]: two services are named "shop""#);
    }

    #[test]
    fn the_nearest_file_above_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("src/routes");
        std::fs::create_dir_all(&deep).unwrap();
        assert!(matches!(find_and_read(None, &deep), Err(ProjectError::NotFound { .. })));
        std::fs::write(folder.path().join(FILE_NAME), SHOP).unwrap();
        let project = find_and_read(None, &deep).unwrap();
        assert_eq!(project.root, folder.path().canonicalize().unwrap());
        assert_eq!(find_and_read(Some(Path::new("../../devloop.yaml")), &deep).unwrap().root, project.root);
        assert!(matches!(find_and_read(Some(Path::new("none.yaml")), &deep), Err(ProjectError::Read { .. })));
    }

    #[test]
    fn services_are_selected_by_name() {
        let project = ProjectFile { path: "devloop.yaml".into(), root: "/".into(), services: parse(Path::new("x"), SHOP).unwrap() };
        assert_eq!(project.select(&[]).unwrap().len(), 1);
        assert_eq!(project.select(&["shop".into(), "shop".into()]).unwrap().len(), 1);
        let error = project.select(&["web".into()]).unwrap_err();
        assert_eq!(error.status().code(), 2);
        assert_eq!(error.hints(), ["services in it: shop"]);
    }

    proptest::proptest! {
        #[test]
        fn a_normalized_path_never_leads_outside(text in "[a./]{0,12}") {
            if let Ok(path) = normalize_inside(Path::new(&text)) {
                proptest::prop_assert!(path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)));
            }
        }
    }
}
