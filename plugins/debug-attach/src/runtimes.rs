//! The debuggers, a file each. [`crate::runtime`] says which is for what.

pub(crate) mod delve;

use crate::args::EditorArg;
use crate::cli::Cli;
use crate::editor::Settings;
use crate::kit::Kit;
use crate::place::Place;
use crate::request::Request;
use crate::runtime::Debugger;
use crate::sources::{Rule, Sources};
use delve::Delve;
use devloop_core::agent::debug::Candidate;
use devloop_core::agent::{AgentError, Runner};
use devloop_core::{Context, Result};
use serde_json::Value;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// Where a client's words go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    pub(crate) runner: &'a Runner,
    /// That of the debugger, there.
    pub(crate) socket: &'a str,
    /// Where the sources are.
    pub(crate) rules: &'a [Rule],
}

/// A debugger that is ready to be attached: it is where the process is, and what it
/// takes on this machine is here.
#[derive(Debug)]
pub(crate) enum Tool {
    Delve(Delve),
}

/// The debuggers that this machine has, for an image that is made before it is known
/// which one it takes.
pub(crate) async fn kits(context: &Context) -> Vec<Kit> {
    let mut kits = Vec::new();
    match delve::kit(context).await {
        Ok(kit) => kits.push(kit),
        // Said when it turns out that it is needed.
        Err(error) => tracing::info!(%error, "there is no Delve"),
    }
    kits
}

/// What is brought along, for `--dry-run`.
pub(crate) fn describe() -> String {
    delve::describe()
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
        match debugger {
            Debugger::Delve => {
                let (delve, words) = Delve::prepare(context, request, place, candidate).await?;
                Ok((Self::Delve(delve), words))
            }
        }
    }

    /// Which files here the program is made of. That this can't be told is no reason
    /// not to attach.
    pub(crate) async fn sources(&self, request: &Request, place: &Place, candidate: &Candidate) -> Sources {
        match self {
            Self::Delve(_) => delve::sources(request, place, candidate).await,
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
        }
    }

    /// Opens the debugger's own command line, as a client of the port.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn command_line(&self, port: u16, rules: &[Rule]) -> Result<Cli> {
        match self {
            Self::Delve(delve) => delve.command_line(port, rules),
        }
    }
}

/// The entry of VS Code's launch.json.
pub(crate) fn entry(settings: &Settings) -> Value {
    match settings.debugger {
        Debugger::Delve => delve::editor::entry(settings),
    }
}

/// The settings of another editor, to copy.
pub(crate) fn shown(editor: EditorArg, settings: &Settings) -> String {
    match settings.debugger {
        Debugger::Delve => delve::editor::text(editor, settings),
    }
}
