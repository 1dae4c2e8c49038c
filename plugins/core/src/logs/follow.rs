//! The reader of one container's log, instance by instance.

use super::fetch::LineReader;
use super::instance::{InstanceState, Observed, PodState, Step, decide, patience};
use super::line::RawLine;
use super::queue::Output;
use super::resume::{Resume, Verdict, whole_second};
use super::turns::{Turn, Turns};
use super::{LogEvent, LogLine, LogOptions, LogsError, Origin, Since, Source};
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
    reader.send(LogEvent::Opened(Arc::clone(&source))).await;
    reader.run(Mode::Follow).await?;
    reader.send(LogEvent::Closed(source)).await;
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

const ROTATED: &str = "lines may be missing: the log was rotated since the last line read";

/// How long the news of a restart may lag behind the log of the new instance.
const NEWS_LAG: Duration = Duration::from_secs(3);

/// Lines of stdout and stderr have stamps of their own, and so may be out of order.
const STREAMS_APART: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// The kubelet may answer only when there is a first line; a server that
/// hasn't refused for longer than a connection may take is there again.
const SILENCE_IS_ANSWER: Duration = Duration::from_secs(12);

pub(super) struct Reader {
    pods: Api<Pod>,
    pub(super) source: Arc<Source>,
    observed_rx: watch::Receiver<Observed>,
    options: LogOptions,
    output: Output,
    turns: Turns,
    /// So many lines are still wanted.
    left: Option<u64>,
    /// Whether what was there at the beginning is still to be read, for the order.
    has_history: bool,
    resume: Resume,
    /// The first instance not read to its end, once known.
    next: Option<u32>,
    beginning: Beginning,
    /// When the options' `since` is counted from.
    started: Instant,
    /// Whether the options limit what is read of this instance.
    limit: Limit,
    /// Whether the last connection of this instance ended well.
    caught_up: bool,
    interrupted: bool,
    has_connected: bool,
    failures: u32,
    last_notice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// From the instance's beginning.
    None,
    /// By time and number of lines.
    TimeAndTail,
    /// By time only: a connection has shown that there were no lines to count.
    Time,
}

