//! debugpy's wheel for any machine: fetched by pip once, kept in devloop's cache.

use devloop_core::environment::Directories;
use devloop_core::files::FileLock;
use devloop_core::{CommandError, Context, ErrorContext, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// The version whose insides the agent's script knows.
const VERSION: &str = "1.8.22";
/// Of that wheel, as the Python Package Index has it.
const SHA256: &str = "a9e9d3550e15ca479c59333e90845029190531f0cacfedab3b815a57bd913947";
/// Names a wheel to use in place of one that is fetched.
const VARIABLE: &str = "DEVLOOP_DEBUGPY";

/// Finds the wheel, or fetches it.
///
/// # Errors
/// When the named one is not there, or it can't be fetched.
pub(super) async fn obtain(context: &Context) -> Result<PathBuf> {
    if let Some(named) = named() {
        let path = PathBuf::from(named);
        if !path.is_file() {
            return Err(CommandError::new(format!("{VARIABLE} names {}, which is no file", path.display())));
        }
        return Ok(path);
    }
    let folder = folder()?;
    let path = path_in(&folder);
    if !path.is_file() {
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        // Of two commands one fetches it.
        let _lock = FileLock::wait(&folder.join(".debugpy.lock"), &context.shutdown).await?;
        if !path.is_file() {
            let step = context.ui.step(format!("fetching debugpy {VERSION}, once"));
            context.shutdown.guard(fetch(&folder, &path)).await?;
            step.done(format!("fetched debugpy {VERSION}"));
        }
    }
    Ok(path)
}

/// Where it is once it was fetched, or what was named in its place.
pub(super) fn cached() -> Result<PathBuf> {
    named().map_or_else(|| Ok(path_in(&folder()?)), |named| Ok(PathBuf::from(named)))
}

fn folder() -> Result<PathBuf> {
    Ok(Directories::from_env()?.cache.join("debuggers"))
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join(format!("debugpy-{VERSION}.whl"))
}

/// Where it would come from, for `--dry-run`.
pub(in crate::runtimes) fn describe() -> String {
    match named() {
        Some(named) => format!("debugpy, from {}", Path::new(&named).display()),
        None => format!("debugpy {VERSION}"),
    }
}

fn named() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|named| !named.is_empty())
}

async fn fetch(folder: &Path, path: &Path) -> Result<()> {
    let place = tempfile::Builder::new().prefix(".debugpy-").tempdir_in(folder).context("could not make a folder to fetch debugpy to")?;
    let requirements = place.path().join("requirements.txt");
    std::fs::write(&requirements, format!("debugpy=={VERSION} --hash=sha256:{SHA256}\n")).context("could not say what to fetch")?;
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
        // The one without parts that are compiled for one Python.
        .args(["--only-binary=:all:", "--platform", "any", "--dest"])
        .arg(place.path())
        .arg("-r")
        .arg(&requirements)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            CommandError::new("could not run python3, whose pip fetches debugpy")
                .caused_by(error)
                .with_hint(format!("install Python with pip, or name a wheel of debugpy with {VARIABLE}"))
        })?;
    let fetched = std::fs::read_dir(place.path()).into_iter().flatten().flatten().map(|entry| entry.path());
    let wheel = fetched.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "whl"));
    let Some(wheel) = wheel.filter(|_| output.status.success()) else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(CommandError::new(format!("could not fetch debugpy {VERSION}"))
            .caused_by(said)
            .with_hint(format!("does pip reach its index (`pip config list`)? Or name the wheel for any machine with {VARIABLE}")));
    };
    std::fs::rename(wheel, path).with_context(|| format!("could not keep {}", path.display()))
}
