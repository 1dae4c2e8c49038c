//! A running `kubectl hot-reload`, and what it tells.

use crate::eventually;
use crate::program::{Program, Running};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);

/// A running `kubectl hot-reload -o json`.
#[derive(Debug)]
pub struct Session {
    /// The process.
    pub running: Running,
    lines_rx: Receiver<String>,
    /// All events so far, for messages.
    seen: Vec<String>,
    complaints: Arc<Mutex<String>>,
}

impl Session {
    /// Starts it and waits until it watches.
    ///
    /// # Panics
    /// When it doesn't get there.
    pub fn start(program: Program) -> Self {
        let mut session = Self::launch(program);
        session.wait_for("ready");
        session
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn launch(program: Program) -> Self {
        let mut running = program.start();
        let (lines_tx, lines_rx) = channel();
        let stdout = running.child.stdout.take().unwrap();
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| lines_tx.send(line)));
        let mut stderr = running.child.stderr.take().unwrap();
        let complaints = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&complaints);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { running, lines_rx, seen: Vec::new(), complaints }
    }

    /// The next event of a kind; others before it are passed over.
    ///
    /// # Panics
    /// When none comes in time, or the session ends.
    #[track_caller]
    pub fn wait_for(&mut self, kind: &str) -> Value {
        self.wait_until(&format!("event {kind:?}"), |event| event["event"] == kind)
    }

    /// The next event that is the one.
    ///
    /// # Panics
    /// When none comes in time, or the session ends.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            match self.next(PATIENCE.saturating_sub(started.elapsed())) {
                Ok(event) if is_it(&event) => return event,
                Ok(_) => {}
                Err(error) => panic!("no {what} ({error}); {}", self.describe()),
            }
        }
    }

    /// Passes over what was told already.
    pub fn skip(&mut self) {
        while self.next(Duration::ZERO).is_ok() {}
    }

    fn next(&mut self, limit: Duration) -> Result<Value, RecvTimeoutError> {
        let line = self.lines_rx.recv_timeout(limit)?;
        let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.seen.push(line);
        Ok(event)
    }

    /// What was told so far, for messages.
    pub fn describe(&self) -> String {
        let recent = &self.seen[self.seen.len().saturating_sub(30)..];
        format!("events so far: {recent:#?}\nstderr: {}", self.complaints.lock().unwrap())
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Panics
    /// When it doesn't end.
    pub fn end(mut self, signal: Signal) -> ExitStatus {
        self.running.signal(signal);
        eventually("the session ends", Duration::from_secs(30), || self.running.child.try_wait().unwrap().ok_or_else(|| self.describe()))
    }
}
