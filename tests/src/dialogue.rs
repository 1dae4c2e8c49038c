//! A program that is spoken to by lines, as one is at a terminal.

use crate::eventually;
use crate::program::{Program, Running};
use std::io::{Read, Write};
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);

/// Ended when dropped.
#[derive(Debug)]
pub struct Dialogue {
    running: Running,
    pieces_rx: Receiver<Vec<u8>>,
    /// What it said that was not waited for yet.
    said: String,
}

impl Dialogue {
    /// Starts it.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(program: Program) -> Self {
        let mut running = program.input("").start();
        let mut stdout = running.child.stdout.take().unwrap();
        let (pieces_tx, pieces_rx) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut piece) {
                if pieces_tx.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { running, pieces_rx, said: String::new() }
    }

    /// Says a line.
    ///
    /// # Panics
    /// When it does not listen any more.
    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        writeln!(self.running.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for a text; answers all that was said until its end.
    ///
    /// # Panics
    /// When it does not come in time, or the program ends.
    #[track_caller]
    pub fn hear(&mut self, wanted: &str) -> String {
        self.heard(wanted, PATIENCE).unwrap_or_else(|| panic!("no {wanted:?}: {}", self.said))
    }

    /// The same for as long as this; nothing when it does not come.
    pub fn heard(&mut self, wanted: &str, patience: Duration) -> Option<String> {
        let started = Instant::now();
        loop {
            if let Some(start) = self.said.find(wanted) {
                return Some(self.said.drain(..start + wanted.len()).collect());
            }
            let piece = self.pieces_rx.recv_timeout(patience.saturating_sub(started.elapsed())).ok()?;
            self.said.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// Says a line and waits for a text; answers all that was said until its end.
    ///
    /// # Panics
    /// When it does not come in time, or the program ends.
    #[track_caller]
    pub fn ask(&mut self, line: &str, wanted: &str) -> String {
        self.tell(line);
        self.hear(wanted)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come in time.
    #[track_caller]
    pub fn ended(mut self) -> ExitStatus {
        eventually("the command ends", PATIENCE, || self.running.child.try_wait().unwrap().ok_or_else(|| self.said.clone()))
    }
}
