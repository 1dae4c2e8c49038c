//! The flags that Rust's compiler gets: the user's, and what makes a binary run in any
//! image and be the same whoever builds it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// What makes a binary run without anything beside it: no dynamic loader, no
/// shared library.
const STATIC: [&str; 2] = ["-C", "target-feature=+crt-static"];

/// What cargo's folder is called in a binary. Where it really is differs between users,
/// and programs say in their panics which file of a crate they are in.
const CARGO: &str = "/cargo";

/// Compiler flags from the environment: they win over all configuration, so ours
/// have to join them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FlagsEnvironment {
    Unset,
    /// `CARGO_ENCODED_RUSTFLAGS`, separated by 0x1f; wins over `RUSTFLAGS`.
    Encoded(String),
    /// `RUSTFLAGS`, separated by spaces.
    Plain(String),
}

impl FlagsEnvironment {
    pub(super) fn from_env() -> Self {
        let lossy = |name| std::env::var_os(name).map(|value: OsString| value.to_string_lossy().into_owned());
        match (lossy("CARGO_ENCODED_RUSTFLAGS"), lossy("RUSTFLAGS")) {
            (Some(encoded), _) => Self::Encoded(encoded),
            (None, Some(plain)) => Self::Plain(plain),
            (None, None) => Self::Unset,
        }
    }

    /// What the environment has to hold, if it holds flags.
    pub(super) fn with_ours(&self) -> Option<String> {
        let theirs: Vec<&str> = match self {
            Self::Unset => return None,
            Self::Encoded(flags) => flags.split('\x1f').filter(|flag| !flag.is_empty()).collect(),
            Self::Plain(flags) => flags.split_ascii_whitespace().collect(),
        };
        Some(with_ours(theirs, cargo_home()).join("\x1f"))
    }
}

/// The user's `build.rustflags`, which cargo ignores as soon as there are flags
/// for the target, as there are now. Empty when the user has flags for the
/// target, too (cargo would have ignored the others anyway), or when cargo can't
/// tell.
pub(super) async fn build_flags_from_config(root: &Path, triple: &str) -> Vec<String> {
    if std::env::var_os("CARGO_BUILD_RUSTFLAGS").is_none() && !config_files(root).iter().any(|path| mentions(path, "rustflags")) {
        return Vec::new();
    }
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // `cargo config get` is not stable yet; the variable allows it all the same.
    command.args(["-Zunstable-options", "config", "get", "--format", "json"]).env("RUSTC_BOOTSTRAP", "1");
    command.current_dir(root).stdin(Stdio::null()).kill_on_drop(true);
    let Ok(output) = command.output().await else { return Vec::new() };
    let Ok(mut config) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return Vec::new() };
    if let Ok(flags) = std::env::var("CARGO_BUILD_RUSTFLAGS") {
        // The listing has files only.
        let mut all = flags_of(&config["build"]["rustflags"]);
        all.extend(flags.split_ascii_whitespace().map(str::to_owned));
        config["build"]["rustflags"] = all.into();
    }
    select_build_flags(&config, triple)
}

fn select_build_flags(config: &serde_json::Value, triple: &str) -> Vec<String> {
    let of_target = |(key, table): (&String, &serde_json::Value)| {
        (key == triple || key.starts_with("cfg(")) && !flags_of(&table["rustflags"]).is_empty()
    };
    if config["target"].as_object().is_some_and(|targets| targets.iter().any(of_target)) {
        return Vec::new();
    }
    flags_of(&config["build"]["rustflags"])
}

/// A list of flags, or one text with spaces.
fn flags_of(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::String(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        serde_json::Value::Array(flags) => flags.iter().filter_map(|flag| flag.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn config_files(root: &Path) -> Vec<PathBuf> {
    let folders = root.ancestors().map(|folder| folder.join(".cargo")).chain(cargo_home());
    folders.flat_map(|folder| [folder.join("config.toml"), folder.join("config")]).collect()
}

pub(super) fn mentions(path: &Path, setting: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(setting))
}

pub(super) fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

/// A user's flags and ours. Pure.
pub(super) fn with_ours<'flag>(theirs: impl IntoIterator<Item = &'flag str>, cargo_home: Option<PathBuf>) -> Vec<String> {
    let renamed = cargo_home.as_deref().and_then(Path::to_str).map(|home| format!("--remap-path-prefix={home}={CARGO}"));
    // Of two that fit the last counts: what the user calls it has precedence.
    renamed.into_iter().chain(theirs.into_iter().chain(STATIC).map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_environment_are_joined() {
        assert_eq!(FlagsEnvironment::Unset.with_ours(), None);
        let ours = format!("\x1f{}", STATIC.join("\x1f"));
        for (environment, theirs) in
            [(FlagsEnvironment::Plain("--cfg  a".into()), "--cfg\x1fa"), (FlagsEnvironment::Encoded("--cfg\x1fa b".into()), "--cfg\x1fa b")]
        {
            assert!(environment.with_ours().unwrap().ends_with(&format!("{theirs}{ours}")));
        }
        let all = with_ours(["--remap-path-prefix=/home/me/.cargo=x"], Some("/home/me/.cargo".into()));
        assert_eq!(all[..2], ["--remap-path-prefix=/home/me/.cargo=/cargo", "--remap-path-prefix=/home/me/.cargo=x"]);
        assert_eq!(with_ours(["a"], None)[0], "a");
    }

    #[test]
    fn general_flags_count_only_where_cargo_would_count_them() {
        let select = |text: &str| select_build_flags(&serde_json::from_str(text).unwrap(), "x86_64-unknown-linux-gnu");
        assert_eq!(select(r#"{"build":{"rustflags":["--cfg","a"]}}"#), ["--cfg", "a"]);
        assert_eq!(select(r#"{"build":{"rustflags":"--cfg a"},"target":{"wasm32-wasip1":{"rustflags":["x"]}}}"#), ["--cfg", "a"]);
        assert!(select(r#"{"build":{"rustflags":["a"]},"target":{"cfg(unix)":{"rustflags":["x"]}}}"#).is_empty());
        assert!(select("{}").is_empty());
    }
}
