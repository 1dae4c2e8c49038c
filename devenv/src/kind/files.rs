//! The files of a kind environment, beside its record and its journal.

use super::config::Config;
use crate::kubeconfig::{self, Entry};
use devloop_core::environment::EnvironmentDirectory;
use devloop_core::error::{ErrorContext, Result};
use devloop_core::files;
use std::path::{Path, PathBuf};

/// The credentials of the cluster with this identity. A cluster that somebody
/// made anew under the same name has another one, and so no file here.
pub(super) fn kubeconfig_path(environment: &EnvironmentDirectory, identity: &str) -> PathBuf {
    environment.root().join(format!("kubeconfig.{identity}"))
}

/// Where kind puts the credentials of a cluster that it makes.
pub(super) fn new_kubeconfig_path(environment: &EnvironmentDirectory) -> PathBuf {
    environment.root().join("kubeconfig.new")
}

/// Keeps a cluster's credentials.
pub(super) fn keep_kubeconfig(environment: &EnvironmentDirectory, identity: &str, text: &str) -> Result<()> {
    let path = kubeconfig_path(environment, identity);
    files::write_atomic(&path, text.as_bytes(), 0o600).with_context(|| format!("could not write {}", path.display()))
}

/// A cluster's credentials, if they are known.
pub(super) fn kubeconfig(environment: &EnvironmentDirectory, identity: &str) -> Result<Option<String>> {
    read(&kubeconfig_path(environment, identity))
}

/// The entry of the newest credentials that are known, whichever cluster has
/// them: to recognise a context of ours when the cluster is gone.
pub(super) fn any_entry(environment: &EnvironmentDirectory, name: &str) -> Option<Entry> {
    let entries = std::fs::read_dir(environment.root()).ok()?.flatten();
    let mut paths: Vec<(std::time::SystemTime, PathBuf)> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("kubeconfig."))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    paths.sort();
    paths.into_iter().rev().find_map(|(_, path)| kubeconfig::parse_entry(&read(&path).ok()??, name).ok())
}

/// Keeps the configuration that the cluster is made from.
pub(super) fn keep_config(environment: &EnvironmentDirectory, config: &Config) -> Result<()> {
    let path = config_path(environment);
    files::write_atomic(&path, config.render()?.as_bytes(), 0o600).with_context(|| format!("could not write {}", path.display()))
}

/// The configuration that the cluster was made from, if it was made here.
pub(super) fn config(environment: &EnvironmentDirectory) -> Result<Option<Config>> {
    let path = config_path(environment);
    read(&path)?.map(|text| Config::parse(&path.display().to_string(), &text)).transpose()
}

fn config_path(environment: &EnvironmentDirectory) -> PathBuf {
    environment.root().join("kind.yaml")
}

fn read(path: &Path) -> Result<Option<String>> {
    let content = files::read_optional(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(content.map(|content| String::from_utf8_lossy(&content).into_owned()))
}
