//! The reader of one container's log, instance by instance, and what it does when a
//! connection has ended.

use super::connection::Ending;
use super::instance::{InstanceState, Observed, PodState, Step, decide};
use super::line::RawLine;
use super::queue::Output;
use super::sieve::Sieve;
use super::turns::Turns;
use super::{LogEvent, LogOptions, LogsError, Origin, Source};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// With the newest instance, as far back as the options say: the container
    /// was there before.
    Newest,
    /// With the container's first instance: it is new.
    First,
}

/// Reads one container's log until its pod is gone or nobody listens, by connections
/// that are shared.
///
/// `observed_rx` tells what becomes of the container; see
/// [`containers`](super::containers). It must say when the pod is gone.
///
/// # Errors
/// When the API server refuses. All other failures are tried again.
pub(super) async fn follow(
    client: Client,
    source: Arc<Source>,
    observed_rx: watch::Receiver<Observed>,
    beginning: Beginning,
    options: LogOptions,
    output: Output,
    turns: Turns,
) -> Result<(), LogsError> {
    let mut reader = Reader::new(&client, source, observed_rx, beginning, options, output, turns);
    let source = Arc::clone(&reader.source);
    reader.say(LogEvent::Opened(Arc::clone(&source))).await;
    reader.run(Mode::Follow).await?;
    reader.say(LogEvent::Closed(source)).await;
    Ok(())
}

/// Whether a reader goes on when it has read what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Follow,
    Once,
}

