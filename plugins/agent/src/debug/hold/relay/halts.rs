//! Whether a process stands still for a debugger that is part of it, which the kernel
//! does not know: heard from what it tells its clients.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

/// What this agent's process is called meanwhile (proc_pid_comm(5)), for whoever is about
/// to start the program again; see [`crate::swap`].
pub(crate) const HALTED: &str = "devloop-halted";
const RUNNING: &str = "devloop-agent";

/// How a debugger and its clients speak.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Speech {
    /// The Debug Adapter Protocol
    /// (<https://microsoft.github.io/debug-adapter-protocol/specification>).
    Dap,
    /// Chrome's DevTools protocol over WebSocket, of which Node compresses and masks
    /// nothing that it says (<https://chromedevtools.github.io/devtools-protocol/v8/Debugger/>).
    Inspector,
    /// The Java Debug Wire Protocol
    /// (<https://docs.oracle.com/en/java/javase/21/docs/specs/jdwp/jdwp-spec.html>).
    Jdwp,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Debugger,
}

/// For how many clients the process stands still, told by the name in a file.
#[derive(Debug)]
pub(super) struct Sign {
    count: Mutex<u32>,
    file: &'static str,
}

impl Sign {
    /// Of this process.
    pub(super) fn own() -> Arc<Self> {
        Arc::new(Self { count: Mutex::new(0), file: "/proc/self/comm" })
    }

    fn count(&self, is_halted: bool) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *count;
        *count = if is_halted { before + 1 } else { before - 1 };
        if before == 0 || *count == 0 {
            // Without it the program is started again as one without a debugger.
            let _ = fs::write(self.file, if *count == 0 { RUNNING } else { HALTED });
        }
    }
}

/// Listens to one client and the debugger.
#[derive(Debug)]
pub(super) struct Ear {
    sign: Arc<Sign>,
    is_halted: bool,
    tongue: Tongue,
}

#[derive(Debug)]
enum Tongue {
    Words { stops: &'static [&'static [u8]], runs: &'static [&'static [u8]], tail: Vec<u8> },
    Packets { client: Packets, debugger: Packets },
}

