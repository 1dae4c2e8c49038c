//! From the bytes of a log connection to stamped lines, in bounded memory.

use devloop_agent::protocol::time::parse_time;
use jiff::Timestamp;
use memchr::memchr;

/// The most that is kept of one line; the rest is counted and dropped.
pub const LINE_LIMIT: usize = 1024 * 1024;

/// The prefix that the kubelet writes before each line.
const STAMP_LIMIT: usize = 64;

/// Room for the beginning of a line that is kept from one line to the next.
const USUAL: usize = 16 * 1024;

/// One line as it came, without its newline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RawLine {
    /// When the runtime read it; none for what the kubelet itself has to say.
    pub(super) timestamp: Option<Timestamp>,
    /// What the container wrote, at most [`LINE_LIMIT`] bytes.
    pub(super) message: Vec<u8>,
    /// How many bytes more it was.
    pub(super) cut: u64,
}

/// Collects chunks into lines.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    /// The beginning of a line whose end is still to come.
    begun: Vec<u8>,
    cut: u64,
}

impl LineBuffer {
    /// Takes the next bytes; the lines that are whole with them go to `lines`.
    pub(super) fn push(&mut self, chunk: &[u8], lines: &mut Vec<RawLine>) {
        let mut rest = chunk;
        while let Some(newline) = memchr(b'\n', rest) {
            let (content, later) = (&rest[..newline], &rest[newline + 1..]);
            lines.push(if self.begun.is_empty() {
                parse(content, 0)
            } else {
                self.keep(content);
                self.take()
            });
            rest = later;
        }
        self.keep(rest);
    }

    /// What is left without a newline at the end of a log.
    pub(super) fn finish(&mut self) -> Option<RawLine> {
        (!self.begun.is_empty()).then(|| self.take())
    }

    fn keep(&mut self, content: &[u8]) {
        let kept = content.len().min((LINE_LIMIT + STAMP_LIMIT).saturating_sub(self.begun.len()));
        self.begun.extend_from_slice(&content[..kept]);
        self.cut += (content.len() - kept) as u64;
    }

    fn take(&mut self) -> RawLine {
        let line = parse(&self.begun, std::mem::take(&mut self.cut));
        self.begun.clear();
        self.begun.shrink_to(USUAL);
        line
    }
}

/// Splits `2026-01-01T00:00:00.000000000Z message`; so many bytes of it were dropped.
fn parse(bytes: &[u8], dropped: u64) -> RawLine {
    let reach = &bytes[..bytes.len().min(STAMP_LIMIT)];
    let end = memchr(b' ', reach).unwrap_or(reach.len());
    let timestamp = parse_time(&bytes[..end]).map(at_nanosecond);
    let message = if timestamp.is_some() { &bytes[bytes.len().min(end + 1)..] } else { bytes };
    let kept = message.len().min(LINE_LIMIT);
    RawLine { timestamp, message: message[..kept].to_vec(), cut: dropped + (message.len() - kept) as u64 }
}

/// A time in nanoseconds since 1970.
pub(super) fn at_nanosecond(nanoseconds: i64) -> Timestamp {
    const SECOND: i64 = 1_000_000_000;
    let fraction = i32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or(0);
    // The type's years are fewer than jiff's.
    Timestamp::new(nanoseconds.div_euclid(SECOND), fraction).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<RawLine> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        chunks.iter().for_each(|chunk| buffer.push(chunk, &mut lines));
        lines.extend(buffer.finish());
        lines
    }

    #[test]
    fn a_stamp_is_split_off_and_the_message_kept_as_it_is() {
        let read =
            lines(&[b"2026-01-02T03:04:05.000000006+02:00  two spaces\xff \nunable to retrieve container logs\n2026-01-02T03:04:05Z \n"]);
        assert_eq!(read[0].timestamp.unwrap().to_string(), "2026-01-02T01:04:05.000000006Z");
        assert_eq!(read[0].message, b" two spaces\xff ");
        assert_eq!((read[1].timestamp, read[1].message.as_slice()), (None, b"unable to retrieve container logs".as_slice()));
        assert_eq!((read[2].timestamp.is_some(), read[2].message.len()), (true, 0));
    }

    #[test]
    fn a_very_long_line_is_cut_and_counted() {
        let mut text = b"2026-01-02T03:04:05.000000006Z ".to_vec();
        text.extend(std::iter::repeat_n(b'x', LINE_LIMIT + 1000));
        text.extend(b"\n2026-01-02T03:04:06Z next\n");
        let chunks: Vec<&[u8]> = text.chunks(7000).collect();
        let read = lines(&chunks);
        assert_eq!((read[0].message.len(), read[0].cut), (LINE_LIMIT, 1000));
        assert_eq!((read[1].message.as_slice(), read[1].cut), (b"next".as_slice(), 0));
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(text in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), size in 1..20_usize) {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            prop_assert_eq!(lines(&chunks), lines(&[&text]));
        }
    }
}
