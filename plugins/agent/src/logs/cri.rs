//! One line of a log file, in the format of the container runtime interface:
//! `TIME stdout|stderr TAGS CONTENT`, the first tag being `P` for a part of a line
//! or `F` for its end
//! (<https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>).

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

/// RFC 3339 with up to nine digits of a second, as nanoseconds since 1970.
pub(super) fn parse_time(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, separator)| date[*at] != *separator) {
        return None;
    }
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..10])?);
    let (hour, minute, second) = (number(&date[11..13])?, number(&date[14..16])?, number(&date[17..19])?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanoseconds, zone) = fraction(rest)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, zone) = digits.split_at(end);
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    let missing = u32::try_from(9 - digits.len()).ok()?;
    Some((number(digits)? * 10_i64.pow(missing), zone))
}

/// Seconds east of Greenwich.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let seconds = number(&[*h1, *h2])? * 3600 + number(&[*m1, *m2])? * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

/// Days from 1970-01-01 in the Gregorian calendar: years are counted from March,
/// so that the leap day is the last (Howard Hinnant, `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
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
        fn times_are_those_of_another_reader(nanoseconds in 0..4_000_000_000_000_000_000_i64, hours in -12..13_i8) {
            let timestamp = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap();
            prop_assert_eq!(parse_time(timestamp.to_string().as_bytes()), Some(nanoseconds));
            let zoned = timestamp.display_with_offset(jiff::tz::offset(hours)).to_string();
            prop_assert_eq!(parse_time(zoned.as_bytes()), Some(nanoseconds));
        }

        #[test]
        fn damage_never_panics(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&line);
        }
    }
}
