//! What a client and `devloop-agent logs` say to each other, in the frames of
//! this module's parent.
//!
//! The client sends [`LogRequest::Start`] first, then any number of other
//! requests; the agent answers with [`LogReply`]s in the order in which it reads,
//! and reads no further than the client allows: of lines, [`LogSettings::credit`] may be
//! on their way, so that all else it has to say never waits behind them. It ends with
//! its input.

use serde::{Deserialize, Serialize};

use super::ByteString;

/// The version of these messages, compared at the start.
pub const LOGS_VERSION: u32 = 2;

/// The most that is kept of one line, in bytes; the rest is counted.
pub const LINE_LIMIT: usize = 1024 * 1024;

/// The lines of one reply have about so many bytes.
pub const BATCH_BYTES: usize = 128 * 1024;

/// A longer line travels in several pieces.
const PIECE_BYTES: usize = 256 * 1024;

/// In a length: the line goes on in its next piece.
const MORE: u32 = 1 << 31;
/// In a length: the number of bytes dropped follows.
const CUT: u32 = 1 << 30;

/// What the agent is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRequest {
    /// How to read; the first request.
    Start(LogSettings),
    /// Read these from now on; together, so that they are merged from their first line.
    Open(Vec<OpenLog>),
    /// The pod is gone: end when its files are read to their end.
    Finish {
        /// The log.
        id: u32,
    },
    /// So many bytes of [`LogReply::Lines`] were taken: as many more may be sent.
    Taken {
        /// Of their `bytes`.
        bytes: u64,
    },
    /// Nobody wants it any more.
    Close {
        /// The log.
        id: u32,
    },
}

/// How all logs are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// [`LOGS_VERSION`].
    pub version: u32,
    /// Where the kubelet keeps the folders of pods.
    pub root: ByteString,
    /// Whether to go on at the end of what is there.
    pub follow: bool,
    /// Whether lines of different containers are merged by time.
    pub ordered: bool,
    /// So many bytes of files that the kubelet has deleted already are kept for a
    /// client that takes them slowly.
    pub held_limit: u64,
    /// So many bytes of lines may be sent before the client has taken any, about.
    pub credit: u64,
    /// Only lines that one of these regular expressions matches, if there are any.
    pub include: Vec<String>,
    /// No line that one of these matches.
    pub exclude: Vec<String>,
}

/// One container's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLog {
    /// What replies call it.
    pub id: u32,
    /// The pod's folder: `NAMESPACE_NAME_UID`.
    pub folder: String,
    /// The container's name.
    pub container: String,
    /// Which runs of the container.
    pub instances: Instances,
    /// Whether files that were rotated are read, even if nothing else asks for them.
    pub rotated: bool,
    /// Of what is there: at most so many lines.
    pub tail: Option<u64>,
    /// Of what is there: nothing older.
    pub since: Option<Since>,
    /// Nothing later, in nanoseconds since 1970.
    pub until: Option<i64>,
    /// The first so many lines.
    pub head: Option<u64>,
    /// Go on behind what was read; in place of all that says where to begin.
    pub resume: Option<Position>,
}

/// Runs of a container, which the kubelet counts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instances {
    /// The newest, and those to come.
    Newest,
    /// All whose files are there, and those to come.
    All,
    /// All from the first on: when that is gone, it is said.
    FromFirst,
    /// This one.
    Only(u32),
}

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Since {
    /// In nanoseconds since 1970.
    At(i64),
    /// So many nanoseconds before now, by the node's clock.
    Ago(u64),
}

/// Behind a line: files keep their first line when they are renamed or compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The run of the container.
    pub instance: u32,
    /// The time of the first line of the file.
    pub first: i64,
    /// Where to read on in it, once it is unpacked.
    pub offset: u64,
    /// So many lines from there on were read.
    pub skip: u32,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogReply {
    /// Lines, in the order in which they are to be shown.
    Lines {
        /// See [`lines`].
        bytes: ByteString,
        /// How far the logs they belong to are read with them.
        positions: Vec<(u32, Position)>,
    },
    /// All that was there at first was sent.
    CaughtUp {
        /// The log.
        id: u32,
    },
    /// Something is lost here.
    Gap {
        /// The log.
        id: u32,
        /// What is known of it.
        loss: Loss,
    },
    /// There is no more of it.
    Ended {
        /// The log.
        id: u32,
    },
    /// There are no files of it.
    Missing {
        /// The log.
        id: u32,
        /// Why, for a message.
        reason: String,
    },
    /// So many bytes that the kubelet has deleted wait for the client.
    Held {
        /// Of all logs.
        bytes: u64,
    },
    /// The agent can't go on.
    Failed {
        /// Why.
        message: String,
    },
}

