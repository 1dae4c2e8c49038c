//! What is kept the same in the running containers, and what makes an app take
//! note of it.

use super::FileMapping;
use super::parse::{command, image_path, inside_path, text};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// A file or folder of the project that is kept the same in the container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRule {
    /// Relative to the root.
    #[serde(deserialize_with = "inside_path")]
    pub from: PathBuf,
    /// Absolute in the container: of the file, or of the folder whose content
    /// it is.
    #[serde(deserialize_with = "image_path")]
    pub to: String,
    /// What is left out below `from`, in the syntax of `.gitignore`.
    #[serde(default)]
    pub ignore: Vec<String>,
}

impl From<FileMapping> for SyncRule {
    fn from(mapping: FileMapping) -> Self {
        Self { from: mapping.from, to: mapping.to, ignore: Vec::new() }
    }
}

/// What is done once files that it is about are in the container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRule {
    /// Patterns of paths relative to the root, in the syntax of `.gitignore`:
    /// without a slash they fit a name in any folder. All files when empty.
    #[serde(default)]
    pub on: Vec<String>,
    /// What is done.
    #[serde(rename = "do")]
    pub action: ReloadAction,
}

/// What makes an app take note of changed files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReloadAction {
    /// Nothing: the app reads them when it needs them.
    None,
    /// Its process is started again in place.
    Restart,
    /// A signal, by its name without `SIG`.
    Signal(String),
    /// A call of the app's own.
    Http(HttpCall),
    /// A program in the container, without a shell.
    Exec(Vec<String>),
}

/// An HTTP request to the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    /// Path and query.
    #[serde(deserialize_with = "url_path")]
    pub path: String,
    /// The pod's port.
    pub port: u16,
    /// The method; POST when absent.
    #[serde(default = "post", deserialize_with = "method")]
    pub method: String,
}

/// How an app is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartSpec {
    /// By whom.
    #[serde(default)]
    pub by: RestartBy,
    /// How long the app may take to end after SIGTERM, where a supervisor
    /// restarts it.
    #[serde(default, deserialize_with = "optional_duration")]
    pub grace: Option<Duration>,
}

/// Who starts an app again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartBy {
    /// The process itself is replaced, whatever it is at.
    #[default]
    InPlace,
    /// A supervisor, which is put into the pod as its first process for the
    /// session: it sends SIGTERM first.
    Supervisor,
}

impl<'de> Deserialize<'de> for ReloadAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A word, or a map with one key.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Word(String),
            Map(Choice),
        }
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Choice {
            signal: Option<String>,
            http: Option<HttpCall>,
            exec: Option<Exec>,
        }
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Exec(#[serde(deserialize_with = "command")] Vec<String>);

        const KNOWN: &str = "none, restart, {signal: NAME}, {http: {path, port, method}} or {exec: [PROGRAM, ARGUMENT]}";
        match Form::deserialize(deserializer).map_err(|_| D::Error::custom(format!("a reload action is {KNOWN}")))? {
            Form::Word(word) => match word.as_str() {
                "none" => Ok(Self::None),
                "restart" => Ok(Self::Restart),
                other => Err(D::Error::custom(format!("{other:?} is no reload action; known: {KNOWN}"))),
            },
            Form::Map(Choice { signal: Some(signal), http: None, exec: None }) => {
                signal_name(&signal).map(Self::Signal).map_err(D::Error::custom)
            }
            Form::Map(Choice { signal: None, http: Some(http), exec: None }) => Ok(Self::Http(http)),
            Form::Map(Choice { signal: None, http: None, exec: Some(exec) }) => Ok(Self::Exec(exec.0)),
            Form::Map(_) => Err(D::Error::custom(format!("a reload action is one of {KNOWN}"))),
        }
    }
}

/// The name without `SIG`, of a signal that exists.
fn signal_name(name: &str) -> Result<String, String> {
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    match format!("SIG{bare}").parse::<nix::sys::signal::Signal>() {
        Ok(_) => Ok(bare.to_owned()),
        Err(_) => Err(format!("{name:?} is no signal; for example HUP, USR1, USR2, TERM (signal(7))")),
    }
}

fn url_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |path| {
        if !path.starts_with('/') || path.contains(|character: char| character.is_whitespace() || character.is_control()) {
            return Err(format!("{path:?} is not an absolute path of a URL"));
        }
        Ok(path.to_owned())
    })
}

fn post() -> String {
    "POST".to_owned()
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |method| {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("{method:?} is no HTTP method"));
        }
        Ok(method.to_owned())
    })
}

/// `500ms`, `10s`, `2m`.
fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    text(deserializer, |written| {
        let refuse = || format!("{written:?} is no duration; for example 500ms, 10s, 2m");
        let digits = written.find(|character: char| !character.is_ascii_digit()).ok_or_else(refuse)?;
        let number: u64 = written[..digits].parse().map_err(|_| refuse())?;
        let duration = match &written[digits..] {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            _ => None,
        };
        duration.map(Some).ok_or_else(refuse)
    })
}
