//! The debuggers, a file each. [`crate::runtime`] says which is for what.

pub(crate) mod debugpy;
pub(crate) mod delve;
pub(crate) mod inspector;
pub(crate) mod jdwp;
pub(crate) mod lldb;

use crate::args::EditorArg;
use crate::cli::Cli;
use crate::editor::Settings;
use crate::farewell::Farewell;
use crate::forward;
use crate::kit::Kit;
use crate::place::Place;
use crate::process;
use crate::report::Event;
use crate::request::{Aim, Request};
use crate::runtime::Debugger;
use crate::sources::{self, Rule, Sources};
use crate::trace::NotTraced;
use delve::Delve;
use devloop_core::agent::debug::{Candidate, Sources as SourceFiles};
use devloop_core::agent::{AgentError, Runner};
use devloop_core::{CommandError, Context, Result};
use lldb::Lldb;
use serde_json::Value;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};

/// How long the agent may look for the names of the source files.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a client's words go.
#[derive(Clone, Debug)]
pub(crate) struct Link<'a> {
    pub(crate) runner: &'a Runner,
    /// That of the debugger, there.
    pub(crate) socket: &'a str,
    /// Where the sources are.
    pub(crate) rules: &'a [Rule],
    /// Told when the debugger goes.
    pub(crate) farewell: Farewell,
}

/// A debugger that is ready to be attached: it is where the process is, and what it
/// takes on this machine is here.
#[derive(Debug)]
pub(crate) enum Tool {
    Delve(Delve),
    Debugpy,
    Inspector,
    Jdwp,
    Lldb(Lldb),
}

/// The debuggers that this machine has, for an image that is made before it is known
/// which one it takes.
pub(crate) async fn kits(context: &Context) -> Vec<Kit> {
    let found = tokio::join!(delve::kit(context), lldb::kit(), debugpy::fetched_kit());
    let mut kits = Vec::new();
    for kit in [found.0, found.1, found.2] {
        match kit {
            Ok(kit) => kits.push(kit),
            // Said when it turns out that it is needed.
            Err(error) => tracing::info!(%error, "not brought along"),
        }
    }
    kits
}

/// What is brought along, for `--dry-run`.
pub(crate) fn describe() -> String {
    format!("the debugger that it takes ({}, {}, or gdbserver)", delve::describe(), debugpy::describe())
}

impl Tool {
    /// Finds the debugger of a process, and brings it there; answers what the agent is
    /// told to hold, too.
    ///
    /// # Errors
    /// When it is not to be had, or can't be brought there.
    pub(crate) async fn prepare(
        context: &Context,
        request: &Request,
        place: &Place,
        candidate: &Candidate,
        debugger: Debugger,
    ) -> Result<(Self, Vec<String>)> {
        if request.aim == Aim::Trace && debugger != Debugger::Delve {
            let runtime = process::describe(&candidate.runtime);
            return Err(CommandError::usage(format!("--trace is for Go, and process {} is {runtime}", candidate.container_pid))
                .with_hint("leave out --trace, and set a log point in an editor (DAP: `logMessage`)"));
        }
        match debugger {
            Debugger::Delve => {
                let (delve, words) = Delve::prepare(context, request, place, candidate).await?;
                Ok((Self::Delve(delve), words))
            }
            Debugger::Debugpy => Ok((Self::Debugpy, debugpy::prepare(context, place, candidate).await?)),
            Debugger::Inspector => Ok((Self::Inspector, inspector::prepare(request)?)),
            Debugger::Jdwp => Ok((Self::Jdwp, jdwp::prepare(request)?)),
            Debugger::Lldb => {
                let (lldb, words) = Lldb::prepare(context, request, place, candidate).await?;
                Ok((Self::Lldb(lldb), words))
            }
        }
    }

    /// Which files here the program is made of. That this can't be told is no reason
    /// not to attach.
    pub(crate) async fn sources(&self, request: &Request, place: &Place, candidate: &Candidate) -> Sources {
        match self {
            Self::Delve(_) => delve::sources(request, place, candidate).await,
            Self::Debugpy | Self::Inspector => scripts(request, place, candidate).await,
            // Its debuggers look classes up by their names.
            Self::Jdwp => Sources::default(),
            Self::Lldb(lldb) => lldb.sources(request, candidate).await,
        }
    }

