//! Values and how they compare. Pure.

use crate::lines::format::{Kind, Slot};
use crate::lines::level::Level;
use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// Also what isn't there.
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, [u8]>),
    /// Text that may be meant as anything.
    Bare(&'a [u8]),
    /// In seconds.
    Duration(f64),
    Level(Level),
    /// JSON.
    Nested(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn of(slot: Slot, line: &'a [u8]) -> Self {
        let raw = slot.raw(line);
        match slot.kind {
            Kind::Null => Self::Null,
            Kind::True => Self::Bool(true),
            Kind::False => Self::Bool(false),
            Kind::Number => number(raw).unwrap_or(Self::Bare(raw)),
            Kind::Text => Self::Text(slot.text(line)),
            Kind::Bare => Self::Bare(raw),
            Kind::Nested => Self::Nested(raw),
        }
    }

    /// Null and false are not.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Bare(text) => *text != b"false",
            _ => true,
        }
    }

    /// As text, for regular expressions and functions; none of null.
    pub(super) fn text(&self) -> Option<Cow<'_, [u8]>> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(true) => Cow::Borrowed(b"true"),
            Self::Bool(false) => Cow::Borrowed(b"false"),
            Self::Integer(value) => Cow::Owned(value.to_string().into_bytes()),
            Self::Float(value) | Self::Duration(value) => Cow::Owned(value.to_string().into_bytes()),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Bare(text) | Self::Nested(text) => Cow::Borrowed(text),
            Self::Level(level) => Cow::Borrowed(level.name().as_bytes()),
        })
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Bool(value), Self::Bare(text)) | (Self::Bare(text), Self::Bool(value)) => {
                *text == if *value { &b"true"[..] } else { b"false" }
            }
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// Which is greater, of what has an order.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => Some(left.cmp(right)),
            (Self::Text(left), Self::Text(right)) => Some(left.as_ref().cmp(right.as_ref())),
            (Self::Level(left), Self::Level(right)) => Some(left.cmp(right)),
            (Self::Level(left), text) => Some(left.cmp(&Level::parse(&text.text()?)?)),
            (text, Self::Level(right)) => Some(Level::parse(&text.text()?)?.cmp(right)),
            (Self::Bare(text), other @ (Self::Integer(_) | Self::Float(_))) => number(text)?.compare(other),
            (this @ (Self::Integer(_) | Self::Float(_)), Self::Bare(text)) => this.compare(&number(text)?),
            (Self::Bare(left), Self::Bare(right)) => match (number(left), number(right)) {
                (Some(left), Some(right)) => left.compare(&right),
                _ => Some(left.cmp(right)),
            },
            (Self::Bare(left), Self::Text(right)) => Some((*left).cmp(right.as_ref())),
            (Self::Text(left), Self::Bare(right)) => Some(left.as_ref().cmp(right)),
            (Self::Duration(left), right) => left.partial_cmp(&right.seconds()?),
            (left, Self::Duration(right)) => left.seconds()?.partial_cmp(right),
            (left, right) => left.float()?.partial_cmp(&right.float()?),
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Integer(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// As a duration: a number is one of seconds, as zap writes it.
    fn seconds(&self) -> Option<f64> {
        match self {
            Self::Duration(value) => Some(*value),
            Self::Text(text) => duration(text),
            Self::Bare(text) => duration(text).or_else(|| number(text)?.float()),
            other => other.float(),
        }
    }
}

/// A number as JSON writes it.
pub(super) fn number(text: &[u8]) -> Option<Value<'static>> {
    let (is_negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) {
        let value = digits.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
        return Some(Value::Integer(if is_negative { -value } else { value }));
    }
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<i64>().map(Value::Integer).or_else(|_| text.parse().map(Value::Float)).ok()
}

/// Seconds of a duration as Go and Rust print it: `1.5ms`, `1h2m3.5s`.
pub(super) fn duration(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let (is_negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let length = rest.find(|next: char| !next.is_ascii_digit() && next != '.')?;
        let value: f64 = rest[..length].parse().ok()?;
        rest = &rest[length..];
        let length = rest.find(|next: char| next.is_ascii_digit()).unwrap_or(rest.len());
        seconds += value
            * match &rest[..length] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[length..];
    }
    Some(if is_negative { -seconds } else { seconds })
}
