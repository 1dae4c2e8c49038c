//! A program that is spoken to by lines, as one is at a terminal.

use crate::eventually;
use crate::program::{Program, Running};
use std::io::{Read, Write};
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

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
        let start = loop {
            if let Some(start) = self.said.find(wanted) {
                break start;
            }
            match self.pieces_rx.recv_timeout(PATIENCE) {
                Ok(piece) => self.said.push_str(&String::from_utf8_lossy(&piece)),
                Err(error) => panic!("no {wanted:?} ({error}): {}", self.said),
            }
        };
        self.said.drain(..start + wanted.len()).collect()
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
