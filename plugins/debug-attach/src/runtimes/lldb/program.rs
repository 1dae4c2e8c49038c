//! The program as LLDB reads it: with its debug information, on this machine. Where the
//! one in the container has none, it is known by its build id.

use super::no_symbols;
use crate::place::Place;
use crate::request::Request;
use crate::symbols;
use devloop_core::agent::debug::Candidate;
use devloop_core::agent::{AgentError, Command};
use devloop_core::symbols::{Symbols, build_id};
use devloop_core::{CommandError, Context, ErrorContext, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// How long a program may take to come from the container.
const PATIENCE: Duration = Duration::from_secs(300);
/// Below a folder of the project, where builds leave programs. `*` is any folder.
const BUILDS: [&str; 8] = ["target/debug", "target/release", "target/*/debug", "target/*/release", "build", "out", "bin", "."];
/// So many files of a folder are looked at.
const MOST: usize = 500;

/// A program with debug information.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// What the user should know of it.
    pub(super) remark: Option<String>,
    /// It, where it was fetched and could not be found again.
    _fetched: Option<NamedTempFile>,
}

impl Program {
    /// One of this machine.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, remark: None, _fetched: None }
    }
}

/// Finds it: the file that the user named, symbols that `kubectl rebuild` kept, a build
/// in the project, else what the container has.
///
/// # Errors
/// When there is none with debug information.
pub(super) async fn find(context: &Context, request: &Request, place: &Place, candidate: &Candidate) -> Result<Program> {
    if let Some(path) = &request.symbols {
        let symbols = symbols::read(path, candidate.build_id.as_deref()).await?;
        return Ok(Program::at(symbols.path));
    }
    let (folder, wanted) = (request.folder.clone(), candidate.build_id.clone());
    let name = Path::new(&String::from_utf8_lossy(&candidate.executable.0).into_owned()).file_name().map(ToOwned::to_owned);
    let looked = tokio::task::spawn_blocking(move || {
        let kept = wanted.as_deref().and_then(|wanted| Symbols::from_env().ok()?.find(wanted));
        kept.map_or_else(|| in_project(&folder, wanted.as_deref(), name.as_deref()), |path| Local { same: Some(path), other: None })
    });
    let Local { same, other } = looked.await.context("could not look for the program")?;
    if let Some(path) = same {
        return Ok(Program::at(path));
    }
    if !candidate.has_symbols {
        let why = format!("the program of process {} has no debug information, and no build of it is here", candidate.container_pid);
        return Err(match other {
            Some(other) => no_symbols(why).caused_by(format!("{} is another build", other.display())),
            None => no_symbols(why),
        });
    }
    let remark = other.map(|other| format!("{} is another build than the program that runs, whose lines may differ", other.display()));
    let fetched = fetch(context, place, candidate).await?;
    let kept = Symbols::from_env().and_then(|symbols| symbols.keep(fetched.path()).context("could not keep the program"));
    Ok(match kept {
        Ok(Some(path)) => Program { path, remark, _fetched: None },
        _ => Program { path: fetched.path().to_owned(), remark, _fetched: Some(fetched) },
    })
}

/// What a project has of a program.
#[derive(Debug, Default, PartialEq, Eq)]
struct Local {
    /// The very build.
    same: Option<PathBuf>,
    /// One of the same name that is another.
    other: Option<PathBuf>,
}

fn in_project(folder: &Path, wanted: Option<&str>, name: Option<&std::ffi::OsStr>) -> Local {
    let mut local = Local::default();
    for path in programs(folder) {
        let Ok(Some(id)) = build_id(&path) else { continue };
        if Some(id.as_str()) == wanted {
            if symbols::has_debug_information(&path) {
                return Local { same: Some(path), other: None };
            }
        } else if path.file_name() == name && local.other.is_none() {
            local.other = Some(path);
        }
    }
    local
}

/// All programs that builds left in a folder, or in one above it up to that of the
/// repository.
fn programs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for base in folder.ancestors() {
        found.extend(BUILDS.iter().flat_map(|build| folders(base, build)).flat_map(|folder| executables(&folder)));
        if base.join(".git").exists() {
            break;
        }
    }
    found
}

fn folders(base: &Path, build: &str) -> Vec<PathBuf> {
    let Some((before, after)) = build.split_once("/*/") else { return vec![base.join(build)] };
    let entries = std::fs::read_dir(base.join(before)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join(after)).filter(|path| path.is_dir()).collect()
}

fn executables(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MOST);
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    entries.map(|entry| entry.path()).filter(is_program).collect()
}

/// Gets the program of the process itself.
async fn fetch(context: &Context, place: &Place, candidate: &Candidate) -> Result<NamedTempFile> {
    let failed = "could not get the program of the process, which has the debug information";
    let file = tempfile::Builder::new().prefix("devloop-program-").tempfile().context(failed)?;
    let step = context.ui.step("getting the program with its debug information".to_owned());
    let work = async {
        let (pid, start) = (candidate.process.pid.to_string(), candidate.process.start_time.to_string());
        let Command { stdin: _stdin, mut stdout, guard: _guard, .. } = place.runner.start(&["fetch", &pid, &start]).await?;
        let mut writer = tokio::fs::File::from_std(file.reopen().map_err(AgentError::Start)?);
        let length = tokio::io::copy(&mut stdout, &mut writer).await.map_err(AgentError::Start)?;
        tokio::io::AsyncWriteExt::flush(&mut writer).await.map_err(AgentError::Start)?;
        Ok(length)
    };
    let length = tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(AgentError::TimedOut(PATIENCE)));
    let length = length.map_err(|error: AgentError| CommandError::new(failed).caused_by(CommandError::from(error)))?;
    step.clear();
    // Sections are described at the end of a program: one that was cut has none.
    if !symbols::has_debug_information(file.path()) {
        return Err(CommandError::new(failed).caused_by(format!("what came are {length} bytes without debug information")));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_known_by_its_id_and_not_by_its_name() {
        let own = std::env::current_exe().unwrap();
        let Some(id) = build_id(&own).unwrap() else { return };
        let folder = tempfile::tempdir().unwrap();
        let builds = folder.path().join("target/x86_64-unknown-linux-gnu/debug");
        std::fs::create_dir_all(&builds).unwrap();
        std::fs::create_dir_all(folder.path().join(".git")).unwrap();
        std::fs::copy(&own, builds.join("shop")).unwrap();
        let nested = folder.path().join("services/shop");
        std::fs::create_dir_all(&nested).unwrap();
        let found = in_project(&nested, Some(&id), Some("server".as_ref()));
        assert_eq!(found, Local { same: Some(builds.join("shop")), other: None });
        let other = in_project(&nested, Some("00"), Some("shop".as_ref()));
        assert_eq!(other, Local { same: None, other: Some(builds.join("shop")) });
        assert_eq!(in_project(&nested, Some("00"), Some("server".as_ref())), Local::default());
    }
}
