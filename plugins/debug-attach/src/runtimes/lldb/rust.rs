//! What a Rust toolchain has for debuggers: how its types are shown, and the sources of
//! its library.

use super::protocol::quoted;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// LLDB's commands that load rustc's own pretty printers; none where there are none, or
/// no Rust.
pub(super) async fn commands(folder: &Path) -> Vec<String> {
    let Some(scripts) = sysroot(folder).await.map(|root| root.join("lib/rustlib/etc")) else { return Vec::new() };
    let (lookup, commands) = (scripts.join("lldb_lookup.py"), scripts.join("lldb_commands"));
    if !lookup.is_file() || !commands.is_file() {
        return Vec::new();
    }
    let quoted = |path: PathBuf| quoted(&path.display().to_string());
    vec![format!("command script import {}", quoted(lookup)), format!("command source -s true {}", quoted(commands))]
}

/// The folder that rustc calls `/rustc/HASH`, where the component `rust-src` is
/// installed.
pub(super) async fn sources(folder: &Path) -> Option<PathBuf> {
    sysroot(folder).await.map(|root| root.join("lib/rustlib/src/rust")).filter(|sources| sources.is_dir())
}

/// That of the toolchain of a folder, which may name its own.
async fn sysroot(folder: &Path) -> Option<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()
        .filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}