impl Ear {
    pub(super) fn new(speech: Speech, sign: Arc<Sign>) -> Self {
        let words = |stops, runs| Tongue::Words { stops, runs, tail: Vec::new() };
        let tongue = match speech {
            // Responses have the command that they answer.
            Speech::Dap => {
                words(&[br#""event":"stopped""#], &[br#""event":"continued""#, br#""command":"continue""#, br#""command":"disconnect""#])
            }
            Speech::Inspector => words(&[br#""method":"Debugger.paused""#], &[br#""method":"Debugger.resumed""#]),
            Speech::Jdwp => Tongue::Packets { client: Packets::new(), debugger: Packets::new() },
        };
        Self { sign, is_halted: false, tongue }
    }

    pub(super) fn hear(&mut self, side: Side, said: &[u8]) {
        let now = match &mut self.tongue {
            Tongue::Words { .. } if side == Side::Client => None,
            Tongue::Words { stops, runs, tail } => last_word(tail, said, stops, runs),
            Tongue::Packets { client, .. } if side == Side::Client => client.push(said, resumes),
            Tongue::Packets { debugger, .. } => debugger.push(said, halts),
        };
        self.set(now.unwrap_or(self.is_halted));
    }

    fn set(&mut self, is_halted: bool) {
        if std::mem::replace(&mut self.is_halted, is_halted) != is_halted {
            self.sign.count(is_halted);
        }
    }
}

impl Drop for Ear {
    /// Debuggers let the program run when their client goes.
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Whether the last of these words to be said is one of a stop. A word of JSON is found
/// without its grammar: within a string its quotes would be escaped. Spaces are left out.
fn last_word(tail: &mut Vec<u8>, said: &[u8], stops: &[&[u8]], runs: &[&[u8]]) -> Option<bool> {
    tail.extend(said.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let is_at = |at: usize, words: &[&[u8]]| words.iter().any(|word| tail[at..].starts_with(word));
    let told = |at| if is_at(at, stops) { Some(true) } else { is_at(at, runs).then_some(false) };
    let last = (0..tail.len()).rev().find_map(told);
    // What may yet become a word.
    let longest = stops.iter().chain(runs).map(|word| word.len()).max().unwrap_or(1);
    tail.drain(..tail.len().saturating_sub(longest - 1));
    last
}

/// Cuts what one side says into packets.
#[derive(Debug)]
struct Packets {
    /// Of the handshake or of a packet, what is of no interest.
    skip: usize,
    head: Vec<u8>,
}

const HANDSHAKE: usize = "JDWP-Handshake".len();
const HEADER: usize = 11;
/// Of a packet's header, the bit of a reply among the flags.
const REPLY: u8 = 0x80;

impl Packets {
    fn new() -> Self {
        Self { skip: HANDSHAKE, head: Vec::new() }
    }

    /// Shows each packet's header, and the byte after it, to `judge`; the last that
    /// judged counts.
    fn push(&mut self, mut said: &[u8], judge: impl Fn(&[u8]) -> Option<bool>) -> Option<bool> {
        let mut last = None;
        while !said.is_empty() {
            let skipped = self.skip.min(said.len());
            self.skip -= skipped;
            said = &said[skipped..];
            let length = self.head.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
            let wanted = length.map_or(4, |length| length.clamp(HEADER, HEADER + 1));
            let taken = (wanted - self.head.len().min(wanted)).min(said.len());
            self.head.extend(&said[..taken]);
            said = &said[taken..];
            if let Some(length) = length
                && self.head.len() == wanted
            {
                last = judge(&self.head).or(last);
                self.skip = length.saturating_sub(wanted);
                self.head.clear();
            }
        }
        last
    }
}

/// A composite event (command set 64, command 100) begins with what it suspends:
/// nothing, a thread or all of them.
fn halts(packet: &[u8]) -> Option<bool> {
    match packet {
        [.., flags, 64, 100, policy] if packet.len() > HEADER && flags & REPLY == 0 && *policy != 0 => Some(true),
        _ => None,
    }
}

/// `VirtualMachine`'s Dispose, Suspend and Resume, a `ThreadReference`'s the latter two.
fn resumes(packet: &[u8]) -> Option<bool> {
    match packet.get(8..HEADER)? {
        [flags, ..] if flags & REPLY != 0 => None,
        [_, 1, 6 | 9] | [_, 11, 3] => Some(false),
        [_, 1, 8] | [_, 11, 2] => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(speech: Speech, said: &[(Side, &[u8])]) -> Vec<bool> {
        // One byte at a time must come to the same as all at once.
        let each = |size: usize| {
            let mut ear = Ear::new(speech, Arc::new(Sign { count: Mutex::new(0), file: "/dev/null" }));
            said.iter()
                .map(|(side, bytes)| {
                    bytes.chunks(size).for_each(|piece| ear.hear(*side, piece));
                    ear.is_halted
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(each(1), each(4096));
        each(3)
    }

    #[test]
    fn debugpy_is_understood() {
        let said: [&[u8]; 6] = [
            br#"Content-Length: 9  {"type": "event", "seq": 3, "event": "stopped", "body": {"reason": "breakpoint", "threadId": 1}}"#,
            br#"{"type": "response", "command": "next", "success": true}{"event": "continued"}{"event": "stopped"}"#,
            br#"{"type": "event", "event": "output", "body": {"output": "\"event\": \"continued\""}}"#,
            br#"{"type": "response", "request_seq": 9, "success": true, "command": "continue", "body": {"allThreadsContinued": true}}"#,
            br#"{"event": "stopped"}"#,
            br#"{"command": "disconnect"}"#,
        ];
        let said: Vec<_> = said.into_iter().map(|bytes| (Side::Debugger, bytes)).collect();
        assert_eq!(heard(Speech::Dap, &said), [true, true, true, false, true, false]);
        assert_eq!(heard(Speech::Dap, &[(Side::Client, br#"{"event": "stopped"}"#)]), [false]);
    }

    #[test]
    fn the_inspector_is_understood() {
        let said: [&[u8]; 3] = [
            br#"{"method":"Debugger.paused","params":{"callFrames":[]}}"#,
            br#"{"id":7,"result":{"value":"{\"method\":\"Debugger.resumed\"}"}}"#,
            br#"{"method":"Debugger.resumed","params":{}}"#,
        ];
        assert_eq!(heard(Speech::Inspector, &said.map(|bytes| (Side::Debugger, bytes))), [true, true, false]);
    }

    fn packet(flags: u8, set: u8, command: u8, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + data.len()).unwrap().to_be_bytes();
        [&length, &[0, 0, 0, 1][..], &[flags, set, command], data].concat()
    }

    #[test]
    fn a_java_virtual_machine_is_understood() {
        let hello: &[u8] = b"JDWP-Handshake";
        let (event, quiet) = (packet(0, 64, 100, &[2, 0, 0, 0, 1]), packet(0, 64, 100, &[0, 0, 0, 0, 1]));
        let (ask, reply) = (packet(0, 1, 1, &[]), packet(REPLY, 0, 0, &[1, 2, 3]));
        let (resume, suspend) = (packet(0, 1, 9, &[]), packet(0, 11, 2, &[0; 8]));
        let said: [(Side, &[u8]); 9] = [
            (Side::Client, hello),
            (Side::Debugger, hello),
            (Side::Debugger, &quiet),
            (Side::Debugger, &event),
            (Side::Client, &ask),
            (Side::Debugger, &reply),
            (Side::Client, &resume),
            (Side::Client, &suspend),
            (Side::Debugger, &reply),
        ];
        assert_eq!(heard(Speech::Jdwp, &said), [false, false, false, true, true, true, false, true, true]);
    }

    #[test]
    fn nonsense_does_no_harm() {
        let nonsense: Vec<u8> = (0..2000_u32).map(|index| u8::try_from(index * 7 % 256).unwrap()).collect();
        for speech in [Speech::Dap, Speech::Inspector, Speech::Jdwp] {
            heard(speech, &[(Side::Client, &nonsense), (Side::Debugger, &nonsense), (Side::Debugger, &[0; 64])]);
        }
    }

    #[test]
    fn the_name_of_the_process_tells_while_any_client_has_it_halted() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let sign = Sign::own();
        let (mut one, mut two) = (Ear::new(Speech::Dap, Arc::clone(&sign)), Ear::new(Speech::Dap, sign));
        let name = || fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
        one.hear(Side::Debugger, br#"{"event": "stopped"}"#);
        two.hear(Side::Debugger, br#"{"event": "stopped"}"#);
        two.hear(Side::Debugger, br#"{"event": "continued"}"#);
        assert_eq!(name(), HALTED);
        drop((one, two));
        assert_eq!(name(), RUNNING);
        fs::write("/proc/self/comm", own.trim()).unwrap();
    }
}
