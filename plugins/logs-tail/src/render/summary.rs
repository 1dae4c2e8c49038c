//! Equal traces with how often they were seen. Pure.

use super::{Look, safe::paint};
use crate::lines::group::{Group, Groups};
use jiff::Timestamp;
use serde_json::json;
use std::fmt::Write as _;

/// For people: a line about each, then the first of them.
pub(crate) fn readable(groups: &Groups, look: &Look) -> String {
    let mut text = String::new();
    for group in groups.sorted() {
        let times = if group.count == 1 { "once".to_owned() } else { format!("{} times", group.count) };
        let head = [Some(times), span(group, look), places(group)].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let _ = if look.colors { writeln!(text, "\u{1b}[1m{head}\u{1b}[0m") } else { writeln!(text, "{head}") };
        for line in group.text.split(|byte| *byte == b'\n') {
            text.push_str("    ");
            paint(line, &[], look.colors, &mut text);
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// For programs: an object a line.
pub(crate) fn json(groups: &Groups) -> String {
    let stamp = |timestamp: Option<Timestamp>| timestamp.map(|timestamp| format!("{timestamp:.9}"));
    groups
        .sorted()
        .into_iter()
        .map(|group| {
            let message = String::from_utf8_lossy(&group.text);
            let object = json!({
                "count": group.count, "first": stamp(group.first), "last": stamp(group.last),
                "containers": group.places, "message": message,
            });
            format!("{object}\n")
        })
        .collect()
}

fn span(group: &Group, look: &Look) -> Option<String> {
    let text = |timestamp: Timestamp| match &look.stamp {
        Some(stamp) => stamp.text(timestamp),
        None => format!("{timestamp:.3}"),
    };
    let (first, last) = (group.first?, group.last?);
    Some(if first == last { text(first) } else { format!("{} to {}", text(first), text(last)) })
}

fn places(group: &Group) -> Option<String> {
    const SHOWN: usize = 3;
    let names: Vec<&str> = group.places.iter().take(SHOWN).map(String::as_str).collect();
    let more = group.places.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("in {}{more}", names.join(", ")))
}
