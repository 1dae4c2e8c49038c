//! An attached debugger and its clients, until something ends.

use crate::attach::Found;
use crate::cli::Cli;
use crate::farewell::{Farewell, Next};
use crate::follow;
use crate::hold::{self, Fate, Hold, News, NotHeld, Order};
use crate::journal;
use crate::place::Place;
use crate::ports::Opened;
use crate::report::{Event, Reporter, milliseconds};
use crate::request::Aim;
use crate::runtimes::{Link, Tool};
use crate::sources::Rule;
use crate::trace;
use devloop_core::agent::debug::HoldEnd;
use devloop_core::{CommandError, Context, ExitStatus, Result};
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// How long clients have to hear the debugger's last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a session works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) found: Found,
    pub(crate) reporter: Reporter,
    pub(crate) place: Arc<Place>,
    pub(crate) order: Order,
    pub(crate) hold: Hold,
    pub(crate) rules: Arc<[Rule]>,
    /// None where the editor speaks on stdin.
    pub(crate) opened: Option<Opened>,
    pub(crate) aim: Aim,
    /// The functions whose calls are told.
    pub(crate) trace: Arc<[String]>,
    /// Whether it ends with the process.
    pub(crate) once: bool,
    pub(crate) tool: Arc<Tool>,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Nothing is left to do.
    Over(ExitStatus),
    /// The process is not what it was.
    Gone(Box<Gone>),
}

/// What is known of a process that is not what it was.
#[derive(Debug)]
pub(crate) struct Gone {
    /// Whether it runs another program, and has not ended.
    pub(crate) is_replaced: bool,
    pub(crate) pod: String,
    pub(crate) opened: Option<Opened>,
}

/// What is waited for.
enum Happened {
    Accepted(io::Result<TcpStream>),
    ClientEnded(Result<io::Result<()>, JoinError>),
    CliEnded,
    TraceEnded(Result<Result<()>, JoinError>),
    Told(News),
    Asked,
}

impl Session {
    /// Serves clients until the user, the process or the only client ends it. The
    /// debugger is detached then.
    ///
    /// # Errors
    /// When the debugger was lost for good, or the process ended and with it the session.
    pub(crate) async fn run(mut self, context: &Context) -> Result<Ending> {
        let mut clients = JoinSet::new();
        let mut farewell = watch::Sender::default();
        let mut traces = JoinSet::new();
        self.trace(&mut traces, farewell.subscribe());
        if self.aim == Aim::Stdio {
            self.spawn(&mut clients, farewell.subscribe(), tokio::io::stdin(), tokio::io::stdout());
        }
        let mut cli = match self.aim {
            Aim::Cli => {
                Some(self.tool.command_line(self.link(farewell.subscribe()), self.opened.as_ref().map_or(0, |opened| opened.port))?)
            }
            _ => None,
        };
        loop {
            let happened = tokio::select! {
                accepted = accept(self.opened.as_ref()) => Happened::Accepted(accepted),
                Some(ended) = clients.join_next() => Happened::ClientEnded(ended),
                () = end_of(cli.as_mut()) => Happened::CliEnded,
                Some(ended) = traces.join_next() => Happened::TraceEnded(ended),
                news = self.hold.keep() => Happened::Told(news),
                () = context.shutdown.requested() => Happened::Asked,
            };
            match happened {
                Happened::Accepted(Ok(stream)) => {
                    let (reader, writer) = stream.into_split();
                    self.spawn(&mut clients, farewell.subscribe(), reader, writer);
                }
                // One client's trouble, such as no more descriptors.
                Happened::Accepted(Err(error)) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Happened::ClientEnded(ended) => {
                    if let Ok(Err(error)) = ended {
                        tracing::info!(%error, "a connection to the debugger broke");
                    }
                    if self.aim == Aim::Stdio {
                        break;
                    }
                    if clients.is_empty() && cli.is_none() {
                        self.calm(farewell.subscribe()).await?;
                    }
                }
                Happened::TraceEnded(Ok(Err(error))) => {
                    self.hold.end().await;
                    return Err(error);
                }
                Happened::TraceEnded(_) => {}
                Happened::CliEnded | Happened::Asked => break,
                Happened::Told(News::Joined(stopped)) => self.reporter.tell(&Event::Joined { stopped_ms: milliseconds(stopped) })?,
                Happened::Told(News::Gone(Fate::Lost(reason))) => {
                    self.reporter.tell(&Event::Lost { reason })?;
                    let again = context.shutdown.guard(async { Ok(self.again().await) });
                    match again.await {
                        Ok(Some(Ok(hold))) => {
                            self.hold = hold;
                            farewell.send_replace(Some(Next::Again));
                            farewell = watch::Sender::default();
                            self.reporter.tell(&Event::Reattached)?;
                            self.trace(&mut traces, farewell.subscribe());
                        }
                        Ok(Some(Err(failure))) if self.once => return Err(lost(failure)),
                        Ok(_) => return self.gone(false, &farewell, clients).await,
                        // The agent detaches by itself.
                        Err(_) => return Ok(Ending::Over(ExitStatus::Success)),
                    }
                }
                Happened::Told(News::Gone(Fate::Ended { end: end @ (HoldEnd::Exited | HoldEnd::Replaced), .. })) if !self.once => {
                    return self.gone(end == HoldEnd::Replaced, &farewell, clients).await;
                }
                Happened::Told(News::Gone(Fate::Ended { end, repaired })) => {
                    farewell.send_replace(Some(Next::Over));
                    drain(clients).await;
                    return Err(ended(end, repaired));
                }
            }
        }
        drop(cli);
        // It would send the process on while the debugger lets go of it.
        traces.shutdown().await;
        // They would see how the debugger goes.
        clients.shutdown().await;
        match self.hold.end().await {
            Fate::Ended { end: HoldEnd::Exited, .. } => self.reporter.ui.say("the process has ended"),
            Fate::Ended { repaired, .. } => self.reporter.tell(&Event::Detached { repaired })?,
            Fate::Lost(reason) => self.reporter.ui.warn(format!("nothing tells whether the debugger is detached: {reason}")),
        }
        journal::note(json!({"did": "detach", "pid": self.order.process.pid}))?;
        Ok(Ending::Over(ExitStatus::Success))
    }

