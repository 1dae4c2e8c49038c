//! Which records are wanted, each by itself. Pure.

use super::Record;
use super::expression::{Expression, Subject};
use super::jq::Jq;
use regex::bytes::Regex;

/// All conditions that a record has to fulfil.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// One of them has to match, if there are any.
    pub(crate) include: Vec<Regex>,
    /// None of them may match.
    pub(crate) exclude: Vec<Regex>,
    /// What it has to be.
    pub(crate) expression: Option<Expression>,
    /// What is made of it.
    pub(crate) jq: Option<Jq>,
    /// How often the program failed, and how the first time.
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Unwanted,
    Wanted,
    /// Wanted, as these.
    Changed(Vec<Vec<u8>>),
}

impl Filter {
    /// Whether everything is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty() && self.expression.is_none() && self.jq.is_none()
    }

    /// Whether it has to know how records are written.
    pub(crate) fn needs_format(&self) -> bool {
        self.expression.is_some() || self.jq.is_some()
    }

    /// What becomes of a record.
    pub(crate) fn judge(&mut self, record: &Record<'_>) -> Verdict {
        let text = record.text;
        let included = self.include.is_empty() || self.include.iter().any(|regex| regex.is_match(text));
        if !included || self.exclude.iter().any(|regex| regex.is_match(text)) {
            return Verdict::Unwanted;
        }
        if let Some(expression) = &mut self.expression
            && !expression.holds(Subject { text, format: record.format, place: record.place })
        {
            return Verdict::Unwanted;
        }
        let Some(jq) = &self.jq else { return Verdict::Wanted };
        match jq.run(record.format, text) {
            Ok(results) if results.is_empty() => Verdict::Unwanted,
            Ok(results) => Verdict::Changed(results),
            Err(problem) => {
                self.failures += 1;
                self.first_failure.get_or_insert(problem);
                Verdict::Unwanted
            }
        }
    }
}