    /// Serves a client until it or the debugger ends the connection.
    ///
    /// # Errors
    /// When the debugger can't be reached, or the client says what no client says.
    pub(crate) async fn serve<R, W>(&self, link: Link<'_>, reader: R, writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match self {
            Self::Delve(_) => delve::serve(link, reader, writer).await,
            Self::Debugpy => debugpy::serve(link, reader, writer).await,
            // What they say is between them and their clients.
            Self::Inspector | Self::Jdwp => forward::plain(&link, reader, writer).await,
            Self::Lldb(lldb) => lldb.serve(link, reader, writer).await,
        }
    }

    /// After the last client: makes the process run on without its breakpoints, and
    /// answers how many there were; nothing where the debugger does so itself.
    ///
    /// # Errors
    /// When the debugger can't be asked, or does not do it.
    pub(crate) async fn calm(&self, link: Link<'_>) -> Result<Option<usize>, AgentError> {
        match self {
            Self::Delve(_) => delve::calm::calm(link.runner, link.socket).await.map(Some),
            Self::Debugpy | Self::Inspector | Self::Jdwp | Self::Lldb(_) => Ok(None),
        }
    }

    /// Tells of every call of functions with these names, until the debugger goes.
    ///
    /// # Errors
    /// When that can't be done, or `tell` fails.
    pub(crate) async fn trace(
        &self,
        link: &Link<'_>,
        names: &[String],
        tell: &(impl Fn(&Event) -> Result<()> + Sync),
    ) -> Result<(), NotTraced> {
        match self {
            Self::Delve(_) => delve::trace::trace(link, names, tell).await,
            Self::Debugpy | Self::Inspector | Self::Jdwp | Self::Lldb(_) => {
                // Refused before.
                Err(NotTraced::Refused(CommandError::usage("--trace is for Go")))
            }
        }
    }

    /// Opens the debugger's own command line.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn command_line(&self, link: Link<'_>, port: u16) -> Result<Cli> {
        match self {
            Self::Delve(delve) => delve.command_line(port, link.rules),
            // It has none of its own.
            Self::Debugpy => Cli::own(port),
            Self::Inspector => inspector::command_line(port),
            Self::Jdwp => jdwp::command_line(port),
            Self::Lldb(lldb) => lldb.command_line(link.runner, link.socket, link.rules),
        }
    }
}

/// The entry of VS Code's launch.json.
pub(crate) fn entry(settings: &Settings) -> Value {
    match settings.debugger {
        Debugger::Delve => delve::editor::entry(settings),
        Debugger::Debugpy => debugpy::entry(settings),
        Debugger::Inspector => inspector::entry(settings),
        Debugger::Jdwp => jdwp::entry(settings),
        Debugger::Lldb => lldb::editor::entry(settings),
    }
}

/// The settings of another editor, to copy.
pub(crate) fn shown(editor: EditorArg, settings: &Settings) -> String {
    match settings.debugger {
        Debugger::Delve => delve::editor::text(editor, settings),
        Debugger::Debugpy => debugpy::text(editor, settings),
        Debugger::Inspector => inspector::text(editor, settings),
        Debugger::Jdwp => jdwp::text(editor, settings),
        Debugger::Lldb => lldb::editor::text(editor, settings),
    }
}

/// Where the scripts of a process's program are here.
async fn scripts(request: &Request, place: &Place, candidate: &Candidate) -> Sources {
    let folder = request.folder.clone();
    let looked = tokio::task::spawn_blocking(move || sources::scripts::gather(folder));
    let (remote, local) = tokio::join!(source_files(place, candidate), looked);
    sources::scripts::find(&remote, &local.unwrap_or_default(), &request.folder, candidate.started, modified)
}

/// The files that a process's program is made of, as the agent sees them. That this
/// can't be told is no reason not to attach.
async fn source_files(place: &Place, candidate: &Candidate) -> Vec<String> {
    let (pid, start) = (candidate.process.pid.to_string(), candidate.process.start_time.to_string());
    let mut paths = Vec::new();
    for piece in place.runner.ask::<SourceFiles>(&["sources", &pid, &start], PATIENCE).await.unwrap_or_default() {
        match piece {
            SourceFiles::Files(files) => paths.extend(files),
            SourceFiles::Failed(reason) => tracing::info!(reason, "the program's source files are not known"),
        }
    }
    paths
}

/// When a file was changed, in seconds since 1970, if it is there.
fn modified(path: &Path) -> Option<u64> {
    let time = path.metadata().ok().filter(std::fs::Metadata::is_file)?.modified().ok()?;
    Some(time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))
}
