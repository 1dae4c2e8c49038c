//! From text to tokens. Pure.

use super::ExpressionError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Integer(i64),
    Float(f64),
    /// In seconds.
    Duration(f64),
    Text(String),
    Name(String),
    /// One of [`SIGNS`].
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: [&str; 20] = ["&&", "||", "==", "!=", "<=", ">=", "!~", "=~", "!", "<", ">", "~", "(", ")", "[", "]", ",", ".", "@", "="];

/// Tokens with the position of each; the last is [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<(usize, Token)>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut index = 0;
    while let Some(character) = text[index..].chars().next() {
        let rest = &text[index..];
        let error =
            |problem: &str, offset: usize| ExpressionError { text: text.to_owned(), position: index + offset, problem: problem.to_owned() };
        let (token, length) = if character.is_whitespace() {
            index += character.len_utf8();
            continue;
        } else if character.is_ascii_digit() || (character == '-' && rest[1..].starts_with(|next: char| next.is_ascii_digit())) {
            number(rest).map_err(|problem| error(&problem, 0))?
        } else if character == '"' || character == '\'' {
            string(rest, character).ok_or_else(|| error("this string has no end", 0))?
        } else if character.is_alphabetic() || character == '_' || character == '$' {
            let length = rest.find(|next: char| !next.is_alphanumeric() && !matches!(next, '_' | '-' | '$')).unwrap_or(rest.len());
            (Token::Name(rest[..length].to_owned()), length)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            match *sign {
                // What other languages write.
                "=" => return Err(error("a single = means nothing here; write ==", 0)),
                "=~" => (Token::Sign("~"), 2),
                sign => (Token::Sign(sign), sign.len()),
            }
        } else {
            return Err(error(&format!("{character:?} means nothing here"), 0));
        };
        tokens.push((index, token));
        index += length;
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let digits = |text: &str| text.find(|next: char| !next.is_ascii_digit()).unwrap_or(text.len());
    let mut length = usize::from(text.starts_with('-'));
    length += digits(&text[length..]);
    let mut is_float = false;
    if text[length..].strip_prefix('.').is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit())) {
        is_float = true;
        length += 1 + digits(&text[length + 1..]);
    }
    let exponent = text[length..].trim_start_matches(['e', 'E']).trim_start_matches(['+', '-']);
    if text[length..].starts_with(['e', 'E']) && exponent.starts_with(|next: char| next.is_ascii_digit()) {
        is_float = true;
        length = text.len() - exponent.len() + digits(exponent);
    }
    let word = text[length..].find(|next: char| !next.is_alphanumeric() && next != '.').unwrap_or(text.len() - length);
    if word > 0 {
        let whole = &text[..length + word];
        let seconds = super::value::duration(whole.as_bytes())
            .ok_or_else(|| format!("{whole:?} is neither a number nor a duration; units are ns, us, ms, s, m, h, d"))?;
        return Ok((Token::Duration(seconds), whole.len()));
    }
    let digits = &text[..length];
    let token = match digits.parse::<i64>() {
        Ok(integer) if !is_float => Token::Integer(integer),
        _ => Token::Float(digits.parse().map_err(|_| format!("{digits:?} is no number"))?),
    };
    Ok((token, length))
}

/// A quoted string. Only quotes and backslashes can be escaped, so that regular
/// expressions can be written as they are.
fn string(text: &str, quote: char) -> Option<(Token, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((index, character)) = characters.next() {
        if character == quote {
            return Some((Token::Text(value), index + 1));
        }
        match characters.peek() {
            Some((_, next)) if character == '\\' && *next == quote => {
                value.push(quote);
                characters.next();
            }
            Some((_, '\\')) if character == '\\' => {
                value.push_str("\\\\");
                characters.next();
            }
            _ => value.push(character),
        }
    }
    None
}