/// How a connection ended.
enum Ending {
    /// The server ended it; with the beginning of a line, perhaps.
    Clean(Option<RawLine>),
    Broken(std::io::Error),
    Refused(kube::Error),
    /// It isn't the log that was read before.
    Foreign,
    /// The instance has ended, and the connection hasn't.
    Superseded,
    /// Nobody listens any more, or all that is wanted was read.
    Unheard,
    /// Others wait for a connection.
    Yielded,
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
            source,
            observed_rx,
            left: options.head,
            has_history: options.window.is_some() && beginning == Beginning::Newest,
            options,
            output,
            turns,
            resume: Resume::default(),
            next: None,
            beginning,
            started: Instant::now(),
            limit: if is_limited { Limit::TimeAndTail } else { Limit::None },
            caught_up: false,
            interrupted: false,
            has_connected: false,
            failures: 0,
            last_notice: None,
        }
    }

    /// Sends an event; waits for a slow listener. False when nobody listens.
    async fn send(&self, event: LogEvent) -> bool {
        self.output.send(event).await
    }

    /// What was there at the beginning was read, or can't be: others needn't wait.
    async fn end_history(&mut self) {
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
                if let Some(line) = rest {
                    self.take(line).await;
                }
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
                if let Some(line) = rest {
                    self.take(line).await;
                }
                self.caught_up = true;
                self.go_on_with(number + 1);
            }
            // What was read is of the next instance, whose news was late, or
            // the log was rotated; the next line will tell.
            Ending::Foreign if previous => self.resume.put_ahead(),
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
        self.resume.next_instance();
        self.limit = Limit::None;
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
            self.start_over().await;
        }
    }

    async fn start_over(&mut self) {
        self.gap(ROTATED).await;
        self.resume.next_instance();
        if self.limit == Limit::TimeAndTail {
            self.limit = Limit::Time;
        }
    }

    async fn gap(&self, why: &str) {
        self.send(LogEvent::Gap(Arc::clone(&self.source), why.to_owned())).await;
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
            self.send(LogEvent::Interrupted(Origin::Log(Arc::clone(&self.source)), error.to_string())).await;
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

    /// Opens a connection where the last one was left and passes its lines on.
    async fn connection(&mut self, number: u32, params: LogParams, mode: Mode) -> Ending {
        let turn = match self.turns.try_begin() {
            Some(turn) => turn,
            None => {
                // Those who hold a connection may wait for this one's lines.
                self.end_history().await;
                tokio::select! {
                    turn = self.turns.begin() => turn,
                    () = self.output.closed() => return Ending::Unheard,
                }
            }
        };
        let ending = self.connection_in(&turn, number, params, mode).await;
        drop(turn);
        ending
    }

    async fn connection_in(&mut self, turn: &Turn, number: u32, params: LogParams, mode: Mode) -> Ending {
        if self.limit == Limit::TimeAndTail && self.options.tail == Some(0) {
            let anchored = self.anchor(params.previous).await;
            if let Some(ending) = anchored {
                return ending;
            }
        }
        let mut params = LogParams { container: Some(self.source.container.clone()), timestamps: true, ..params };
        self.limit_params(&mut params);
        let is_resumed = params.since_time.is_some();
        let superseded = superseded(self.observed_rx.clone(), number, mode);
        tokio::pin!(superseded);
        let pods = self.pods.clone();
        let pod = self.source.pod.clone();
        let opening = LineReader::open(&pods, &pod, &params);
        tokio::pin!(opening);
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                () = &mut superseded => return Ending::Superseded,
                () = self.output.closed() => return Ending::Unheard,
                () = tokio::time::sleep(SILENCE_IS_ANSWER), if self.interrupted => self.restored().await,
            }
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => return Ending::Refused(error),
        };
        self.has_connected = true;
        self.restored().await;
        self.resume.connect();
        let mut has_stamps = false;
        loop {
            // Only the wait for a line is given up, never a line that was taken.
            let line = tokio::select! {
                biased;
                () = &mut superseded => return Ending::Superseded,
                line = reader.next() => line,
                () = turn.is_over(), if mode == Mode::Follow => return Ending::Yielded,
                () = self.output.closed() => return Ending::Unheard,
            };
            let line = match line {
                Ok(Some(line)) => line,
                // Read to its end without a line that was read before.
                Ok(None) if mode == Mode::Once && !self.resume.is_proven() => return Ending::Foreign,
                Ok(None) => {
                    if self.limit == Limit::TimeAndTail {
                        self.limit = Limit::Time;
                    }
                    return Ending::Clean(reader.rest());
                }
                Err(error) => return Ending::Broken(error),
            };
            // The end of a long line whose beginning, with the stamp, lies
            // before the time asked for.
            if line.timestamp.is_none() && is_resumed && !has_stamps {
                continue;
            }
            has_stamps |= line.timestamp.is_some();
            match self.take(line).await {
                // A busy log has no moment when nothing comes.
                Taken::Heard if mode == Mode::Follow && turn.is_due() => return Ending::Yielded,
                Taken::Heard => {}
                Taken::Foreign => return Ending::Foreign,
                Taken::Unheard => return Ending::Unheard,
            }
        }
    }

    fn limit_params(&self, params: &mut LogParams) {
        params.since_time = self.resume.since();
        if params.since_time.is_some() || self.limit == Limit::None {
            return;
        }
        match self.options.since {
            Some(Since::Ago(since)) => {
                // Relative to the server's clock, which has gone on.
                let elapsed = i64::try_from(self.started.elapsed().as_secs()).unwrap_or(0);
                params.since_seconds = Some(since.as_secs().saturating_add(elapsed).max(1));
            }
            // What lies before it in its second is left out by `take`.
            Some(Since::At(time)) => params.since_time = Some(whole_second(time)),
            None => {}
        }
        if self.limit == Limit::TimeAndTail {
            params.tail_lines = self.options.tail.map(i64::from);
        }
    }

    /// With `--tail 0`: finds the last line that isn't wanted, so that the
    /// lines after it are, whatever happens to the connection.
    async fn anchor(&mut self, previous: bool) -> Option<Ending> {
        let params = LogParams {
            container: Some(self.source.container.clone()),
            timestamps: true,
            tail_lines: Some(1),
            previous,
            ..LogParams::default()
        };
        let mut reader = match LineReader::open(&self.pods, &self.source.pod, &params).await {
            Ok(reader) => reader,
            Err(error) => return Some(Ending::Refused(error)),
        };
        match reader.next().await {
            Ok(Some(RawLine { timestamp: Some(timestamp), .. })) => {
                self.resume.connect();
                self.resume.begin_at(timestamp);
                self.resume.accept(timestamp);
            }
            Ok(_) => {}
            Err(error) => return Some(Ending::Broken(error)),
        }
        self.limit = Limit::Time;
        None
    }

    async fn restored(&mut self) {
        if std::mem::take(&mut self.interrupted) {
            self.send(LogEvent::Restored(Origin::Log(Arc::clone(&self.source)))).await;
        }
    }

    async fn take(&mut self, line: RawLine) -> Taken {
        let Some(timestamp) = line.timestamp else {
            let text = String::from_utf8_lossy(&line.message).into_owned();
            if self.last_notice.as_ref() == Some(&text) {
                return Taken::Heard;
            }
            self.last_notice = Some(text.clone());
            let is_heard = self.send(LogEvent::Notice(Arc::clone(&self.source), text)).await;
            return if is_heard { Taken::Heard } else { Taken::Unheard };
        };
        // The API counts in seconds.
        if self.limit != Limit::None && matches!(self.options.since, Some(Since::At(since)) if timestamp < since) {
            return Taken::Heard;
        }
        if let Some(until) = self.options.until
            && timestamp > until
        {
            // The two streams of a container may be out of order by a little.
            let is_over = timestamp.duration_since(until) > STREAMS_APART;
            return if is_over { Taken::Unheard } else { Taken::Heard };
        }
        if self.resume.reveals_rotation(timestamp) {
            self.gap(ROTATED).await;
        }
        if self.limit != Limit::None {
            self.resume.begin_at(timestamp);
        }
        match self.resume.accept(timestamp) {
            Verdict::Seen => Taken::Heard,
            Verdict::Foreign => Taken::Foreign,
            Verdict::New => {
                self.failures = 0;
                let line = LogLine { source: Arc::clone(&self.source), timestamp, message: line.message, cut: line.cut };
                if !self.send(LogEvent::Line(line)).await {
                    return Taken::Unheard;
                }
                self.left = self.left.map(|left| left.saturating_sub(1));
                if self.left == Some(0) { Taken::Unheard } else { Taken::Heard }
            }
        }
    }
}

/// Whether the API has the log of the instance before the newest one that has started.
fn has_previous(observed: &Observed) -> bool {
    observed.has_previous && observed.latest.is_some_and(|latest| latest.state != InstanceState::Superseded)
}

enum Taken {
    Heard,
    Foreign,
    Unheard,
}

/// Resolves when a connection to instance `number` should have ended by itself.
/// A connection that doesn't follow always does.
async fn superseded(mut observed_rx: watch::Receiver<Observed>, number: u32, mode: Mode) {
    if mode == Mode::Once {
        return std::future::pending().await;
    }
    loop {
        let patience = patience(number, &observed_rx.borrow_and_update());
        let changed = match patience {
            Some(patience) => match tokio::time::timeout(patience, observed_rx.changed()).await {
                Ok(changed) => changed,
                Err(_) => return,
            },
            None => observed_rx.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}
