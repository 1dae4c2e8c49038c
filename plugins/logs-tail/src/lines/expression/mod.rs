//! `status >= 500 && path ~ "^/api"`: what `--where` says. Pure.
//!
//! ```text
//! or      := and ("||" and)*
//! and     := not ("&&" not)*
//! not     := "!" not | compare
//! compare := value (("==" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~" | "in") value)?
//! value   := number | duration | string | true | false | null | list
//!          | field | name "(" values ")" | "(" or ")"
//! field   := ("@" name | name) ("." name | "[" number "]" | "[" string "]")*
//! ```
//!
//! A name is a field of the record. Behind an `@` is what is known of any
//! record: `@level`, `@message`, `@line`, `@format`, `@pod`, `@container`,
//! `@namespace`, `@node`. A field that isn't there is `null`; comparing values
//! that have no order is false, and `!=` and `!~` are the opposite of `==` and `~`.

mod evaluate;
mod lexer;
mod parser;
mod path;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use evaluate::{Expression, Subject};

use std::fmt;

/// An expression that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpressionError {
    pub(crate) text: String,
    /// Where in it, in bytes.
    pub(crate) position: usize,
    pub(crate) problem: String,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n{}", self.problem, pointer(&self.text, self.position))
    }
}

impl std::error::Error for ExpressionError {}

/// The line of `text` that `position` is in, and a caret below the place.
pub(crate) fn pointer(text: &str, position: usize) -> String {
    let position = (0..=position.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..position].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[position..].find('\n').map_or(text.len(), |newline| position + newline);
    let column = console::measure_text_width(&text[start..position]);
    format!("  {}\n  {}^", text[start..end].replace('\t', " "), " ".repeat(column))
}
