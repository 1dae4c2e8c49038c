//! Delve, for Go: built from its module once and kept in devloop's cache. It stays
//! attached, serves any number of clients, and speaks DAP and a JSON-RPC of its own.

pub(super) mod calm;
mod client;
pub(super) mod editor;
mod edits;
pub(crate) mod goroutines;
mod program;
mod protocol;
#[cfg(test)]
mod real_tests;
pub(super) mod trace;
mod values;

use super::Link;
use crate::choose::Way;
use crate::cli::Cli;
use crate::forward;
use crate::kit::{Kit, KitFile};
use crate::place::Place;
use crate::request::{Aim, Request};
use crate::sources::{self, Rule, Sources};
use crate::symbols;
use devloop_core::agent::debug::{Candidate, Runtime};
use devloop_core::{CommandError, Context, ErrorContext, Result};
pub(super) use program::describe;
use std::io::Write;
use std::path::PathBuf;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Command;

/// Its file where the process is.
const FILE: &str = "dlv";

/// Delve, brought to where the process is.
#[derive(Debug)]
pub(crate) struct Delve {
    /// Its program on this machine, where that was needed.
    program: Option<PathBuf>,
}

impl Delve {
    pub(super) async fn prepare(context: &Context, request: &Request, place: &Place, candidate: &Candidate) -> Result<(Self, Vec<String>)> {
        let symbols = match &request.symbols {
            Some(path) if !candidate.has_symbols => Some(symbols::read(path, candidate.build_id.as_deref()).await?),
            _ => None,
        };
        let kit = match place.way {
            Way::Pod if request.aim != Aim::Cli && place.has(FILE) => None,
            _ => Some(kit(context).await?),
        };
        let mut words = vec!["delve".to_owned(), place.bring(kit.as_ref(), FILE).await?];
        if let Some(symbols) = symbols {
            words.push(symbols::bring(place, &symbols).await?);
        }
        let program = kit.and_then(|kit| kit.files.into_iter().next()).map(|file| file.source);
        Ok((Self { program }, words))
    }

    /// Delve's own command line (`dlv connect`).
    pub(super) fn command_line(&self, port: u16, rules: &[Rule]) -> Result<Cli> {
        let program = self.program.as_ref().ok_or_else(|| CommandError::new("Delve is not on this machine"))?;
        let settings = settings(rules).context("could not write the settings of Delve's command line")?;
        let mut command = Command::new(program);
        command.arg("connect").arg(format!("127.0.0.1:{port}")).arg("--init").arg(settings.path());
        if !crate::cli::has_terminal() {
            command.arg("--allow-non-terminal-interactive=true");
        }
        Cli::start(command, Some(settings))
    }
}

/// Passes on what a client says and hears.
pub(super) async fn serve<R, W>(link: Link<'_>, reader: R, writer: W) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let message = |content| protocol::rewritten(content, link.rules);
    forward::serve(&link, reader, writer, message, protocol::rewritten_line).await
}

/// Which files here the program is made of.
pub(super) async fn sources(request: &Request, place: &Place, candidate: &Candidate) -> Sources {
    let Runtime::Go(program) = &candidate.runtime else { return Sources::default() };
    let (paths, local) = tokio::join!(super::source_files(place, candidate), sources::local::gather(&request.folder, &program.module));
    sources::find(program, &paths, &local, candidate.started, super::modified)
}

/// Where the sources are (Delve's `config substitute-path FROM TO`).
fn settings(rules: &[Rule]) -> std::io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("devloop-dlv-").tempfile()?;
    for rule in rules {
        writeln!(file, "config substitute-path {:?} {:?}", rule.remote, rule.local)?;
    }
    Ok(file)
}

/// Delve as it is brought along.
///
/// # Errors
/// When the named one is not there, or it can't be built.
pub(super) async fn kit(context: &Context) -> Result<Kit> {
    let source = program::obtain(context).await?;
    Kit::of("Delve", vec![KitFile { source, path: FILE.to_owned(), is_alone: true }]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted() {
        let rules = [
            Rule { local: "/home/dev/my shop".to_owned(), remote: "example.com/shop".to_owned() },
            Rule { local: "/usr/lib/go/src".to_owned(), remote: String::new() },
        ];
        let text = std::fs::read_to_string(settings(&rules).unwrap().path()).unwrap();
        assert_eq!(
            text,
            "config substitute-path \"example.com/shop\" \"/home/dev/my shop\"\nconfig substitute-path \"\" \"/usr/lib/go/src\"\n"
        );
    }
}
