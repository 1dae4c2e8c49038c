//! The protocol between a debugger and gdbserver, as far as its keeper has to know it.
//! Pure.
//!
//! <https://sourceware.org/gdb/current/onlinedocs/gdb.html/Remote-Protocol.html>

use std::collections::BTreeMap;

/// A longer packet passes as it comes.
const MOST: usize = 1 << 20;
/// What stops the process, outside of packets.
const INTERRUPT: u8 = 0x03;

/// A stream of one direction, cut into packets.
#[derive(Debug, Default)]
pub(super) struct Framing {
    buffer: Vec<u8>,
}

/// What a stream consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The content of a packet, as it was on the wire.
    Packet(Vec<u8>),
    /// A wish to stop the process.
    Interrupt,
    /// All else, such as acknowledgements.
    Other(Vec<u8>),
}

impl Framing {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece, once it is there as a whole.
    pub(super) fn pop(&mut self) -> Option<Piece> {
        let first = *self.buffer.first()?;
        if first == INTERRUPT {
            self.buffer.remove(0);
            return Some(Piece::Interrupt);
        }
        if first != b'$' {
            let end = self.buffer.iter().position(|byte| matches!(byte, b'$' | &INTERRUPT)).unwrap_or(self.buffer.len());
            return Some(Piece::Other(self.buffer.drain(..end).collect()));
        }
        match self.buffer.iter().position(|byte| *byte == b'#') {
            Some(end) if self.buffer.len() >= end + 3 => {
                let packet: Vec<u8> = self.buffer.drain(..end + 3).collect();
                Some(Piece::Packet(packet[1..end].to_vec()))
            }
            None if self.buffer.len() > MOST => Some(Piece::Other(std::mem::take(&mut self.buffer))),
            _ => None,
        }
    }
}

/// A packet on the wire.
pub(super) fn packet(content: &[u8]) -> Vec<u8> {
    let sum = content.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", content, format!("#{sum:02x}").as_bytes()].concat()
}

/// Where a debugger and gdbserver are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Talk {
    /// Whether packets are not acknowledged any more.
    pub(super) is_settled: bool,
    /// Whether the process runs, as far as gdbserver was told to let it.
    pub(super) is_running: bool,
    /// Whether processes are named.
    names_processes: bool,
    /// Breakpoints, and what takes each away.
    breakpoints: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Talk {
    /// Whether a debugger goes with this. One that wants the process to end goes, too:
    /// whoever wants that ends the pod.
    pub(super) fn is_farewell(content: &[u8]) -> bool {
        content == b"k" || content.starts_with(b"vKill") || content == b"D" || content.starts_with(b"D;")
    }

    /// What gdbserver gets for what the debugger says.
    pub(super) fn for_server(&mut self, content: Vec<u8>) -> Vec<u8> {
        let starts = |prefix: &[u8]| content.starts_with(prefix);
        if starts(b"qSupported") {
            self.names_processes = contains(&content, b"multiprocess+");
            // Where breakpoints are hit is told as debuggers take it to be: before the
            // breakpoint, and not after it.
            let separator: &[u8] = if content.contains(&b':') { b";" } else { b":" };
            return [&content, separator, b"swbreak+;hwbreak+"].concat();
        }
        if starts(b"QStartNoAckMode") {
            self.is_settled = true;
        }
        if starts(b"vCont;") || matches!(content.first(), Some(b'c' | b'C' | b's' | b'S')) {
            self.is_running = true;
        }
        match content.split_first() {
            Some((b'Z', place)) => {
                // What follows the place are conditions.
                let place = place.split(|byte| *byte == b';').next().unwrap_or(place).to_vec();
                self.breakpoints.insert(place.clone(), [b"z", place.as_slice()].concat());
            }
            Some((b'z', place)) => {
                self.breakpoints.remove(place);
            }
            _ => {}
        }
        content
    }

    /// What the debugger gets for what gdbserver says.
    pub(super) fn for_client(&mut self, content: Vec<u8>) -> Vec<u8> {
        let first = content.first();
        self.is_running &= !matches!(first, Some(b'T' | b'S' | b'W' | b'X' | b'N'));
        if first == Some(&b'T') { without_registers(&content) } else { content }
    }

    /// What takes all breakpoints away.
    pub(super) fn removals(&self) -> Vec<Vec<u8>> {
        self.breakpoints.values().cloned().collect()
    }

    /// What makes gdbserver let go of the process.
    pub(super) fn detach(&self, pid: u32) -> Vec<u8> {
        if self.names_processes { format!("D;{pid:x}").into_bytes() } else { b"D".to_vec() }
    }
}

