//! Where devloop keeps what, and the records of the environments it made.
//!
//! `kubectl devenv` writes the records; the other plugins read them to find the
//! node of the cluster that a kubeconfig context leads to.

use crate::error::{CommandError, ErrorContext, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The prefix of the kubeconfig contexts that devloop makes.
pub const CONTEXT_PREFIX: &str = "devloop-";

/// Finds a program on PATH.
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// devloop's folders, by the XDG base directory specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Kept between runs, one folder an environment under `environments/`.
    pub state: PathBuf,
    /// May be deleted at any time; made again when needed.
    pub cache: PathBuf,
}

impl Directories {
    /// From `XDG_STATE_HOME`, `XDG_CACHE_HOME` and `HOME`.
    ///
    /// # Errors
    /// When neither the XDG variable nor `HOME` is an absolute path.
    pub fn from_env() -> Result<Self> {
        Self::resolve(|name| std::env::var_os(name).map(PathBuf::from))
    }

    fn resolve(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        let base = |name: &str, fallback: &str| {
            // The specification: a relative path is to be ignored.
            let explicit = variable(name).filter(|path| path.is_absolute());
            explicit
                .or_else(|| variable("HOME").filter(|home| home.is_absolute()).map(|home| home.join(fallback)))
                .map(|path| path.join("devloop"))
                .ok_or_else(|| CommandError::new(format!("neither {name} nor HOME is set to an absolute path")))
        };
        Ok(Self { state: base("XDG_STATE_HOME", ".local/state")?, cache: base("XDG_CACHE_HOME", ".cache")? })
    }

    /// The folder of the environment `name`.
    pub fn environment(&self, name: &str) -> EnvironmentDirectory {
        EnvironmentDirectory { root: self.state.join("environments").join(name) }
    }

    /// The names of all environments that have a record, sorted.
    ///
    /// # Errors
    /// When the folder of environments can't be read.
    pub fn environment_names(&self) -> Result<Vec<String>> {
        let folder = self.state.join("environments");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("could not read {}", folder.display())),
        };
        let mut names: Vec<String> =
            entries.flatten().filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

/// The files of one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentDirectory {
    root: PathBuf,
}

impl EnvironmentDirectory {
    /// The environment whose folder this is.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder that holds everything of this environment.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the environment is: written once, when it is created.
    pub fn record_path(&self) -> PathBuf {
        self.root.join("environment.json")
    }

    /// What its processes are doing: written by the supervisor.
    pub fn status_path(&self) -> PathBuf {
        self.root.join("status.json")
    }

    /// The components' log files.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Reads the record; `None` when there is no such environment.
    ///
    /// # Errors
    /// When the record can't be read or is not one.
    pub fn record(&self) -> Result<Option<EnvironmentRecord>> {
        Ok(read_json(&self.record_path())?.map(EnvironmentRecord::completed))
    }

    /// Writes the record; the folder is there.
    ///
    /// # Errors
    /// When it can't be written; the old one is kept then.
    pub fn write_record(&self, record: &EnvironmentRecord) -> Result<()> {
        let path = self.record_path();
        let text = serde_json::to_vec_pretty(record).context("could not write the record")?;
        files::write_atomic(&path, &text, 0o600).with_context(|| format!("could not write {}", path.display()))
    }

    /// Reads the status; `None` when the supervisor never ran.
    ///
    /// # Errors
    /// When the status can't be read or is not one.
    pub fn status(&self) -> Result<Option<EnvironmentStatus>> {
        read_json(&self.status_path())
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let Some(content) = files::read_optional(path).with_context(|| format!("could not read {}", path.display()))? else {
        return Ok(None);
    };
    serde_json::from_slice(&content).map(Some).with_context(|| format!("{} is damaged", path.display()))
}

/// What an environment is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentRecord {
    /// Its name, as given to `--name`.
    pub name: String,
    /// Its engine: `embedded`, `kind` or `context`.
    pub provider: String,
    /// Its kubeconfig context.
    pub context: String,
    /// URL of the Kubernetes API; empty while it isn't known yet.
    #[serde(default)]
    pub server: String,
    /// RFC 3339.
    pub created: String,
    /// The kubeconfig context that was current before; current again after
    /// `down`.
    pub previous_context: Option<String>,
    /// Loopback port of the local image registry, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_port: Option<u16>,
    /// Where an embedded environment is on this machine; nothing for others.
    #[serde(flatten)]
    pub embedded: Option<EmbeddedPlace>,
    /// How a kind cluster came to be an environment; nothing for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<KindOrigin>,
}

