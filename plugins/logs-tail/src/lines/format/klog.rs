//! `I0102 15:04:05.678901  1234 file.go:56] message`: what Kubernetes itself
//! writes (the header is documented in `k8s.io/klog`). Pure.

use super::{Kind, Slot, logfmt};

/// The parts of a header, as ranges of the line.
struct Header {
    time: (usize, usize),
    thread: (usize, usize),
    file: (usize, usize),
    line: (usize, usize),
    /// Where the message starts.
    rest: usize,
}

/// Whether a line has such a header.
pub(crate) fn fits(line: &[u8]) -> bool {
    header(line).is_some()
}

/// Calls `visit` with each part and each pair at the end.
pub(crate) fn walk(line: &[u8], visit: &mut dyn FnMut(&[u8], Slot) -> bool) {
    let Some(header) = header(line) else { return };
    let bare = |(start, end)| Slot { kind: Kind::Bare, start, end };
    let parts: [(&[u8], (usize, usize)); 5] =
        [(b"level", (0, 1)), (b"time", header.time), (b"thread", header.thread), (b"file", header.file), (b"line", header.line)];
    for (name, range) in parts {
        if !visit(name, bare(range)) {
            return;
        }
    }
    // Structured calls quote the message and put pairs behind it.
    let quoted = (line.get(header.rest) == Some(&b'"')).then(|| logfmt::quoted_end(line, header.rest + 1)).flatten();
    match quoted {
        Some(end) => {
            if visit(b"message", Slot { kind: Kind::Text, start: header.rest + 1, end }) {
                logfmt::walk(line, end + 1, visit);
            }
        }
        None => {
            visit(b"message", bare((header.rest, line.len())));
        }
    }
}

fn header(line: &[u8]) -> Option<Header> {
    if line.len() < 30 || !matches!(line[0], b'I' | b'W' | b'E' | b'F') || line[5] != b' ' {
        return None;
    }
    let are_digits = |range: std::ops::Range<usize>| line[range].iter().all(u8::is_ascii_digit);
    if !are_digits(1..5) || !are_digits(6..8) || line[8] != b':' || line[11] != b':' || line[14] != b'.' {
        return None;
    }
    let bracket = 21 + memchr::memchr(b']', &line[21..line.len().min(200)])?;
    let thread_start = 21 + line[21..bracket].iter().position(|byte| *byte != b' ')?;
    let thread_end = thread_start + line[thread_start..bracket].iter().position(|byte| *byte == b' ')?;
    let colon = thread_end + memchr::memrchr(b':', &line[thread_end..bracket])?;
    let rest = if line.get(bracket + 1) == Some(&b' ') { bracket + 2 } else { bracket + 1 };
    Some(Header {
        time: (1, 21),
        thread: (thread_start, thread_end),
        file: (thread_end + 1, colon),
        line: (colon + 1, bracket),
        rest: rest.min(line.len()),
    })
}
