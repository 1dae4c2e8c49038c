//! One connection of a reader to the log of an instance, from its request to its end.

use super::fetch::LineReader;
use super::follow::{Mode, Reader};
use super::instance::{Observed, patience};
use super::line::RawLine;
use super::resume::whole_second;
use super::sieve::{Limit, Taken};
use super::sleep::machine_slept;
use super::turns::Turn;
use super::{LogEvent, Origin, Since};
use kube::api::LogParams;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The kubelet may answer only when there is a first line; a server that
/// hasn't refused for longer than a connection may take is there again.
const SILENCE_IS_ANSWER: Duration = Duration::from_secs(12);

/// A connection that has been silent for so long is made anew: where the network
/// was cut, nobody may ever say that it is dead.
const SILENCE_IS_DEATH: Duration = Duration::from_secs(240);

/// How a connection ended.
pub(super) enum Ending {
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
    /// Others wait for a connection, or this one may be dead.
    Yielded,
}

impl Reader {
    /// Opens a connection where the last one was left and passes its lines on.
    pub(super) async fn connection(&mut self, number: u32, params: LogParams, mode: Mode) -> Ending {
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
        if self.flush().await { ending } else { Ending::Unheard }
    }

    async fn connection_in(&mut self, turn: &Turn, number: u32, params: LogParams, mode: Mode) -> Ending {
        if self.sieve.limit == Limit::TimeAndTail && self.options.tail == Some(0) {
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
        let dead = tokio::time::sleep(SILENCE_IS_DEATH);
        tokio::pin!(opening, dead);
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                () = &mut superseded => return Ending::Superseded,
                () = self.output.closed() => return Ending::Unheard,
                () = machine_slept() => return Ending::Yielded,
                () = &mut dead => return Ending::Yielded,
                () = tokio::time::sleep(SILENCE_IS_ANSWER), if self.interrupted => self.restored().await,
            }
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => return Ending::Refused(error),
        };
        self.has_connected = true;
        self.restored().await;
        self.sieve.connect();
        let mut has_stamps = false;
        loop {
            // Only the wait for lines is given up, never lines that were taken.
            let lines = tokio::select! {
                biased;
                () = &mut superseded => return Ending::Superseded,
                lines = reader.next() => lines,
                () = turn.is_over(), if mode == Mode::Follow => return Ending::Yielded,
                () = machine_slept() => return Ending::Yielded,
                () = tokio::time::sleep(SILENCE_IS_DEATH) => return Ending::Yielded,
                () = self.output.closed() => return Ending::Unheard,
            };
            let lines = match lines {
                Ok(Some(lines)) => lines,
                // Read to its end without a line that was read before.
                Ok(None) if mode == Mode::Once && !self.sieve.resume.is_proven() => return Ending::Foreign,
                Ok(None) => {
                    self.sieve.has_no_tail();
                    return Ending::Clean(reader.rest());
                }
                Err(error) => return Ending::Broken(error),
            };
            for line in lines {
                // The end of a long line whose beginning, with the stamp, lies
                // before the time asked for.
                if line.timestamp.is_none() && is_resumed && !has_stamps {
                    continue;
                }
                has_stamps |= line.timestamp.is_some();
                match self.sieve.take(line) {
                    Taken::New => self.failures = 0,
                    Taken::Passed => {}
                    Taken::Foreign => return Ending::Foreign,
                    Taken::Enough => return Ending::Unheard,
                }
                if self.sieve.said().is_full() && !self.flush().await {
                    return Ending::Unheard;
                }
            }
            if !self.flush().await {
                return Ending::Unheard;
            }
            // A busy log has no moment when nothing comes.
            if mode == Mode::Follow && turn.is_due() {
                return Ending::Yielded;
            }
        }
    }

    fn limit_params(&self, params: &mut LogParams) {
        params.since_time = self.sieve.resume.since();
        if params.since_time.is_some() || self.sieve.limit == Limit::None {
            return;
        }
        match self.options.since {
            Some(Since::Ago(since)) => {
                // Relative to the server's clock, which has gone on.
                let elapsed = i64::try_from(self.started.elapsed().as_secs()).unwrap_or(0);
                params.since_seconds = Some(since.as_secs().saturating_add(elapsed).max(1));
            }
            // What lies before it in its second is left out later.
            Some(Since::At(time)) => params.since_time = Some(whole_second(time)),
            None => {}
        }
        if self.sieve.limit == Limit::TimeAndTail {
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
            Ok(lines) => {
                if let Some(timestamp) = lines.into_iter().flatten().find_map(|line| line.timestamp) {
                    self.sieve.anchor(timestamp);
                }
            }
            Err(error) => return Some(Ending::Broken(error)),
        }
        self.sieve.has_no_tail();
        None
    }

    async fn restored(&mut self) {
        if std::mem::take(&mut self.interrupted) {
            self.say(LogEvent::Restored(Origin::Log(Arc::clone(&self.source)))).await;
        }
    }
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
