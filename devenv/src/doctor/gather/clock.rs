//! How far another clock is from ours.

use jiff::Timestamp;

/// Seconds that the other clock is ahead, when it was read between two of our
/// own readings and is truncated to whole seconds; 0 when it may be right.
pub(super) fn ahead(before: Timestamp, other: Timestamp, after: Timestamp) -> i64 {
    let (before, other, after) = (before.as_second(), other.as_second(), after.as_second());
    if other > after {
        other.saturating_sub(after)
    } else if other < before {
        other.saturating_sub(before)
    } else {
        0
    }
}

/// The time in an HTTP `Date` header.
pub(super) fn of_header(date: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(date).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_only_by_what_the_time_in_between_does_not_explain() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(ahead(at(100), at(100), at(103)), 0);
        assert_eq!(ahead(at(100), at(102), at(103)), 0);
        assert_eq!(ahead(at(100), at(110), at(103)), 7);
        assert_eq!(ahead(at(100), at(90), at(103)), -10);
        assert_eq!(of_header("Mon, 23 Nov 2026 12:20:09 GMT"), Some(at(1_795_436_409)));
        assert_eq!(of_header("yesterday"), None);
    }
}
