//! Go's way to say how a time is written: by example (`2006-01-02 15:04:05`). Pure.

use jiff::Zoned;
use jiff::fmt::strtime;

/// Parts of a layout, longer ones before those that they start with, and what
/// `strftime` calls them. From the documentation of Go's package `time`.
const PARTS: [(&str, &str); 27] = [
    ("January", "%B"),
    ("Monday", "%A"),
    ("2006", "%Y"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    ("Z07:00", "%:z"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    ("MST", "%Z"),
    (".000000000", ".%9f"),
    (".000000", ".%6f"),
    (".000", ".%3f"),
    (",000", ",%3f"),
    (".999999999", "%.f"),
    (".999999", "%.6f"),
    (".999", "%.3f"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("_2", "%e"),
    ("pm", "%P"),
];

/// A time in a layout.
pub(super) fn go_layout(layout: &str, time: &Zoned) -> String {
    let mut pattern = String::new();
    let mut rest = layout;
    while let Some(character) = rest.chars().next() {
        if let Some((part, directive)) = PARTS.iter().find(|(part, _)| rest.starts_with(part)) {
            // `Z07:00` is `Z` in UTC.
            pattern.push_str(if *part == "Z07:00" && time.offset().is_zero() { "Z" } else { directive });
            rest = &rest[part.len()..];
            continue;
        }
        pattern.push(character);
        if character == '%' {
            pattern.push('%');
        }
        rest = &rest[character.len_utf8()..];
    }
    strtime::format(&pattern, time).unwrap_or_else(|_| layout.to_owned())
}
