//! From text to text and actions of tokens. Pure.

use super::Problem;

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Text(String),
    /// With the position of each token, and of the end.
    Action(Vec<(usize, Token)>, usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.`, or `.A.B` as its names.
    Field(Vec<String>),
    /// `$x.A.B`; the name may be empty.
    Variable(String, Vec<String>),
    Word(String),
    Text(String),
    Number(serde_json::Number),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
}

pub(super) fn lex(text: &str) -> Result<Vec<Part>, Problem> {
    let mut parts = Vec::new();
    let (mut index, mut trims) = (0, false);
    while index < text.len() {
        let start = text[index..].find("{{").map_or(text.len(), |start| index + start);
        let mut plain = &text[index..start];
        if trims {
            plain = plain.trim_start();
        }
        let inside = start + 2;
        let trims_left = text.get(inside..).is_some_and(|rest| rest.starts_with("- "));
        if trims_left {
            plain = plain.trim_end();
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.to_owned()));
        }
        if start == text.len() {
            break;
        }
        let mut at = if trims_left { inside + 1 } else { inside };
        if text[at..].trim_start().starts_with("/*") {
            let end = text[at..].find("*/").map(|end| at + end + 2).ok_or((start, "this comment has no end".to_owned()))?;
            let rest = text[end..].trim_start();
            trims = rest.starts_with('-');
            let rest = rest.trim_start_matches('-');
            index = text.len() - rest.len() + 2;
            if !rest.starts_with("}}") {
                return Err((start, "this comment has no end".into()));
            }
            continue;
        }
        let mut tokens = Vec::new();
        loop {
            let rest = text[at..].trim_start();
            at = text.len() - rest.len();
            if rest.starts_with("}}") || rest.starts_with("-}}") {
                trims = rest.starts_with('-');
                parts.push(Part::Action(tokens, at));
                index = at + if trims { 3 } else { 2 };
                break;
            }
            if rest.is_empty() {
                return Err((start, "this action has no end".into()));
            }
            let (token, length) = token(rest).map_err(|problem| (at, problem))?;
            tokens.push((at, token));
            at += length;
        }
    }
    Ok(parts)
}

fn token(rest: &str) -> Result<(Token, usize), String> {
    let word = |from: usize| rest[from..].find(|next: char| !next.is_alphanumeric() && next != '_').map_or(rest.len(), |end| from + end);
    let first = rest.chars().next().unwrap_or(' ');
    Ok(match first {
        '.' => {
            let (names, length) = names(rest);
            if names.is_empty() && rest[1..].starts_with(|next: char| next.is_ascii_digit()) {
                return Err("a number needs a digit before its dot".into());
            }
            (Token::Field(names), length.max(1))
        }
        '$' => {
            let end = word(1);
            let (names, length) = names(&rest[end..]);
            (Token::Variable(rest[1..end].to_owned(), names), end + length)
        }
        '"' => {
            let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            match strings.next() {
                Some(Ok(string)) => (Token::Text(string), strings.byte_offset()),
                _ => return Err("this string can't be read".into()),
            }
        }
        '`' => {
            let end = rest[1..].find('`').ok_or("this string has no end")?;
            (Token::Text(rest[1..=end].to_owned()), end + 2)
        }
        '|' => (Token::Pipe, 1),
        '(' => (Token::Open, 1),
        // What follows is a field of what is in the parentheses.
        ')' => (Token::Close, 1),
        ',' => (Token::Comma, 1),
        ':' if rest.starts_with(":=") => (Token::Declare, 2),
        '=' => (Token::Assign, 1),
        '-' | '0'..='9' => {
            let end = rest[1..].find(|next: char| !next.is_ascii_digit() && next != '.' && next != 'e').map_or(rest.len(), |end| end + 1);
            (Token::Number(rest[..end].parse().map_err(|_| format!("{:?} is no number", &rest[..end]))?), end)
        }
        _ if first.is_alphabetic() || first == '_' => {
            let end = word(0);
            (Token::Word(rest[..end].to_owned()), end)
        }
        _ => return Err(format!("{first:?} means nothing here")),
    })
}

/// `.A.B` as its names and length.
fn names(rest: &str) -> (Vec<String>, usize) {
    let (mut names, mut index) = (Vec::new(), 0);
    while rest[index..].starts_with('.') {
        let end = rest[index + 1..].find(|next: char| !next.is_alphanumeric() && next != '_').map_or(rest.len(), |end| index + 1 + end);
        if end == index + 1 || rest[index + 1..].starts_with(|next: char| next.is_ascii_digit()) {
            break;
        }
        names.push(rest[index + 1..end].to_owned());
        index = end;
    }
    (names, index)
}
