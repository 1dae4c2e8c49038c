//! A JSON object read where it lies: keys and where their values are, nothing
//! copied, nothing checked that isn't needed. Pure.

use super::{Kind, Slot};
use memchr::memchr2;

/// Calls `visit` with each key of the object that starts at `at` (raw, between
/// its quotes) and its value, until it returns `false`. Gives the index behind
/// the object, or none where it is broken or the visit ended early.
pub(crate) fn walk_object(text: &[u8], at: usize, visit: &mut dyn FnMut(&[u8], Slot) -> bool) -> Option<usize> {
    let mut index = skip_space(text, at);
    if text.get(index) != Some(&b'{') {
        return None;
    }
    index = skip_space(text, index + 1);
    if text.get(index) == Some(&b'}') {
        return Some(index + 1);
    }
    loop {
        if text.get(index) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(text, index + 1)?;
        let key = &text[index + 1..key_end];
        index = skip_space(text, key_end + 1);
        if text.get(index) != Some(&b':') {
            return None;
        }
        index = skip_space(text, index + 1);
        let slot = value(text, index)?;
        index = slot.end + usize::from(matches!(slot.kind, Kind::Text));
        if !visit(key, slot) {
            return None;
        }
        index = skip_space(text, index);
        match text.get(index) {
            Some(b',') => index = skip_space(text, index + 1),
            Some(b'}') => return Some(index + 1),
            _ => return None,
        }
    }
}

/// The element with this number of the array that starts at `at`.
pub(crate) fn element(text: &[u8], at: usize, number: usize) -> Option<Slot> {
    let mut index = skip_space(text, at);
    if text.get(index) != Some(&b'[') {
        return None;
    }
    index = skip_space(text, index + 1);
    for current in 0.. {
        let slot = value(text, index)?;
        if current == number {
            return Some(slot);
        }
        index = skip_space(text, slot.end + usize::from(matches!(slot.kind, Kind::Text)));
        if text.get(index) != Some(&b',') {
            return None;
        }
        index = skip_space(text, index + 1);
    }
    None
}

/// The value that starts at `index`.
fn value(text: &[u8], index: usize) -> Option<Slot> {
    let slot = |kind, start, end| Some(Slot { kind, start, end });
    match text.get(index)? {
        b'"' => slot(Kind::Text, index + 1, string_end(text, index + 1)?),
        b'{' | b'[' => slot(Kind::Nested, index, nested_end(text, index)?),
        first => {
            let length = text[index..].iter().take_while(|byte| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n')).count();
            let kind = match first {
                b't' if text[index..].starts_with(b"true") => Kind::True,
                b'f' if text[index..].starts_with(b"false") => Kind::False,
                b'n' if text[index..].starts_with(b"null") => Kind::Null,
                b'-' | b'0'..=b'9' => Kind::Number,
                _ => return None,
            };
            slot(kind, index, index + length)
        }
    }
}

/// The index of the quote that ends the string whose text starts at `start`.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    // Most keys and values are short: a search that starts up slowly pays later.
    let near = text.len().min(start + 16);
    let mut index = start;
    while index < near {
        match text[index] {
            b'"' => return Some(index),
            b'\\' => index += 2,
            _ => index += 1,
        }
    }
    loop {
        let found = index + memchr2(b'"', b'\\', text.get(index..)?)?;
        if text[found] == b'"' {
            return Some(found);
        }
        index = found + 2;
    }
}

/// The index behind the object or array that starts at `start`.
fn nested_end(text: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut index = start;
    loop {
        match text.get(index)? {
            b'"' => index = string_end(text, index + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(index + 1);
                }
            }
            _ => {}
        }
        index += 1;
    }
}

fn skip_space(text: &[u8], mut index: usize) -> usize {
    while matches!(text.get(index), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        index += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(text: &str) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        walk_object(text.as_bytes(), 0, &mut |key, slot| {
            found.push((String::from_utf8_lossy(key).into_owned(), text[slot.start..slot.end].to_owned()));
            true
        })
        .map(|_| found)
    }

    #[test]
    fn values_are_found_where_they_lie() {
        let found = keys(r#" { "a" : "x\"y\\" ,"b":[1,{"c":"}"}], "d":-1.5e3,"e":null,"f":{}} "#).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, [("a", r#"x\"y\\"#), ("b", r#"[1,{"c":"}"}]"#), ("d", "-1.5e3"), ("e", "null"), ("f", "{}")]);
        let text = b"[\"p\", 7, [1]]";
        assert_eq!(element(text, 0, 1).map(|slot| &text[slot.start..slot.end]), Some(&b"7"[..]));
        assert!(element(text, 0, 3).is_none());
    }

    proptest! {
        #[test]
        fn broken_objects_are_none_and_never_a_panic(text in r#"[{}\[\]":,\\a1 tfn-]{0,40}"#) {
            let _ = keys(&text);
            let _ = keys(&format!("{{{text}"));
            let _ = element(text.as_bytes(), 0, 2);
        }

        #[test]
        fn it_finds_the_keys_that_a_parser_finds(map in prop::collection::btree_map("[a-z\"\\\\é ]{0,20}", prop_oneof!["[^\u{0}]{0,40}".prop_map(serde_json::Value::from), any::<i64>().prop_map(serde_json::Value::from)], 0..6)) {
            let text = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(keys(&text).unwrap().len(), map.len());
        }
    }
}
