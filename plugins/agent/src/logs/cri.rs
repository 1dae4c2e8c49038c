//! One line of a log file, in the format of the container runtime interface:
//! `TIME stdout|stderr TAGS CONTENT`, the first tag being `P` for a part of a line
//! or `F` for its end
//! (<https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>).

use crate::protocol::time::parse_time;

/// What a line of a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment<'a> {
    /// In nanoseconds since 1970.
    pub(super) timestamp: i64,
    pub(super) stream: Stream,
    /// Whether the line goes on.
    pub(super) is_partial: bool,
    pub(super) content: &'a [u8],
}

/// Which of the container's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Reads a line without its newline; what is no such line is refused, as the
/// kubelet does.
pub(super) fn parse(line: &[u8]) -> Option<Fragment<'_>> {
    let (time, rest) = split(line)?;
    let timestamp = parse_time(time)?;
    let (stream, rest) = split(rest)?;
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let (tags, content) = split(rest)?;
    let is_partial = match tags.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Fragment { timestamp, stream, is_partial, content })
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr::memchr(b' ', text)?;
    Some((&text[..space], &text[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fragments_are_read_as_the_kubelet_reads_them() {
        let fragment = parse(b"2026-01-02T03:04:05.000000006+02:00 stderr P:x  two spaces").unwrap();
        assert_eq!((fragment.stream, fragment.is_partial, fragment.content), (Stream::Stderr, true, b" two spaces".as_slice()));
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F ").unwrap().content, b"");
        for line in [
            &b""[..],
            b"2026-01-02T03:04:05Z",
            b"2026-01-02T03:04:05Z stdout F",
            b"2026-01-02T03:04:05Z stdin F x",
            b"2026-01-02T03:04:05Z stdout X x",
            b"yesterday stdout F x",
            b"\0\0\0\0",
        ] {
            assert_eq!(parse(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&line);
        }
    }
}
