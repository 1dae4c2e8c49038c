//! Access logs: common and combined (Apache, nginx), and Envoy's default. Pure.

use super::{Kind, Slot};

/// Names of what stands where in a common or combined line; nginx's usual
/// addition is the request's time.
const COMMON: [&str; 10] = ["remote", "ident", "user", "time", "request", "status", "bytes", "referer", "agent", "duration"];

/// The same of Envoy's default format (durations in milliseconds).
const ENVOY: [&str; 14] = [
    "time",
    "request",
    "status",
    "flags",
    "bytes_received",
    "bytes",
    "duration",
    "upstream_duration",
    "forwarded_for",
    "agent",
    "request_id",
    "authority",
    "upstream",
    "rest",
];

/// Whether a line is one of them.
pub(crate) fn fits(line: &[u8]) -> bool {
    let mut status = None;
    let mut has_request = false;
    walk(line, &mut |name, slot| {
        has_request |= name == b"method";
        if name == b"status" {
            status = Some(slot);
        }
        status.is_none()
    });
    has_request && status.is_some_and(|slot| slot.end - slot.start == 3 && line[slot.start..slot.end].iter().all(u8::is_ascii_digit))
}

/// Calls `visit` with each part; the request also as method, path and protocol.
pub(crate) fn walk(line: &[u8], visit: &mut dyn FnMut(&[u8], Slot) -> bool) {
    // Both have their time in brackets and their request in quotes.
    let is_envoy = line.first() == Some(&b'[');
    let names: &[&str] = if is_envoy { &ENVOY } else { &COMMON };
    let mut index = 0;
    for name in names {
        let Some(slot) = word(line, &mut index) else { return };
        let goes_on = if *name == "request" { request(line, slot, visit) } else { visit(name.as_bytes(), slot) };
        if !goes_on {
            return;
        }
    }
}

/// The next word, quoted text or bracketed text.
fn word(line: &[u8], index: &mut usize) -> Option<Slot> {
    while line.get(*index) == Some(&b' ') {
        *index += 1;
    }
    let (start, close) = match line.get(*index)? {
        b'"' => (*index + 1, b'"'),
        b'[' => (*index + 1, b']'),
        _ => (*index, b' '),
    };
    let length = memchr::memchr(close, &line[start..]);
    let end = match length {
        Some(length) => start + length,
        None if close == b' ' => line.len(),
        None => return None,
    };
    *index = (end + 1).min(line.len());
    Some(Slot { kind: Kind::Bare, start, end })
}

fn request(line: &[u8], slot: Slot, visit: &mut dyn FnMut(&[u8], Slot) -> bool) -> bool {
    if !visit(b"request", slot) {
        return false;
    }
    let text = &line[slot.start..slot.end];
    let Some(first) = memchr::memchr(b' ', text) else { return true };
    if !text[..first].iter().all(u8::is_ascii_uppercase) {
        return true;
    }
    let last = memchr::memrchr(b' ', text).filter(|last| *last > first).unwrap_or(text.len());
    let part = |start: usize, end: usize| Slot { kind: Kind::Bare, start: slot.start + start, end: slot.start + end };
    visit(b"method", part(0, first))
        && visit(b"path", part(first + 1, last))
        && (last >= text.len() || visit(b"protocol", part(last + 1, text.len())))
}