/// Where an embedded environment is on this machine.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EmbeddedPlace {
    /// Loopback port of the Kubernetes API.
    pub api_port: u16,
    /// Chooses its addresses; unique among the environments of a host.
    pub index: u8,
}

/// How a kind cluster came to be an environment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum KindOrigin {
    /// It is being made; found like this later, its making was interrupted.
    Unfinished,
    /// It was made here.
    Made,
    /// It was there before: nothing of it is ours to change or remove.
    Adopted,
}

impl EnvironmentRecord {
    /// Fills in what records of earlier versions don't say.
    fn completed(mut self) -> Self {
        if let (true, Some(place)) = (self.server.is_empty(), self.embedded) {
            self.server = format!("https://127.0.0.1:{}", place.api_port);
        }
        self
    }
}

/// What an environment's processes are doing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentStatus {
    /// Where it is in its life.
    pub phase: Phase,
    /// The supervisor's process id on the host; 0 when it does not run.
    pub supervisor_pid: i32,
    /// Start time of that process (`/proc/pid/stat`, field 22), against reuse of
    /// its number.
    pub supervisor_start: u64,
    /// RFC 3339.
    pub updated: String,
    /// Each component by name.
    pub components: BTreeMap<String, ComponentStatus>,
    /// Milliseconds from the supervisor's start to each milestone reached.
    pub milestones_ms: BTreeMap<String, u64>,
    /// Why it can't go on, when `phase` is `failed`.
    pub failure: Option<Failure>,
}

/// A stage in an environment's life.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// No process runs; the state is kept.
    #[default]
    Stopped,
    /// Components are coming up.
    Starting,
    /// The node is Ready and cluster DNS answers.
    Ready,
    /// Asked to end.
    Stopping,
    /// Start-up was given up.
    Failed,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        })
    }
}

/// One component's process.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// Process id inside the node; 0 while it does not run.
    pub pid: i32,
    /// Times it was started again after it ended by itself.
    pub restarts: u32,
    /// How it ended the last time, if ever.
    pub last_exit: Option<String>,
}

/// Why an environment failed to start.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The component to blame.
    pub component: String,
    /// What went wrong.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_follow_xdg_and_ignore_relative_paths() {
        let directories = Directories::resolve(|name| match name {
            "XDG_STATE_HOME" => Some("relative".into()),
            "XDG_CACHE_HOME" => Some("/cache".into()),
            "HOME" => Some("/home/dev".into()),
            _ => None,
        })
        .unwrap();
        assert_eq!(directories.state, Path::new("/home/dev/.local/state/devloop"));
        assert_eq!(directories.cache, Path::new("/cache/devloop"));
        assert!(Directories::resolve(|_| None).is_err());
    }

    #[test]
    fn a_damaged_record_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories { state: folder.path().into(), cache: folder.path().into() };
        let environment = directories.environment("dev");
        assert_eq!(environment.record().unwrap(), None);
        std::fs::create_dir_all(environment.root()).unwrap();
        std::fs::write(environment.record_path(), b"{").unwrap();
        assert!(environment.record().unwrap_err().to_string().contains("environment.json is damaged"));
        assert_eq!(directories.environment_names().unwrap(), ["dev"]);
    }

    #[test]
    fn records_of_earlier_versions_are_read_and_engines_keep_their_own_parts() {
        let folder = tempfile::tempdir().unwrap();
        let environment = EnvironmentDirectory::at(folder.path());
        let old = r#"{"name": "dev", "provider": "embedded", "context": "devloop-dev", "apiPort": 16443, "index": 3,
            "created": "2026-01-01T00:00:00Z", "previousContext": null}"#;
        std::fs::write(environment.record_path(), old).unwrap();
        let record = environment.record().unwrap().unwrap();
        assert_eq!(record.embedded, Some(EmbeddedPlace { api_port: 16_443, index: 3 }));
        assert_eq!((record.server.as_str(), record.kind), ("https://127.0.0.1:16443", None));
        environment.write_record(&record).unwrap();
        assert_eq!(environment.record().unwrap().unwrap(), record);

        let made = EnvironmentRecord { name: "dev".into(), provider: "kind".into(), kind: Some(KindOrigin::Made), ..Default::default() };
        environment.write_record(&made).unwrap();
        assert_eq!(environment.record().unwrap().unwrap(), made);
    }
}
