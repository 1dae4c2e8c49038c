//! What is typed to choose among the records: a regular expression, or plain
//! text where it is none (yet). Pure.

use regex::{Regex, RegexBuilder};
use std::ops::Range;

/// What is typed may not cost more than this to run (bytes of the program).
const MOST: usize = 1 << 20;

/// Chooses records by their text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    text: String,
    regex: Option<Regex>,
    /// Whether what is typed is no regular expression, and taken as it is.
    pub(crate) is_plain: bool,
}

impl Filter {
    /// Small letters stand for capital ones, too, as in `less -i`.
    pub(crate) fn new(text: &str) -> Self {
        let build = |pattern: &str| {
            let ignores_case = !text.chars().any(char::is_uppercase);
            RegexBuilder::new(pattern).case_insensitive(ignores_case).multi_line(true).size_limit(MOST).build()
        };
        if text.is_empty() {
            return Self::default();
        }
        let (regex, is_plain) = match build(text) {
            Ok(regex) => (Some(regex), false),
            Err(_) => (build(&regex::escape(text)).ok(), true),
        };
        Self { text: text.to_owned(), regex, is_plain }
    }

    /// What was typed.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a record is chosen.
    pub(crate) fn accepts(&self, text: &str) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    /// The places that made it be chosen.
    pub(crate) fn matches<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.regex.iter().flat_map(move |regex| regex.find_iter(text)).map(|found| found.range()).filter(|range| !range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_letters_stand_for_both_and_capitals_for_themselves() {
        assert!(Filter::new("error").accepts("an ERROR"));
        assert!(!Filter::new("Error").accepts("an ERROR"));
        assert!(Filter::new("").accepts("anything"));
    }

    #[test]
    fn what_is_no_expression_yet_is_plain_text() {
        let filter = Filter::new("f(x");
        assert!(filter.is_plain && filter.accepts("calls f(x)") && !filter.accepts("fx"));
        let filter = Filter::new("f.x");
        assert!(!filter.is_plain && filter.accepts("fox"));
        assert_eq!(filter.matches("a fox, a fix").collect::<Vec<_>>(), [2..5, 9..12]);
    }
}
