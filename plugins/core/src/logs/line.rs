//! From the bytes of a log connection to stamped lines, in bounded memory.

use jiff::Timestamp;

/// The most that is kept of one line; the rest is counted and dropped.
pub const LINE_LIMIT: usize = 1024 * 1024;

/// The prefix that the kubelet writes before each line.
const STAMP_LIMIT: usize = 64;

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
    buffer: Vec<u8>,
    cut: u64,
}

impl LineBuffer {
    /// Takes bytes up to the end of a line; returns the line, if one is whole,
    /// and how many bytes were taken.
    pub(super) fn push(&mut self, chunk: &[u8]) -> (Option<RawLine>, usize) {
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let content = &chunk[..newline.unwrap_or(chunk.len())];
        let room = (LINE_LIMIT + STAMP_LIMIT).saturating_sub(self.buffer.len());
        let kept = content.len().min(room);
        self.buffer.extend_from_slice(&content[..kept]);
        self.cut += (content.len() - kept) as u64;
        match newline {
            Some(index) => (Some(self.take()), index + 1),
            None => (None, chunk.len()),
        }
    }

    /// What is left without a newline at the end of a log.
    pub(super) fn finish(&mut self) -> Option<RawLine> {
        (!self.buffer.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> RawLine {
        let mut line = parse(std::mem::take(&mut self.buffer));
        line.cut = std::mem::take(&mut self.cut);
        if line.message.len() > LINE_LIMIT {
            line.cut += (line.message.len() - LINE_LIMIT) as u64;
            line.message.truncate(LINE_LIMIT);
        }
        line
    }
}

/// Splits `2026-01-01T00:00:00.000000000Z message`.
fn parse(mut bytes: Vec<u8>) -> RawLine {
    let end = bytes.iter().take(STAMP_LIMIT).position(|byte| *byte == b' ').unwrap_or(bytes.len().min(STAMP_LIMIT));
    let timestamp = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| text.parse::<Timestamp>().ok());
    if timestamp.is_some() {
        bytes.drain(..bytes.len().min(end + 1));
    }
    RawLine { timestamp, message: bytes, cut: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<RawLine> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                let (line, taken) = buffer.push(rest);
                rest = &rest[taken..];
                lines.extend(line);
            }
        }
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