/// A stop without the few registers that come with it. LLDB, once it has these, writes
/// all of them when it changes one, with nothing in those that it has not read.
fn without_registers(stop: &[u8]) -> Vec<u8> {
    let (head, rest) = stop.split_at(stop.len().min(3));
    let is_register = |part: &[u8]| part.get(2) == Some(&b':') && part[..2].iter().all(u8::is_ascii_hexdigit);
    let others = rest.split(|byte| *byte == b';').filter(|part| !part.is_empty() && !is_register(part));
    others.fold(head.to_vec(), |stop, part| [stop.as_slice(), part, b";"].concat())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(talk: &mut Talk, content: &str) -> String {
        String::from_utf8(talk.for_server(content.as_bytes().to_vec())).unwrap()
    }

    fn said(talk: &mut Talk, content: &str) -> String {
        String::from_utf8(talk.for_client(content.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn whoever_goes_or_kills_only_goes() {
        for text in ["k", "vKill;7b15", "D", "D;7b15"] {
            assert!(Talk::is_farewell(text.as_bytes()), "{text}");
        }
        assert!(!Talk::is_farewell(b"vCont;c") && !Talk::is_farewell(b"Done"));
        let mut talk = Talk::default();
        assert_eq!(talk.detach(0x7b15), b"D");
        assert_eq!(sent(&mut talk, "qSupported:multiprocess+"), "qSupported:multiprocess+;swbreak+;hwbreak+");
        assert_eq!(talk.detach(0x7b15), b"D;7b15");
    }

    #[test]
    fn breakpoints_are_known_until_they_are_taken_away() {
        let mut talk = Talk::default();
        for text in ["Z0,401ff0,1", "Z0,402126,1;X1,22", "Z1,10,1", "z0,401ff0,1"] {
            sent(&mut talk, text);
        }
        let removals: Vec<String> = talk.removals().into_iter().map(|removal| String::from_utf8(removal).unwrap()).collect();
        assert_eq!(removals, ["z0,402126,1", "z1,10,1"]);
    }

    #[test]
    fn it_is_known_whether_the_process_runs() {
        let mut talk = Talk::default();
        assert_eq!(sent(&mut talk, "QStartNoAckMode"), "QStartNoAckMode");
        assert!(talk.is_settled);
        sent(&mut talk, "vCont?");
        assert!(!talk.is_running);
        sent(&mut talk, "vCont;c:p1.-1");
        assert!(talk.is_running);
        assert_eq!(said(&mut talk, "OK"), "OK");
        assert!(talk.is_running);
        let stop = "T05swbreak:;06:c08c09c7fd7f0* ;07:80;10:27*';thread:p7b15.7b15;core:0;";
        assert_eq!(said(&mut talk, stop), "T05swbreak:;thread:p7b15.7b15;core:0;");
        assert!(!talk.is_running);
    }

    proptest! {
        #[test]
        fn a_stream_is_the_same_however_it_is_cut(contents in proptest::collection::vec("[a-z0-9,;:+]{0,12}", 0..6), cut in 1_usize..9) {
            let mut stream = b"+".to_vec();
            contents.iter().for_each(|content| stream.extend(packet(content.as_bytes())));
            stream.push(INTERRUPT);
            let mut framing = Framing::default();
            let (mut found, mut interrupts) = (Vec::new(), 0);
            for piece in stream.chunks(cut) {
                framing.push(piece);
                while let Some(piece) = framing.pop() {
                    match piece {
                        Piece::Packet(content) => found.push(String::from_utf8(content).unwrap()),
                        Piece::Interrupt => interrupts += 1,
                        Piece::Other(other) => prop_assert_eq!(other, b"+"),
                    }
                }
            }
            prop_assert_eq!((found, interrupts), (contents, 1));
        }

        #[test]
        fn no_stream_is_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (mut framing, mut talk) = (Framing::default(), Talk::default());
            framing.push(&bytes);
            while let Some(piece) = framing.pop() {
                if let Piece::Packet(content) = piece {
                    talk.for_server(content.clone());
                    talk.for_client(content);
                }
            }
        }
    }
}
