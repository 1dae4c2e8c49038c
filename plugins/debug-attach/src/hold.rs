//! The debugger, held by the agent for as long as this command is there.

use crate::place::Place;
use devloop_core::agent::debug::{HEARTBEAT, Held, HoldEnd, HoldFailure};
use devloop_core::agent::{AgentError, Messages, ProcessId, Runner};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How long attaching may take, the agent's own patience included.
const PATIENCE: Duration = Duration::from_secs(75);
/// How long detaching may take.
const FAREWELL: Duration = Duration::from_secs(12);

/// What to attach to what, where the agent runs.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) socket: String,
    pub(crate) process: ProcessId,
    /// The debugger, as the agent names it, and what that one takes.
    pub(crate) debugger: Vec<String>,
}

/// Why there is no debugger.
#[derive(Debug)]
pub(crate) enum NotHeld {
    /// The agent tried.
    Refused(HoldFailure, String),
    /// The agent could not be asked.
    Agent(AgentError),
}

/// A debugger that is attached.
#[derive(Debug)]
pub(crate) struct Hold {
    stdin: Stdin,
    messages: Messages,
    beat: Interval,
    /// How long the process stood still for it.
    pub(crate) stopped: Duration,
}

struct Stdin(Pin<Box<dyn AsyncWrite + Send>>);

impl std::fmt::Debug for Stdin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Stdin")
    }
}

/// What became of a debugger.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It ended, and that was told.
    Ended { end: HoldEnd, repaired: u32 },
    /// The connection to it broke; the agent detaches it by itself.
    Lost(String),
}

impl Hold {
    /// Attaches the debugger, and waits until it takes connections.
    pub(crate) async fn start(runner: &Runner, order: &Order) -> Result<Self, NotHeld> {
        let (pid, start) = (order.process.pid.to_string(), order.process.start_time.to_string());
        let mut arguments = vec!["hold", &order.socket, &pid, &start];
        arguments.extend(order.debugger.iter().map(String::as_str));
        let attached = async {
            let (stdin, mut messages) = runner.start(&arguments).await?.split();
            match messages.next::<Held>().await? {
                Some(Held::Attached { stopped_micros }) => {
                    let mut beat = interval(HEARTBEAT);
                    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    Ok(Ok(Self { stdin: Stdin(stdin), messages, beat, stopped: Duration::from_micros(stopped_micros) }))
                }
                Some(Held::Failed { reason, message }) => Ok(Err((reason, message))),
                Some(Held::Ended { .. }) => Err(AgentError::Unexpected("it ended before it was attached".to_owned())),
                None => Err(AgentError::Ended(messages.complaint().await)),
            }
        };
        match tokio::time::timeout(PATIENCE, attached).await {
            Ok(Ok(Ok(hold))) => Ok(hold),
            Ok(Ok(Err((reason, message)))) => Err(NotHeld::Refused(reason, message)),
            Ok(Err(error)) => Err(NotHeld::Agent(error)),
            Err(_) => Err(NotHeld::Agent(AgentError::TimedOut(PATIENCE))),
        }
    }

    /// Keeps it attached; answers when it is gone. Can be dropped and begun again.
    pub(crate) async fn keep(&mut self) -> Fate {
        loop {
            tokio::select! {
                message = self.messages.next::<Held>() => return fate(message),
                _ = self.beat.tick() => {
                    let Stdin(stdin) = &mut self.stdin;
                    let beat = async {
                        stdin.write_all(b".").await?;
                        stdin.flush().await
                    };
                    if let Err(error) = beat.await {
                        return Fate::Lost(error.to_string());
                    }
                }
            }
        }
    }

    /// Detaches it.
    pub(crate) async fn end(mut self) -> Fate {
        // It may be gone already.
        let _ = self.stdin.0.shutdown().await;
        drop(self.stdin);
        match tokio::time::timeout(FAREWELL, self.messages.next::<Held>()).await {
            Ok(message) => fate(message),
            Err(_) => Fate::Lost(format!("the agent did not answer within {} s", FAREWELL.as_secs())),
        }
    }
}

fn fate(message: Result<Option<Held>, AgentError>) -> Fate {
    match message {
        Ok(Some(Held::Ended { end, repaired })) => Fate::Ended { end, repaired },
        Ok(Some(other)) => Fate::Lost(format!("unexpected: {other:?}")),
        Ok(None) => Fate::Lost("the connection ended".to_owned()),
        Err(error) => Fate::Lost(error.to_string()),
    }
}

/// Attaches again after the connection was lost. The agent at its other end may
/// take a while to notice, and holds the process until then.
pub(crate) async fn again(place: &Place, order: &Order) -> Result<Hold, NotHeld> {
    /// Longer than the agent's own patience with a silent client.
    const LIMIT: Duration = Duration::from_secs(45);
    let started = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(250);
    loop {
        let failure = match Hold::start(&place.runner, order).await {
            Ok(hold) => return Ok(hold),
            Err(failure) => failure,
        };
        let may_pass = match &failure {
            NotHeld::Refused(reason, _) => *reason == HoldFailure::Traced,
            NotHeld::Agent(error) => error.is_worth_a_retry(),
        };
        if !may_pass || started.elapsed() + pause > LIMIT {
            return Err(failure);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(3));
    }
}
