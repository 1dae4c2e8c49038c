//! Delve's program: built from its Go module once, kept in devloop's cache.

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
/// Its file that attaches to a process.
const ATTACHING: &str = "pkg/proc/native/proc_linux.go";
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
    let path = folder.join(format!("dlv-{VERSION}-early-linux-{}", std::env::consts::ARCH));
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

/// Without C, so that it runs in an image built upon nothing, and with [`early`].
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
        let attaching = sources.join(ATTACHING);
        let text = std::fs::read_to_string(&attaching)?;
        let text = early(&text).ok_or_else(|| std::io::Error::other(format!("{ATTACHING} is not as expected")))?;
        std::fs::write(attaching, text)
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

/// Makes Delve read what there is to know of a program before it stops the process, in
/// place of after, while it stands still. What was read is of no use where another program has taken the process over meanwhile.
///
/// `None` where the text is not the one of this version. Pure.
fn early(text: &str) -> Option<String> {
    const STOPS: &str = "\tvar err error\n\tdbp.execPtraceFunc(func() { err = ptraceAttach(dbp.pid) })\n";
    const STANDS: &str = "\ttgt, err := dbp.initialize(findExecutable(\"\", dbp.pid), debugInfoDirs)\n";
    const BEFORE: &str = "\
\tprogram := findExecutable(\"\", dbp.pid)
\tread, _ := os.Stat(program)
\tif entryPoint, err := dbp.EntryPoint(); err == nil && read != nil {
\t\t_ = dbp.bi.LoadBinaryInfo(program, entryPoint, debugInfoDirs)
\t}
";
    const AFTER: &str = "\
\tif now, _ := os.Stat(program); read == nil || now == nil || !os.SameFile(read, now) {
\t\t_ = dbp.bi.Close()
\t\tdbp.bi = proc.NewBinaryInfo(\"linux\", dbp.bi.Arch.Name, true)
\t}
";
    let attach = text.find("\nfunc Attach(")?;
    let (head, body) = text.split_at(attach);
    let stops = body.find(STOPS)?;
    let stands = body.find(STANDS).filter(|stands| *stands > stops)?;
    Some([head, &body[..stops], BEFORE, &body[stops..stands], AFTER, &body[stands..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_read_before_the_process_stops() {
        let attach = "\nfunc Attach(pid int) {\n\tvar err error\n\tdbp.execPtraceFunc(func() { err = ptraceAttach(dbp.pid) })\n\t// waits\n\
                      \ttgt, err := dbp.initialize(findExecutable(\"\", dbp.pid), debugInfoDirs)\n}\n";
        let text = early(&format!("package native\n{attach}")).unwrap();
        let at = |part: &str| text.find(part).unwrap();
        assert!(at("LoadBinaryInfo") < at("ptraceAttach") && at("// waits") < at("SameFile") && at("SameFile") < at("dbp.initialize"));
        assert_eq!(early("package native\n"), None);
        assert_eq!(early(&attach.replace("ptraceAttach", "attach")), None);
    }
}