/// What is known of lost lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// The file was deleted before it was read on, up to a line of this time.
    Rotated {
        /// In nanoseconds since 1970.
        until: Option<i64>,
    },
    /// The files of so many runs are gone.
    Instances {
        /// How many.
        count: u32,
    },
    /// Too much waited: so many bytes were given up.
    Dropped {
        /// With the runtime's own bytes before each line.
        bytes: u64,
    },
    /// So many bytes are no lines of a log.
    Damaged {
        /// How many.
        bytes: u64,
    },
    /// The file was made shorter.
    Truncated,
}

/// A line, or the next piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The log.
    pub id: u32,
    /// When the runtime read it, in nanoseconds since 1970.
    pub timestamp: i64,
    /// What the container wrote.
    pub bytes: &'a [u8],
    /// Whether the line ends with it.
    pub is_last: bool,
    /// How many bytes of the line were dropped.
    pub cut: u64,
}

/// Bytes that are no lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reply holds damaged lines")]
pub struct DamagedLines;

/// Appends a line; one longer than a frame in pieces, between which `split` may
/// send what there is.
pub fn push_line(out: &mut Vec<u8>, id: u32, timestamp: i64, line: &[u8], cut: u64, mut split: impl FnMut(&mut Vec<u8>)) {
    let mut rest = line;
    while rest.len() > PIECE_BYTES {
        let (piece, later) = rest.split_at(PIECE_BYTES);
        push_piece(out, Piece { id, timestamp, bytes: piece, is_last: false, cut: 0 });
        split(out);
        rest = later;
    }
    push_piece(out, Piece { id, timestamp, bytes: rest, is_last: true, cut });
}

fn push_piece(out: &mut Vec<u8>, piece: Piece<'_>) {
    out.extend_from_slice(&piece.id.to_le_bytes());
    out.extend_from_slice(&piece.timestamp.to_le_bytes());
    // At most PIECE_BYTES.
    let length = u32::try_from(piece.bytes.len()).unwrap_or(0);
    let flags = if piece.is_last { 0 } else { MORE } | if piece.cut > 0 { CUT } else { 0 };
    out.extend_from_slice(&(length | flags).to_le_bytes());
    if piece.cut > 0 {
        out.extend_from_slice(&piece.cut.to_le_bytes());
    }
    out.extend_from_slice(piece.bytes);
}

/// The pieces of [`LogReply::Lines`]; after an error there are none.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<Piece<'_>, DamagedLines>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = next(&mut rest);
        if piece.is_none() {
            rest = &[];
        }
        Some(piece.ok_or(DamagedLines))
    })
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Piece<'a>> {
    let id = u32::from_le_bytes(take(rest)?);
    let timestamp = i64::from_le_bytes(take(rest)?);
    let length = u32::from_le_bytes(take(rest)?);
    let cut = if length & CUT == 0 { 0 } else { u64::from_le_bytes(take(rest)?) };
    let (bytes, later) = rest.split_at_checked((length & !(MORE | CUT)) as usize)?;
    *rest = later;
    Some(Piece { id, timestamp, bytes, is_last: length & MORE == 0, cut })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, later) = rest.split_first_chunk::<N>()?;
    *rest = later;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_back_as_they_went(written in prop::collection::vec((any::<u32>(), any::<i64>(), prop::collection::vec(any::<u8>(), 0..40), 0..3_u64), 0..20)) {
            let mut bytes = Vec::new();
            for (id, timestamp, line, cut) in &written {
                push_line(&mut bytes, *id, *timestamp, line, *cut, |_| ());
            }
            let read: Vec<_> = lines(&bytes).map(|piece| piece.map(|piece| (piece.id, piece.timestamp, piece.bytes.to_vec(), piece.cut))).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read, written);
        }

        #[test]
        fn damage_never_panics_and_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(lines(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_fit_a_frame() {
        let line = vec![b'x'; LINE_LIMIT];
        let (mut bytes, mut sent) = (Vec::new(), Vec::new());
        push_line(&mut bytes, 1, 2, &line, 7, |out| sent.push(std::mem::take(out)));
        sent.push(bytes);
        assert!(sent.iter().all(|frame| frame.len() < super::super::MAX_FRAME));
        let pieces: Vec<_> = sent.iter().flat_map(|frame| lines(frame)).collect::<Result<_, _>>().unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>(), LINE_LIMIT);
        assert_eq!(
            pieces.iter().map(|piece| (piece.is_last, piece.cut)).collect::<Vec<_>>(),
            [(false, 0), (false, 0), (false, 0), (true, 7)]
        );
    }
}