    /// The process is not what it was: clients are told to start over.
    async fn gone(self, is_replaced: bool, farewell: &watch::Sender<Option<Next>>, clients: JoinSet<io::Result<()>>) -> Result<Ending> {
        self.reporter.tell(&Event::Gone { replaced: is_replaced })?;
        farewell.send_replace(Some(Next::Again));
        drain(clients).await;
        if self.aim == Aim::Stdio {
            // Its editor starts the command anew.
            return Ok(Ending::Over(ExitStatus::Success));
        }
        Ok(Ending::Gone(Box::new(Gone { is_replaced, pod: self.found.chosen.pod, opened: self.opened })))
    }

    /// Attaches again after the connection was lost; nothing when the container is gone.
    async fn again(&self) -> Option<Result<Hold, NotHeld>> {
        tokio::select! {
            held = hold::again(&self.place, &self.order) => Some(held),
            () = follow::container_ended(&self.found), if !self.once => None,
        }
    }

    fn spawn<R, W>(&self, clients: &mut JoinSet<io::Result<()>>, farewell: Farewell, reader: R, writer: W)
    where
        R: tokio::io::AsyncRead + Unpin + Send + 'static,
        W: tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (place, rules, socket) = (Arc::clone(&self.place), Arc::clone(&self.rules), self.order.socket.clone());
        let tool = Arc::clone(&self.tool);
        clients.spawn(async move {
            let link = Link { runner: &place.runner, socket: &socket, rules: &rules, farewell };
            tool.serve(link, reader, writer).await
        });
    }

    /// Tells of calls, where that is what it is for.
    fn trace(&self, traces: &mut JoinSet<Result<()>>, farewell: Farewell) {
        if self.aim != Aim::Trace {
            return;
        }
        let (place, rules, socket) = (Arc::clone(&self.place), Arc::clone(&self.rules), self.order.socket.clone());
        let (tool, names, reporter) = (Arc::clone(&self.tool), Arc::clone(&self.trace), self.reporter.clone());
        traces.spawn(async move {
            let link = Link { runner: &place.runner, socket: &socket, rules: &rules, farewell };
            trace::follow(&tool, link, &names, &reporter).await
        });
    }

    fn link(&self, farewell: Farewell) -> Link<'_> {
        Link { runner: &self.place.runner, socket: &self.order.socket, rules: &self.rules, farewell }
    }

    /// After the last client.
    async fn calm(&self, farewell: Farewell) -> Result<()> {
        match self.tool.calm(self.link(farewell)).await {
            Ok(breakpoints) => self.reporter.tell(&Event::Left { breakpoints: breakpoints.unwrap_or(0) }),
            // The debugger may be gone, which is told by itself.
            Err(error) => {
                tracing::info!(%error, "could not remove the breakpoints that a client left");
                Ok(())
            }
        }
    }
}

/// Lets clients hear what is said to them, and end by that.
async fn drain(mut clients: JoinSet<io::Result<()>>) {
    let all = async { while clients.join_next().await.is_some() {} };
    // One that does not read is cut off.
    let _ = tokio::time::timeout(LAST_WORDS, all).await;
}

async fn accept(opened: Option<&Opened>) -> io::Result<TcpStream> {
    match opened {
        Some(opened) => opened.listener.accept().await.map(|(stream, _)| stream),
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
        HoldEnd::Replaced => CommandError::new("the process runs another program now").with_hint("run the command again"),
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
