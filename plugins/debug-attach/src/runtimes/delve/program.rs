//! Delve's program: built from its Go module once, kept in devloop's cache.

use super::edits;
use devloop_core::environment::Directories;
use devloop_core::files::FileLock;
use devloop_core::{CommandError, Context, ErrorContext, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// The version that the JSON-RPC calls and options here are for.
const VERSION: &str = "1.27.2";
const MODULE: &str = "github.com/go-delve/delve";
/// What of the module it takes to build it.
const PARTS: [&str; 5] = ["cmd", "pkg", "service", "go.mod", "go.sum"];
/// Names a Delve to use in place of one that is built.
const VARIABLE: &str = "DEVLOOP_DLV";

/// Finds Delve, or builds it.
///
/// # Errors
/// When the named one is not there, or it can't be built.
pub(super) async fn obtain(context: &Context) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        if !path.is_file() {
            return Err(CommandError::new(format!("{VARIABLE} names {}, which is no file", path.display())));
        }
        return Ok(path);
    }
    let folder = Directories::from_env()?.cache.join("debuggers");
    let path = folder.join(format!("dlv-{VERSION}-{}-linux-{}", edits::EDITION, std::env::consts::ARCH));
    if !path.is_file() {
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        // Of two commands one builds it.
        let _lock = FileLock::wait(&folder.join(".lock"), &context.shutdown).await?;
        if !path.is_file() {
            let step = context.ui.step(format!("building Delve {VERSION}, once"));
            context.shutdown.guard(build(&folder, &path)).await?;
            step.done(format!("built Delve {VERSION}"));
        }
    }
    Ok(path)
}

/// Where it would come from, for `--dry-run`.
pub(in crate::runtimes) fn describe() -> String {
    match std::env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        Some(named) => format!("Delve, from {}", Path::new(&named).display()),
        None => format!("Delve {VERSION}"),
    }
}

/// Without C, so that it runs in an image built upon nothing, and with [`edits`].
async fn build(folder: &Path, path: &Path) -> Result<()> {
    let place = tempfile::Builder::new().prefix(".dlv-").tempdir_in(folder).context("could not make a folder to build in")?;
    let place = place.path();
    let downloaded = go(&["mod", "download", "-json", &format!("{MODULE}@v{VERSION}")], place).await?;
    let module: Module = serde_json::from_slice(&downloaded).context("could not read what go says of Delve's module")?;
    let sources = place.join("delve");
    let edited = (|| {
        for part in PARTS {
            copy(&module.dir.join(part), &sources.join(part))?;
        }
        edits::apply(&sources)
    })();
    edited.context("could not copy Delve's sources")?;
    go(&["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", "../dlv", "./cmd/dlv"], &sources).await?;
    std::fs::rename(place.join("dlv"), path).with_context(|| format!("could not keep {}", path.display()))
}

/// Answers what it wrote.
async fn go(arguments: &[&str], folder: &Path) -> Result<Vec<u8>> {
    let output = Command::new("go")
        .args(arguments)
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        // Another project's, if the cache is within one.
        .env("GOWORK", "off")
        .env_remove("GOFLAGS")
        .env_remove("GOOS")
        .env_remove("GOARCH")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            CommandError::new("could not run go, which builds Delve")
                .caused_by(error)
                .with_hint(format!("install Go from https://go.dev/dl, or name a static dlv with {VARIABLE}"))
        })?;
    if !output.status.success() {
        // Some errors are in what is otherwise the answer.
        let said = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).trim().to_owned();
        return Err(CommandError::new(format!("could not build Delve {VERSION}"))
            .caused_by(said)
            .with_hint(format!("is the Go module proxy reachable (`go env GOPROXY`)? Or name a static dlv with {VARIABLE}")));
    }
    Ok(output.stdout)
}

/// Of `go mod download -json`.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "Dir")]
    dir: PathBuf,
}

/// Copies a file or a folder. Files of the module cache can't be written, copies can.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return std::fs::write(to, std::fs::read(from)?);
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
