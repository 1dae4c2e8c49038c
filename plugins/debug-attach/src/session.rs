//! An attached debugger and its clients, until something ends.

use crate::cli::Cli;
use crate::hold::{self, Fate, Hold, NotHeld, Order};
use crate::journal;
use crate::place::Place;
use crate::report::{Event, Reporter};
use crate::request::Aim;
use crate::runtimes::{Link, Tool};
use crate::sources::Rule;
use devloop_core::agent::debug::HoldEnd;
use devloop_core::{CommandError, Context, ExitStatus, Result};
use serde_json::json;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};

/// What a session works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) reporter: Reporter,
    pub(crate) place: Arc<Place>,
    pub(crate) order: Order,
    pub(crate) hold: Hold,
    pub(crate) rules: Arc<[Rule]>,
    /// None where the editor speaks on stdin.
    pub(crate) listener: Option<TcpListener>,
    pub(crate) port: u16,
    pub(crate) aim: Aim,
    pub(crate) tool: Arc<Tool>,
}

/// What is waited for.
enum Happened {
    Accepted(io::Result<TcpStream>),
    ClientEnded(Result<io::Result<()>, JoinError>),
    CliEnded,
    Gone(Fate),
    Asked,
}

impl Session {
    /// Serves clients until the user, the process or the only client ends it. The
    /// debugger is detached then.
    ///
    /// # Errors
    /// When the process ended, or the debugger was lost for good.
    pub(crate) async fn run(mut self, context: &Context) -> Result<ExitStatus> {
        let mut clients = JoinSet::new();
        if self.aim == Aim::Stdio {
            self.spawn(&mut clients, tokio::io::stdin(), tokio::io::stdout());
        }
        let mut cli = match self.aim {
            Aim::Cli => Some(self.tool.command_line(self.port, &self.rules)?),
            _ => None,
        };
        loop {
            let happened = tokio::select! {
                accepted = accept(self.listener.as_ref()) => Happened::Accepted(accepted),
                Some(ended) = clients.join_next() => Happened::ClientEnded(ended),
                () = end_of(cli.as_mut()) => Happened::CliEnded,
                fate = self.hold.keep() => Happened::Gone(fate),
                () = context.shutdown.requested() => Happened::Asked,
            };
            match happened {
                Happened::Accepted(Ok(stream)) => {
                    let (reader, writer) = stream.into_split();
                    self.spawn(&mut clients, reader, writer);
                }
                // One client's trouble, such as no more descriptors.
                Happened::Accepted(Err(error)) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                Happened::ClientEnded(ended) => {
                    if let Ok(Err(error)) = ended {
                        tracing::info!(%error, "a connection to the debugger broke");
                    }
                    if self.aim == Aim::Stdio {
                        break;
                    }
                    if clients.is_empty() && cli.is_none() {
                        self.calm().await?;
                    }
                }
                Happened::CliEnded | Happened::Asked => break,
                Happened::Gone(Fate::Lost(reason)) => {
                    self.reporter.tell(&Event::Lost { reason })?;
                    let again = context.shutdown.guard(async { Ok(hold::again(&self.place, &self.order).await) });
                    match again.await {
                        Ok(Ok(hold)) => {
                            self.hold = hold;
                            self.reporter.tell(&Event::Reattached)?;
                        }
                        Ok(Err(failure)) => return Err(lost(failure)),
                        // The agent detaches by itself.
                        Err(_) => return Ok(ExitStatus::Success),
                    }
                }
                Happened::Gone(Fate::Ended { end, repaired }) => return Err(ended(end, repaired)),
            }
        }
        drop(cli);
        // They would see how the debugger goes.
        clients.shutdown().await;
        match self.hold.end().await {
            Fate::Ended { end: HoldEnd::Exited, .. } => self.reporter.ui.say("the process has ended"),
            Fate::Ended { repaired, .. } => self.reporter.tell(&Event::Detached { repaired })?,
            Fate::Lost(reason) => self.reporter.ui.warn(format!("nothing tells whether the debugger is detached: {reason}")),
        }
        journal::note(json!({"did": "detach", "pid": self.order.process.pid}))?;
        Ok(ExitStatus::Success)
    }

    fn spawn<R, W>(&self, clients: &mut JoinSet<io::Result<()>>, reader: R, writer: W)
    where
        R: tokio::io::AsyncRead + Unpin + Send + 'static,
        W: tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (place, rules, socket) = (Arc::clone(&self.place), Arc::clone(&self.rules), self.order.socket.clone());
        let tool = Arc::clone(&self.tool);
        clients.spawn(async move {
            let link = Link { runner: &place.runner, socket: &socket, rules: &rules };
            tool.serve(link, reader, writer).await
        });
    }

    /// After the last client.
    async fn calm(&self) -> Result<()> {
        let link = Link { runner: &self.place.runner, socket: &self.order.socket, rules: &self.rules };
        match self.tool.calm(link).await {
            Ok(breakpoints) => self.reporter.tell(&Event::Left { breakpoints: breakpoints.unwrap_or(0) }),
            // The debugger may be gone, which is told by itself.
            Err(error) => {
                tracing::info!(%error, "could not remove the breakpoints that a client left");
                Ok(())
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn end_of(cli: Option<&mut Cli>) {
    match cli {
        Some(cli) => cli.end().await,
        None => std::future::pending().await,
    }
}

fn ended(end: HoldEnd, repaired: u32) -> CommandError {
    match end {
        HoldEnd::Exited => {
            CommandError::new("the process has ended").with_hint("see why with `kubectl logs-tail`; run the command again for the next one")
        }
        HoldEnd::Detached => CommandError::new("the debugger was told to detach; the process runs on").with_hint("run the command again"),
        HoldEnd::DebuggerDied(words) => CommandError::new(format!(
            "the debugger ended by itself; the process runs on{}",
            if repaired > 0 { format!(", breakpoints taken out of it: {repaired}") } else { String::new() }
        ))
        .caused_by(words)
        .with_hint("run the command again"),
    }
}

fn lost(failure: NotHeld) -> CommandError {
    let error = CommandError::new("the debugger could not be attached again");
    match failure {
        NotHeld::Refused(_, message) => error.caused_by(message),
        NotHeld::Agent(cause) => error.caused_by(CommandError::from(cause)),
    }
    .with_hint("run the command again")
}
