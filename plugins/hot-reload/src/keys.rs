//! Keys that are pressed while a session is on the screen.

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, stdin};
use tokio::sync::mpsc;

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Restart,
    Pause,
    Logs,
    Debug,
    Quit,
}

impl Key {
    fn of(byte: u8) -> Option<Self> {
        match byte.to_ascii_lowercase() {
            b'r' => Some(Self::Restart),
            b'p' => Some(Self::Pause),
            b'l' => Some(Self::Logs),
            b'd' => Some(Self::Debug),
            b'q' => Some(Self::Quit),
            _ => None,
        }
    }
}

/// The terminal hands over single keys, without showing them, until this is
/// dropped. Ctrl-C stays a signal.
#[derive(Debug)]
pub(crate) struct Keyboard {
    before: Termios,
}

impl Keyboard {
    /// Listens, if there is a terminal to listen to.
    pub(crate) fn listen() -> Option<(Self, mpsc::UnboundedReceiver<Key>)> {
        if !stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut single = before.clone();
        single.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(stdin(), SetArg::TCSANOW, &single).ok()?;
        let (key_tx, key_rx) = mpsc::unbounded_channel();
        // It sits in a read for as long as the program runs; there is nothing
        // that it would have to give back.
        std::thread::spawn(move || {
            let mut byte = [0];
            while let Ok(1) = stdin().read(&mut byte) {
                if let Some(key) = Key::of(byte[0])
                    && key_tx.send(key).is_err()
                {
                    return;
                }
            }
        });
        Some((Self { before }, key_rx))
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_either_case_and_others_mean_nothing() {
        assert_eq!(b"rPlDq".map(Key::of), [Key::Restart, Key::Pause, Key::Logs, Key::Debug, Key::Quit].map(Some));
        assert_eq!(b"x\n\x1b\0".map(Key::of), [None; 4]);
    }
}
