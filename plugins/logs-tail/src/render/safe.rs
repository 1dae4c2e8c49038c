//! What containers write, made safe to look at: control characters, sequences
//! that change a terminal and bytes that are no text become visible. Pure.

use std::fmt::Write as _;
use std::ops::Range;

/// A part of a message that has a colour: an SGR parameter.
pub(crate) type Span = (Range<usize>, &'static str);

/// Appends `message` in colours: its own, and those of `spans` (in order and
/// apart from each other). Without `colors`, its own are left out.
pub(crate) fn paint(message: &[u8], spans: &[Span], colors: bool, text: &mut String) {
    let message = message.strip_suffix(b"\r").unwrap_or(message);
    let mut done = 0;
    for (range, sgr) in spans.iter().filter(|_| colors) {
        let (start, end) = (range.start.min(message.len()), range.end.min(message.len()));
        if start < done || start >= end {
            continue;
        }
        make_safe(&message[done..start], colors, text);
        let _ = write!(text, "\u{1b}[{sgr}m");
        make_safe(&message[start..end], colors, text);
        text.push_str("\u{1b}[0m");
        done = end;
    }
    make_safe(&message[done..], colors, text);
}

/// Control characters become visible; colours stay, if colours are shown, and
/// end with the text. Bytes that are no UTF-8 become `\xff`.
fn make_safe(message: &[u8], colors: bool, text: &mut String) {
    let mut is_styled = false;
    for chunk in message.utf8_chunks() {
        characters(chunk.valid(), colors, &mut is_styled, text);
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if is_styled {
        text.push_str("\u{1b}[0m");
    }
}

fn characters(mut rest: &str, colors: bool, is_styled: &mut bool, text: &mut String) {
    // Nearly all text is plain.
    if rest.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        text.push_str(rest);
        return;
    }
    while let Some(character) = rest.chars().next() {
        if let Some(length) = style_sequence(rest) {
            if colors {
                text.push_str(&rest[..length]);
                *is_styled = true;
            }
            rest = &rest[length..];
            continue;
        }
        match character {
            '\t' => text.push('\t'),
            '\u{0}'..='\u{1f}' => text.extend(['^', char::from(character as u8 + 0x40)]),
            '\u{7f}' => text.push_str("^?"),
            // C1 controls, and what changes the direction of text.
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(text, "<U+{:04X}>", character as u32);
            }
            _ => text.push(character),
        }
        rest = &rest[character.len_utf8()..];
    }
}

/// The length of the colour sequence (`ESC [ 1;31 m`) that `text` starts with.
fn style_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let length = parameters.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')).count();
    (length <= 64 && parameters.as_bytes().get(length) == Some(&b'm')).then_some(2 + length + 1)
}
