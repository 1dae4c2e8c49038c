//! Builds that install what a program needs, as its lock file has it.

use super::parse::{image_path, inside_paths, optional_inside_path};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Packages of npm, pnpm or yarn, as the lock file has them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeBuild {
    /// The folder of the `package.json`, relative to the root; the root when
    /// absent.
    #[serde(default, deserialize_with = "optional_inside_path")]
    pub folder: Option<PathBuf>,
    /// Where the `node_modules` go in the image.
    #[serde(default = "node_modules", deserialize_with = "image_path")]
    pub to: String,
    /// Other files that installing reads, relative to the folder.
    #[serde(default, deserialize_with = "inside_paths")]
    pub include: Vec<PathBuf>,
}

/// Packages of Python, as uv's lock file or a file of requirements has them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonBuild {
    /// The folder of the requirements, relative to the root; the root when absent.
    #[serde(default, deserialize_with = "optional_inside_path")]
    pub folder: Option<PathBuf>,
    /// The file that names the packages, relative to the folder: `uv.lock`, a
    /// `pyproject.toml` or one of requirements. When absent, the first of
    /// `uv.lock`, `requirements.txt` and `pyproject.toml` that is there.
    #[serde(default, deserialize_with = "optional_inside_path")]
    pub requirements: Option<PathBuf>,
    /// Where the packages go in the image; `PYTHONPATH` leads there.
    #[serde(default = "site_packages", deserialize_with = "image_path")]
    pub to: String,
    /// Other files that installing reads, relative to the folder.
    #[serde(default, deserialize_with = "inside_paths")]
    pub include: Vec<PathBuf>,
}

/// What says which packages are installed, of npm, pnpm and yarn: the first that is
/// there counts.
pub(crate) const NODE_LOCKS: [&str; 4] = ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock"];
/// What else they go by, where it is there.
pub(crate) const NODE_SETTINGS: [&str; 4] = ["package.json", ".npmrc", "pnpm-workspace.yaml", ".yarnrc.yml"];

/// What says which packages of Python are installed: the first that is there counts.
pub(crate) const PYTHON_LOCKS: [&str; 3] = [UV_LOCK, "requirements.txt", PYPROJECT];
pub(crate) const UV_LOCK: &str = "uv.lock";
pub(crate) const PYPROJECT: &str = "pyproject.toml";
/// What uv goes by as well, where it is there.
const UV_SETTINGS: &str = "uv.toml";

impl NodeBuild {
    /// The files that decide what is installed, as far as they may be there;
    /// relative to the root.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let names = NODE_LOCKS.iter().chain(&NODE_SETTINGS).map(Path::new).chain(self.include.iter().map(PathBuf::as_path));
        in_folder(self.folder.as_deref(), names)
    }
}

impl PythonBuild {
    /// The files that decide what is installed, as far as they may be there;
    /// relative to the root.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> = match &self.requirements {
            // uv's lock file stands beside the project's description.
            Some(named) if named.ends_with(UV_LOCK) => {
                vec![named.clone(), named.with_file_name(PYPROJECT), named.with_file_name(UV_SETTINGS)]
            }
            Some(named) => vec![named.clone()],
            None => PYTHON_LOCKS.iter().chain([&UV_SETTINGS]).map(PathBuf::from).collect(),
        };
        names.extend(self.include.iter().cloned());
        in_folder(self.folder.as_deref(), names.iter().map(PathBuf::as_path))
    }
}

fn in_folder<'a>(folder: Option<&Path>, names: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    names.map(|name| folder.map_or_else(|| name.to_owned(), |folder| folder.join(name))).collect()
}

fn node_modules() -> String {
    "/app/node_modules".to_owned()
}

fn site_packages() -> String {
    "/app/site-packages".to_owned()
}
