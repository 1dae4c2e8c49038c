//! How bad a record says it is. Pure.

use std::ops::Range;

/// Levels, from the least to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    /// From a word as loggers write it, or from the numbers of bunyan and pino
    /// (10 to 60, in tens).
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > 13 {
            return None;
        }
        if text[0].is_ascii_digit() {
            let number: u32 = std::str::from_utf8(text).ok()?.parse().ok()?;
            return Self::from_number(number);
        }
        let mut lower = [0; 13];
        lower[..text.len()].copy_from_slice(text);
        lower.make_ascii_lowercase();
        Some(match &lower[..text.len()] {
            b"trace" | b"trc" | b"finest" | b"finer" | b"silly" => Self::Trace,
            b"debug" | b"dbg" | b"fine" | b"verbose" | b"d" => Self::Debug,
            b"info" | b"inf" | b"information" | b"informational" | b"notice" | b"i" | b"config" => Self::Info,
            b"warn" | b"warning" | b"wrn" | b"w" => Self::Warn,
            b"error" | b"err" | b"eror" | b"severe" | b"e" => Self::Error,
            b"fatal" | b"ftl" | b"critical" | b"crit" | b"alert" | b"emerg" | b"emergency" | b"panic" | b"dpanic" | b"f" => Self::Fatal,
            _ => return None,
        })
    }

    /// From the numbers of bunyan and pino: 10 trace, 20 debug, ... 60 fatal.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            10..20 => Self::Trace,
            20..30 => Self::Debug,
            30..40 => Self::Info,
            40..50 => Self::Warn,
            50..60 => Self::Error,
            60..100 => Self::Fatal,
            _ => return None,
        })
    }

    /// Its usual name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// Its colour, as an SGR parameter. Those of stern's `levelColor`.
    pub(crate) fn sgr(self) -> &'static str {
        match self {
            Self::Trace => "90",
            Self::Debug => "35",
            Self::Info => "34",
            Self::Warn => "33",
            Self::Error => "31",
            Self::Fatal => "36",
        }
    }
}

/// How far into a plain line a level is looked for: behind a date and a
/// thread's name, but not in what the line says.
const REACH: usize = 96;

/// The level word of a line without structure: a word in capitals, or one in
/// brackets (`[error]`), near the start.
pub(crate) fn in_plain(line: &[u8]) -> Option<(Level, Range<usize>)> {
    let reach = &line[..line.len().min(REACH)];
    let mut start = 0;
    while start < reach.len() {
        if !reach[start].is_ascii_alphabetic() {
            start += 1;
            continue;
        }
        let length = reach[start..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let word = &reach[start..start + length];
        let joins = |byte: u8| matches!(byte, b'_' | b'-' | b'/' | b'.' | b'0'..=b'9');
        let is_alone =
            (start == 0 || !joins(reach[start - 1])) && !line.get(start + length).is_some_and(|byte| matches!(byte, b'_' | b'0'..=b'9'));
        let is_bracketed = start > 0 && reach[start - 1] == b'[' && reach.get(start + length) == Some(&b']');
        if is_alone
            && word.len() > 2
            && (is_bracketed || word.iter().all(u8::is_ascii_uppercase))
            && let Some(level) = Level::parse(word)
        {
            return Some((level, start..start + length));
        }
        start += length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_levels() {
        for (text, level) in
            [("WARNING", Level::Warn), ("info", Level::Info), ("40", Level::Warn), ("dpanic", Level::Fatal), ("E", Level::Error)]
        {
            assert_eq!(Level::parse(text.as_bytes()), Some(level), "{text}");
        }
        for text in ["", "inform", "7", "1000000", "99999999999999", "Informationally"] {
            assert_eq!(Level::parse(text.as_bytes()), None, "{text}");
        }
        assert!(Level::Error > Level::Warn && Level::Trace < Level::Debug);
    }

    #[test]
    fn a_plain_line_has_its_level_near_the_start() {
        let level = |line: &str| in_plain(line.as_bytes()).map(|(level, range)| (level, line[range].to_owned()));
        assert_eq!(level("2026-01-02 03:04:05,678 ERROR [main] no"), Some((Level::Error, "ERROR".into())));
        assert_eq!(level("2026/01/02 [error] 7#7: refused"), Some((Level::Error, "error".into())));
        assert_eq!(level("an error is no ERROR_CODE"), None);
        assert_eq!(level("WARN: low"), Some((Level::Warn, "WARN".into())));
    }
}
