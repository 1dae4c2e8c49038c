//! What a line is: JSON, logfmt, klog, an access log, or plain text, and what
//! it says under which name. Values are places in the line, read when needed. Pure.

pub(crate) mod access;
pub(crate) mod json;
pub(crate) mod klog;
pub(crate) mod logfmt;

use super::level::{self, Level};
use std::borrow::Cow;
use std::ops::Range;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// A JSON object, as zap, pino, bunyan, tracing, slog and others write it.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// What Kubernetes' own components write.
    Klog,
    /// A line of a web server's or proxy's access log.
    Access,
    /// Anything else.
    #[default]
    Plain,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    True,
    False,
    Number,
    /// The text between quotes, with its escapes.
    Text,
    /// Text of which the format doesn't say whether it is a number.
    Bare,
    /// A JSON object or array.
    Nested,
}

/// Where in a line a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Slot {
    /// Its bytes as they are.
    pub(crate) fn raw(self, line: &[u8]) -> &[u8] {
        &line[self.start..self.end]
    }

    /// Its text, without escapes.
    pub(crate) fn text(self, line: &[u8]) -> Cow<'_, [u8]> {
        match self.kind {
            Kind::Text => unescape(self.raw(line)),
            _ => Cow::Borrowed(self.raw(line)),
        }
    }
}

impl Format {
    /// What a line is, seen alone.
    pub(crate) fn sniff(line: &[u8]) -> Self {
        if Self::Json.fits(line) {
            Self::Json
        } else if klog::fits(line) {
            Self::Klog
        } else if access::fits(line) {
            Self::Access
        } else {
            let (pairs, others) = logfmt::count(line);
            // A sentence may have a pair in it, too.
            if pairs >= 2 && others * 3 <= line.len() { Self::Logfmt } else { Self::Plain }
        }
    }

    /// Its name in expressions.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Logfmt => "logfmt",
            Self::Klog => "klog",
            Self::Access => "access",
            Self::Plain => "plain",
        }
    }

    /// Whether a line may be of this format.
    pub(crate) fn fits(self, line: &[u8]) -> bool {
        match self {
            Self::Json => line.first() == Some(&b'{') && line.trim_ascii_end().last() == Some(&b'}'),
            Self::Klog => klog::fits(line),
            Self::Access => access::fits(line),
            Self::Logfmt => logfmt::count(line).0 > 0 && !Self::Json.fits(line),
            Self::Plain => true,
        }
    }

    /// Calls `visit` with each name and value of a line, until it returns `false`.
    pub(crate) fn walk(self, line: &[u8], visit: &mut dyn FnMut(&[u8], Slot) -> bool) {
        match self {
            Self::Json => {
                json::walk_object(line, 0, visit);
            }
            Self::Logfmt => logfmt::walk(line, 0, visit),
            Self::Klog => klog::walk(line, visit),
            Self::Access => access::walk(line, visit),
            Self::Plain => {}
        }
    }
}

/// The format of a stream: what most of its lines are, each line still seen to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sticky {
    format: Option<Format>,
    other: Format,
    misses: u8,
}

/// So many lines in a row of another format, and the stream has that one.
const MISSES: u8 = 8;

impl Sticky {
    /// What the next line of the stream is.
    pub(crate) fn recognise(&mut self, line: &[u8]) -> Format {
        match self.format {
            // Anything fits plain text; it takes another look.
            Some(format) if format != Format::Plain && format.fits(line) => {
                self.misses = 0;
                format
            }
            known => {
                let format = Format::sniff(line);
                if known.is_none() {
                    self.format = Some(format);
                } else if known != Some(format) {
                    self.misses = if format == self.other { self.misses + 1 } else { 1 };
                    self.other = format;
                    if self.misses >= MISSES {
                        (self.format, self.misses) = (Some(format), 0);
                    }
                }
                format
            }
        }
    }
}

/// What nearly every logger says, under whatever name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) level: Option<(Level, Range<usize>)>,
    pub(crate) message: Option<Slot>,
    pub(crate) time: Option<Slot>,
}

/// Names of the level: zap, logrus, slog; pino and bunyan; Python; zap for
/// people; Google's; .NET's; ECS.
const LEVELS: [&[u8]; 9] = [b"level", b"lvl", b"severity", b"levelname", b"L", b"@l", b"log.level", b"loglevel", b"Level"];
const MESSAGES: [&[u8]; 6] = [b"msg", b"message", b"M", b"@m", b"@message", b"Message"];
const TIMES: [&[u8]; 8] = [b"ts", b"time", b"timestamp", b"@timestamp", b"T", b"t", b"@t", b"asctime"];

impl Facts {
    /// Those of a line.
    pub(crate) fn of(format: Format, line: &[u8]) -> Self {
        let mut facts = Self::default();
        if format == Format::Plain {
            facts.level = level::in_plain(line);
            return facts;
        }
        format.walk(line, &mut |key, slot| {
            if facts.level.is_none() && LEVELS.contains(&key) {
                facts.level = Level::parse(slot.raw(line)).map(|level| (level, slot.start..slot.end));
            } else if facts.message.is_none() && MESSAGES.contains(&key) {
                facts.message = Some(slot);
            } else if facts.time.is_none() && TIMES.contains(&key) {
                facts.time = Some(slot);
            } else if key == b"fields" && slot.kind == Kind::Nested && facts.message.is_none() {
                // tracing-subscriber puts the message there.
                json::walk_object(line, slot.start, &mut |key, slot| {
                    if key == b"message" {
                        facts.message = Some(slot);
                    }
                    facts.message.is_none()
                });
            }
            true
        });
        facts
    }
}

/// A JSON or logfmt string without its escapes. What is no escape stays.
pub(crate) fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(index) = memchr::memchr(b'\\', rest) {
        plain.extend_from_slice(&rest[..index]);
        rest = &rest[index..];
        let taken = match rest.get(1) {
            Some(b'n') => push(&mut plain, b'\n'),
            Some(b't') => push(&mut plain, b'\t'),
            Some(b'r') => push(&mut plain, b'\r'),
            Some(b'b') => push(&mut plain, 8),
            Some(b'f') => push(&mut plain, 12),
            Some(b'u') => unicode(rest, &mut plain),
            Some(other) => push(&mut plain, *other),
            None => {
                plain.push(b'\\');
                1
            }
        };
        rest = &rest[taken..];
    }
    plain.extend_from_slice(rest);
    Cow::Owned(plain)
}

fn push(plain: &mut Vec<u8>, byte: u8) -> usize {
    plain.push(byte);
    2
}

/// `\u00e9`, or two of them for what is beyond 16 bits; how many bytes it took.
fn unicode(text: &[u8], plain: &mut Vec<u8>) -> usize {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(text.get(at..at + 4)?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    let units = [unit(2), if text.get(6..8) == Some(b"\\u") { unit(8) } else { None }];
    let Some(first) = units[0] else {
        plain.extend_from_slice(b"\\u");
        return 2;
    };
    let units: Vec<u16> = if (0xd800..0xdc00).contains(&first) { units.into_iter().flatten().collect() } else { vec![first] };
    for character in char::decode_utf16(units.iter().copied()) {
        plain.extend_from_slice(character.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4]).as_bytes());
    }
    6 * units.len()
}

#[cfg(test)]
mod tests;
