//! What is done with lines: [`assemble`] joins those of one record, [`judge`]
//! decides which records are wanted, a [`Sink`](judge::Sink) gets those that
//! are. [`stdin`] does the same over standard input, without copying.
//!
//! All of it is pure: lines and times are values, and so is what is wanted.

pub(crate) mod assemble;
pub(crate) mod diff;
pub(crate) mod expression;
pub(crate) mod filter;
pub(crate) mod fold;
pub(crate) mod format;
pub(crate) mod group;
pub(crate) mod jq;
pub(crate) mod judge;
pub(crate) mod level;
pub(crate) mod place;
pub(crate) mod stdin;

use devloop_core::logs::Source;
use fold::Trace;
use format::Format;
use jiff::Timestamp;
use place::Place;
use std::sync::Arc;

/// One thing that a container said: a line, or the lines of a stack trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) source: &'a Arc<Source>,
    pub(crate) place: &'a Place,
    /// When its first line was read; none on standard input.
    pub(crate) timestamp: Option<Timestamp>,
    /// Its lines, with newlines between them.
    pub(crate) text: &'a [u8],
    /// How many bytes were dropped at a limit.
    pub(crate) cut: u64,
    /// What its first line is.
    pub(crate) format: Format,
    pub(crate) trace: Option<Trace>,
}

/// Where to cut a text so that at most `limit` bytes are left and no character
/// is cut in two.
pub(crate) fn cut_at(text: &[u8], limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    let is_inside = |index: usize| text[index] & 0xc0 == 0x80;
    (limit.saturating_sub(3)..=limit).rev().find(|index| !is_inside(*index)).unwrap_or(limit)
}
