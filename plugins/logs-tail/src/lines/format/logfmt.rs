//! `key=value key="quoted value"`: logfmt, and the ends of structured klog
//! lines. Pure.

use super::{Kind, Slot};

/// Calls `visit` with each key and value behind `start`, until it returns
/// `false`. Words that are no pair are passed over.
pub(crate) fn walk(line: &[u8], start: usize, visit: &mut dyn FnMut(&[u8], Slot) -> bool) {
    let mut index = start;
    while let Some((key, slot, next)) = pair(line, &mut index) {
        index = next;
        if !visit(key, slot) {
            return;
        }
    }
}

/// How many pairs, and how many words that are none, a line starts with.
pub(crate) fn count(line: &[u8]) -> (usize, usize) {
    let (mut pairs, mut covered) = (0, 0);
    walk(line, 0, &mut |key, slot| {
        pairs += 1;
        covered += key.len() + 1 + (slot.end - slot.start);
        pairs < 16
    });
    (pairs, line.len().saturating_sub(covered + pairs * 3))
}

fn pair<'a>(line: &'a [u8], index: &mut usize) -> Option<(&'a [u8], Slot, usize)> {
    loop {
        while line.get(*index).is_some_and(u8::is_ascii_whitespace) {
            *index += 1;
        }
        if *index >= line.len() {
            return None;
        }
        let length = line[*index..].iter().take_while(|byte| is_key(**byte)).count();
        let equals = *index + length;
        if length > 0 && line.get(equals) == Some(&b'=') {
            let key = &line[*index..equals];
            let start = equals + 1;
            if line.get(start) == Some(&b'"')
                && let Some(end) = quoted_end(line, start + 1)
            {
                return Some((key, Slot { kind: Kind::Text, start: start + 1, end }, end + 1));
            }
            let end = start + line[start..].iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
            return Some((key, Slot { kind: Kind::Bare, start, end }, end));
        }
        // Not a pair: on to the next word.
        *index += line[*index..].iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
    }
}

fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/' | b'@' | b':')
}

/// The index of the quote that ends a string.
pub(super) fn quoted_end(line: &[u8], start: usize) -> Option<usize> {
    let mut index = start;
    loop {
        match line.get(index)? {
            b'"' => return Some(index),
            b'\\' => index += 2,
            _ => index += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_among_words() {
        let line = br#"time=1 msg="a \"b\" c" hello dur=1.5s empty= x"#;
        let mut found = Vec::new();
        walk(line, 0, &mut |key, slot| {
            found.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(&line[slot.start..slot.end])));
            true
        });
        assert_eq!(found, ["time=1", r#"msg=a \"b\" c"#, "dur=1.5s", "empty="]);
    }
}
