//! Go templates, as far as stern's documentation uses them: fields, variables,
//! pipelines, `if`, `with`, `range`, stern's functions and those of Go that
//! compare and print. Pure.

mod evaluate;
mod lexer;
mod parser;

use crate::lines::expression::pointer;
use parser::Node;
use serde_json::Value;

/// A template.
#[derive(Debug)]
pub(crate) struct Go {
    nodes: Vec<Node>,
    colors: bool,
}

/// What is wrong, and where.
type Problem = (usize, String);

impl Go {
    pub(super) fn parse(text: &str, colors: bool) -> Result<Self, String> {
        let nodes =
            lexer::lex(text).and_then(parser::parse).map_err(|(position, problem)| format!("{problem}\n{}", pointer(text, position)))?;
        Ok(Self { nodes, colors })
    }

    pub(super) fn render(&self, data: Value) -> Result<String, String> {
        evaluate::render(&self.nodes, data, self.colors)
    }
}

/// Whether a template is Go's: it has `.Name`, `$x`, or an `end` of its own.
pub(super) fn is_go(text: &str) -> bool {
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let inside = &rest[start + 2..];
        let length = inside.find("}}").unwrap_or(inside.len());
        let action = inside[..length].trim_start_matches('-').trim_end_matches('-').trim();
        let starts_field = |text: &str| text.starts_with('.') || text.starts_with('$');
        if starts_field(action) || action == "end" || action == "else" || action.split([' ', '(', '|']).any(starts_field) {
            return true;
        }
        rest = &inside[length..];
    }
    false
}