/// Turns a failed request for a log into an error.
pub(super) fn classify(source: kube::Error, doing: String) -> LogsError {
    match code(&source) {
        Some(401 | 403) => LogsError::Forbidden { doing, source },
        _ => LogsError::Unavailable { doing, source },
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// How often a request that ends by itself is tried before it is given up.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the news of a restart may lag behind the log of the new instance.
const NEWS_LAG: Duration = Duration::from_secs(3);

/// Goes from instance to instance, and from connection to connection.
pub(super) struct Reader {
    pub(super) pods: Api<Pod>,
    pub(super) source: Arc<Source>,
    pub(super) observed_rx: watch::Receiver<Observed>,
    pub(super) options: LogOptions,
    pub(super) output: Output,
    pub(super) turns: Turns,
    pub(super) sieve: Sieve,
    /// Whether what was there at the beginning is still to be read, for the order.
    has_history: bool,
    /// The first instance not read to its end, once known.
    next: Option<u32>,
    beginning: Beginning,
    /// When the options' `since` is counted from.
    pub(super) started: Instant,
    /// Whether the last connection of this instance ended well.
    caught_up: bool,
    pub(super) interrupted: bool,
    pub(super) has_connected: bool,
    pub(super) failures: u32,
}

impl Reader {
    pub(super) fn new(
        client: &Client,
        source: Arc<Source>,
        observed_rx: watch::Receiver<Observed>,
        beginning: Beginning,
        options: LogOptions,
        output: Output,
        turns: Turns,
    ) -> Self {
        let is_limited = beginning == Beginning::Newest && (options.since.is_some() || options.tail.is_some());
        Self {
            pods: Api::namespaced(client.clone(), &source.namespace),
            sieve: Sieve::new(Arc::clone(&source), &options, is_limited),
            source,
            observed_rx,
            has_history: options.window.is_some() && beginning == Beginning::Newest,
            options,
            output,
            turns,
            next: None,
            beginning,
            started: Instant::now(),
            caught_up: false,
            interrupted: false,
            has_connected: false,
            failures: 0,
        }
    }

    /// Says something behind what was read; waits for a slow listener. False when
    /// nobody listens.
    pub(super) async fn say(&mut self, event: LogEvent) -> bool {
        self.sieve.said().push(event);
        self.flush().await
    }

    /// Passes on what was read.
    pub(super) async fn flush(&mut self) -> bool {
        let said = self.sieve.said();
        said.is_empty() || self.output.send(said.take()).await
    }

    /// What was there at the beginning was read, or can't be: others needn't wait.
    pub(super) async fn end_history(&mut self) {
        if std::mem::take(&mut self.has_history) {
            self.output.caught_up().await;
        }
    }

    pub(super) async fn run(&mut self, mode: Mode) -> Result<(), LogsError> {
        loop {
            let observed = self.observed_rx.borrow_and_update().clone();
            let newest = observed.latest.map_or(0, |latest| latest.number);
            let next = *self.next.get_or_insert(match self.beginning {
                // The one before is the oldest that the API has.
                Beginning::Newest if self.options.all && has_previous(&observed) => newest.saturating_sub(1),
                Beginning::Newest => newest,
                Beginning::First => 0,
            });
            if observed.pod == PodState::Gone {
                if !self.caught_up && observed.latest.is_some_and(|latest| latest.number >= next) {
                    self.gap("the pod was deleted before its log was read to the end").await;
                }
                return Ok(());
            }
            let goes_on = match decide(next, &observed) {
                Step::Idle if mode == Mode::Once => return Ok(()),
                Step::Idle => {
                    self.end_history().await;
                    tokio::select! {
                        changed = self.observed_rx.changed() => changed.is_ok(),
                        () = self.output.closed() => false,
                    }
                }
                Step::Skip { to } => {
                    let lost = if to - next == 1 {
                        "the log of one instance is".to_owned()
                    } else {
                        format!("the logs of {} instances are", to - next)
                    };
                    self.gap(&format!("the container restarted; {lost} gone (or the rest of it)")).await;
                    self.go_on_with(to);
                    true
                }
                Step::Follow => self.follow_instance(next, mode).await?,
                Step::Finish { previous } => self.finish_instance(next, previous, mode).await?,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Reads the instance before the current one, as `kubectl logs --previous`.
    pub(super) async fn run_previous(&mut self) -> Result<(), LogsError> {
        self.next = Some(0);
        while self.next == Some(0) {
            if !self.finish_instance(0, true, Mode::Once).await? {
                break;
            }
        }
        Ok(())
    }

    /// One connection to the running instance. True to go on.
    async fn follow_instance(&mut self, number: u32, mode: Mode) -> Result<bool, LogsError> {
        self.caught_up = false;
        // What is there comes by a connection that ends, so that its end is known.
        let is_history = mode == Mode::Follow && self.has_history;
        let params = LogParams { follow: mode == Mode::Follow && !is_history, ..LogParams::default() };
        let ending = self.connection(number, params, if is_history { Mode::Once } else { mode }).await;
        self.end_history().await;
        match ending {
            Ending::Unheard => Ok(false),
            Ending::Clean(rest) if mode == Mode::Once => {
                self.last(rest).await;
                Ok(false)
            }
            Ending::Clean(_) if is_history => Ok(true),
            Ending::Clean(_) => {
                // The news of the instance's end may be on its way.
                self.caught_up = true;
                self.pause().await;
                Ok(true)
            }
            Ending::Superseded | Ending::Yielded => Ok(true),
            Ending::Foreign => {
                self.foreign(number).await;
                Ok(true)
            }
            Ending::Broken(error) => self.broken(error, mode).await,
            Ending::Refused(error) => self.refused(error, mode).await,
        }
    }

    /// One connection to the instance that has ended, to its last line. True to go on.
    async fn finish_instance(&mut self, number: u32, previous: bool, mode: Mode) -> Result<bool, LogsError> {
        match self.connection(number, LogParams { previous, ..LogParams::default() }, Mode::Once).await {
            Ending::Unheard => return Ok(false),
            Ending::Clean(rest) => {
                self.last(rest).await;
                self.caught_up = true;
                self.go_on_with(number + 1);
            }
            // What was read is of the next instance, whose news was late, or
            // the log was rotated; the next line will tell.
            Ending::Foreign if previous => self.sieve.resume.put_ahead(),
            Ending::Foreign => self.foreign(number).await,
            Ending::Superseded | Ending::Yielded => {}
            Ending::Broken(error) => return self.broken(error, mode).await,
            // The kubelet or the API server no longer has it.
            Ending::Refused(error) if matches!(code(&error), Some(400 | 404)) && self.failures + 1 >= ATTEMPTS => {
                if !self.caught_up {
                    self.gap(&format!("the log of an instance that has ended can't be read: {error}")).await;
                }
                self.go_on_with(number + 1);
            }
            Ending::Refused(error) => return self.refused(error, mode).await,
        }
        Ok(true)
    }

    fn go_on_with(&mut self, number: u32) {
        self.next = Some(number);
        self.sieve.next_instance();
        self.caught_up = false;
        self.failures = 0;
    }

    /// The log that was opened isn't the one that was read before: waits for
    /// the news of a restart, else takes it as rotated.
    async fn foreign(&mut self, number: u32) {
        let mut observed_rx = self.observed_rx.clone();
        let restarted = observed_rx
            .wait_for(|observed| observed.pod == PodState::Gone || observed.latest.is_some_and(|latest| latest.number != number));
        if tokio::time::timeout(NEWS_LAG, restarted).await.is_err() {
            self.sieve.start_over();
            self.flush().await;
        }
    }

    /// Takes what came after the last newline of an instance that has ended.
    async fn last(&mut self, rest: Option<RawLine>) {
        if let Some(line) = rest {
            self.sieve.take(line);
            self.flush().await;
        }
    }

    async fn gap(&mut self, why: &str) {
        self.sieve.gap(why);
        self.flush().await;
    }

    async fn broken(&mut self, error: std::io::Error, mode: Mode) -> Result<bool, LogsError> {
        tracing::debug!(pod = self.source.pod, container = self.source.container, %error, "log connection broke");
        if mode == Mode::Once && self.failures + 1 >= ATTEMPTS {
            return Err(LogsError::Broken(format!("{}/{}", self.source.pod, self.source.container), error));
        }
        self.pause().await;
        Ok(true)
    }

    async fn refused(&mut self, error: kube::Error, mode: Mode) -> Result<bool, LogsError> {
        tracing::debug!(pod = self.source.pod, container = self.source.container, %error, "log request failed");
        let code = code(&error);
        let is_forbidden = matches!(code, Some(401 | 403)) && !self.has_connected;
        if is_forbidden || (mode == Mode::Once && self.failures + 1 >= ATTEMPTS) {
            return Err(classify(error, format!("read the log of {}/{}", self.source.pod, self.source.container)));
        }
        // Not started yet, or just gone: the news will tell.
        if !matches!(code, Some(400 | 404)) && !self.interrupted {
            self.interrupted = true;
            self.say(LogEvent::Interrupted(Origin::Log(Arc::clone(&self.source)), error.to_string())).await;
        }
        self.pause().await;
        Ok(true)
    }

    /// Waits a little longer each time, or until there is news.
    async fn pause(&mut self) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = self.observed_rx.changed() => {}
            () = self.output.closed() => {}
        }
    }
}

/// Whether the API has the log of the instance before the newest one that has started.
fn has_previous(observed: &Observed) -> bool {
    observed.has_previous && observed.latest.is_some_and(|latest| latest.state != InstanceState::Superseded)
}
