//! LLDB, for Rust, C and C++: its debug adapter on this machine, one for each editor,
//! and gdbserver where the process is. gdbserver attaches when an editor comes, and
//! lets go when that one leaves.

pub(super) mod editor;
mod program;
mod protocol;
#[cfg(test)]
mod real_tests;
mod rust;
mod server;

use super::Link;
use crate::choose::Way;
use crate::cli::Cli;
use crate::dap::{Framing, framed};
use crate::farewell::{self, Leaving};
use crate::place::Place;
use crate::request::{Aim, Request};
use crate::runtime::Debugger;
use crate::sources::{self, Sources};
use devloop_core::agent::debug::{Candidate, Runtime};
use devloop_core::agent::{Command as AgentCommand, Runner};
use devloop_core::{CommandError, Context, ErrorContext, Result};
use program::Program;
use protocol::Start;
pub(super) use server::kit;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::UNIX_EPOCH;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;

/// Names the debug adapter to use, and the command line.
const ADAPTER_VARIABLE: &str = "DEVLOOP_LLDB_DAP";
const LLDB_VARIABLE: &str = "DEVLOOP_LLDB";

/// LLDB, with all that it takes to debug one program.
#[derive(Debug)]
pub(crate) struct Lldb {
    /// `lldb-dap`, or `lldb` for its command line.
    tool: PathBuf,
    program: Program,
    /// What makes it show values of Rust as they are meant.
    rust: Vec<String>,
}

impl Lldb {
    pub(super) async fn prepare(context: &Context, request: &Request, place: &Place, candidate: &Candidate) -> Result<(Self, Vec<String>)> {
        let tool = match request.aim {
            Aim::Cli => server::installed(LLDB_VARIABLE, "lldb"),
            _ => server::installed(ADAPTER_VARIABLE, "lldb-dap"),
        }?;
        let program = program::find(context, request, place, candidate).await?;
        let kit = match place.way {
            Way::Pod if place.has(server::FILE) => None,
            _ => Some(kit().await?),
        };
        let path = place.bring(kit.as_ref(), server::FILE).await?;
        let is_rust = matches!(&candidate.runtime, Runtime::Native { compiler: Some(compiler) } if compiler.starts_with("rustc"));
        let rust = if is_rust { rust::commands(&request.folder).await } else { Vec::new() };
        Ok((Self { tool, program, rust }, vec!["gdbserver".to_owned(), path]))
    }

    /// Serves an editor by an adapter of its own.
    pub(super) async fn serve<R, W>(&self, link: Link<'_>, reader: R, writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let door = Door::open()?;
        let mut command = Command::new(&self.tool);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        // Ctrl-C in the terminal is the command's business.
        command.process_group(0);
        let mut adapter = command.spawn()?;
        let (Some(to), Some(from)) = (adapter.stdin.take(), adapter.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let start = Start { program: &self.program.path, connect: door.connect(), rules: link.rules, commands: &self.rust };
        let leaving = Leaving::default();
        let up = pass(reader, to, &start, &leaving);
        let down = farewell::down(from, writer, link.farewell.clone(), &leaving);
        let gate = async {
            door.pass(link.runner, link.socket).await?;
            // The adapter has more to say after it let go of the process.
            std::future::pending().await
        };
        tokio::select! {
            result = farewell::both(up, down) => result,
            result = gate => result,
        }
    }

    /// LLDB's own command line.
    pub(super) fn command_line(&self, runner: &Runner, socket: &str, rules: &[sources::Rule]) -> Result<Cli> {
        let door = Door::open().context("could not make a socket for LLDB")?;
        let start = Start { program: &self.program.path, connect: door.connect(), rules, commands: &self.rust };
        let failed = "could not write the settings of LLDB's command line";
        let mut settings = tempfile::Builder::new().prefix("devloop-lldb-").tempfile().context(failed)?;
        settings.write_all(start.script().as_bytes()).context(failed)?;
        let mut command = Command::new(&self.tool);
        command.arg("--source").arg(settings.path());
        let (runner, socket) = (runner.clone(), socket.to_owned());
        let serving = tokio::spawn(async move {
            // Its end is that of LLDB's connection, which LLDB tells.
            let _ = door.pass(&runner, &socket).await;
        });
        Ok(Cli::start(command, Some(settings))?.with(serving))
    }

    /// Which files here the program is made of.
    pub(super) async fn sources(&self, request: &Request, candidate: &Candidate) -> Sources {
        let (program, folder, started) = (self.program.path.clone(), request.folder.clone(), candidate.started);
        let toolchain = rust::sources(&request.folder).await;
        let found = tokio::task::spawn_blocking(move || {
            let local = sources::native::gather(&folder, toolchain);
            let files = sources::native::files(&program);
            let modified = |path: &Path| {
                let time = path.metadata().ok().filter(std::fs::Metadata::is_file)?.modified().ok()?;
                Some(time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))
            };
            sources::native::find(&files, &local, started, modified)
        });
        let mut sources = found.await.unwrap_or_default();
        sources.remarks.extend(self.program.remark.clone());
        sources
    }
}

/// Where LLDB comes in on its way to gdbserver: a socket that only this user reaches.
struct Door {
    listener: UnixListener,
    folder: TempDir,
}

impl Door {
    fn open() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("devloop-lldb-").tempdir()?;
        Ok(Self { listener: UnixListener::bind(folder.path().join("gdb"))?, folder })
    }

    /// What makes LLDB come.
    fn connect(&self) -> String {
        format!("process connect --plugin gdb-remote unix-connect://{}", self.folder.path().join("gdb").display())
    }

    /// Passes one connection on.
    async fn pass(&self, runner: &Runner, socket: &str) -> io::Result<()> {
        let (stream, _) = self.listener.accept().await?;
        let AgentCommand { stdin, stdout, guard: _guard, .. } = runner.start(&["connect", socket]).await.map_err(io::Error::other)?;
        both_ways(stream, stdin, stdout).await
    }
}

async fn both_ways(stream: UnixStream, mut to: impl AsyncWrite + Unpin, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let up = async {
        let mut piece = vec![0; 16 * 1024];
        loop {
            match reader.read(&mut piece).await? {
                0 => return Ok(()),
                length => {
                    to.write_all(&piece[..length]).await?;
                    to.flush().await?;
                }
            }
        }
    };
    let down = async { copy(&mut from, &mut writer).await.map(drop) };
    tokio::select! {
        result = up => result,
        result = down => result,
    }
}

/// Passes on what an editor says.
async fn pass(mut reader: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, start: &Start<'_>, leaving: &Leaving) -> io::Result<()> {
    let mut framing = Framing::default();
    let mut piece = vec![0; 16 * 1024];
    loop {
        while let Some(content) = framing.pop().map_err(io::Error::other)? {
            leaving.note(&content);
            to.write_all(&framed(&start.rewritten(content))).await?;
            to.flush().await?;
        }
        match reader.read(&mut piece).await? {
            0 => return Ok(()),
            length => framing.push(&piece[..length]),
        }
    }
}

/// Why a program can't be debugged as it is.
fn no_symbols(why: String) -> CommandError {
    crate::process::no_symbols(Debugger::Lldb, why)
}
