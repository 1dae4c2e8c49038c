//! From tokens to a tree that is ready to be evaluated. Pure.

use super::ExpressionError;
use super::evaluate::{Constant, Function, Known, Node, Order};
use super::lexer::{Token, lex};
use super::path::{Path, Segment};
use crate::lines::level::Level;
use regex::bytes::Regex;

/// Deeper nesting is refused, not followed to the end of the stack.
const DEPTH: usize = 64;

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    pub(super) paths: Vec<Path>,
}

type Parsed<T> = Result<T, ExpressionError>;

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Parsed<Self> {
        Ok(Self { text, tokens: lex(text)?, next: 0, depth: 0, paths: Vec::new() })
    }

    pub(super) fn whole(&mut self) -> Parsed<Node> {
        let node = self.or()?;
        match self.peek() {
            Token::End => Ok(node),
            _ => Err(self.error("expected an operator (==, <, ~, in, &&, ...) or the end")),
        }
    }

    fn or(&mut self) -> Parsed<Node> {
        let mut alternatives = vec![self.and()?];
        while self.takes("||") {
            alternatives.push(self.and()?);
        }
        Ok(if alternatives.len() == 1 { alternatives.remove(0) } else { Node::Any(alternatives) })
    }

    fn and(&mut self) -> Parsed<Node> {
        let mut conditions = vec![self.not()?];
        while self.takes("&&") {
            conditions.push(self.not()?);
        }
        Ok(if conditions.len() == 1 { conditions.remove(0) } else { Node::All(conditions) })
    }

    fn not(&mut self) -> Parsed<Node> {
        let mut is_negated = false;
        while self.takes("!") {
            is_negated = !is_negated;
        }
        let node = self.compare()?;
        Ok(if is_negated { Node::Not(Box::new(node)) } else { node })
    }

    fn compare(&mut self) -> Parsed<Node> {
        let left_at = self.position();
        let left = self.value()?;
        let sign = match self.peek() {
            Token::Sign(sign) => *sign,
            Token::Name(name) if name == "in" => "in",
            _ => return Ok(left),
        };
        let order = match sign {
            "==" => Order::Equal,
            "!=" => Order::Unequal,
            "<" => Order::Less,
            "<=" => Order::LessOrEqual,
            ">" => Order::Greater,
            ">=" => Order::GreaterOrEqual,
            "~" | "!~" => return self.matching(left, sign == "!~"),
            "in" => {
                self.next += 1;
                let list_at = self.position();
                let Node::List(list) = self.value()? else {
                    return Err(self.error_at(list_at, "expected a list behind in: [200, 204]"));
                };
                return Ok(Node::In(Box::new(left), list));
            }
            _ => return Ok(left),
        };
        self.next += 1;
        let right_at = self.position();
        let right = self.value()?;
        for (node, position) in [(&left, left_at), (&right, right_at)] {
            if matches!(node, Node::List(_)) {
                return Err(self.error_at(position, "a list can only stand behind in"));
            }
        }
        if matches!(self.peek(), Token::Sign("==" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~")) {
            return Err(self.error("comparisons can't be chained; join two with &&"));
        }
        let (left, right) = (self.as_level(left, &right, left_at)?, right);
        let right = self.as_level(right, &left, right_at)?;
        Ok(Node::Compare(order, Box::new(left), Box::new(right)))
    }

    /// Text that is compared with `@level` must be one.
    fn as_level(&self, node: Node, other: &Node, position: usize) -> Parsed<Node> {
        match (&node, other) {
            (Node::Constant(Constant::Text(text)), Node::Known(Known::Level)) => match Level::parse(text) {
                Some(level) => Ok(Node::Constant(Constant::Level(level))),
                None => Err(self.error_at(position, "no such level; levels are trace, debug, info, warn, error, fatal")),
            },
            _ => Ok(node),
        }
    }

    fn matching(&mut self, left: Node, is_negated: bool) -> Parsed<Node> {
        self.next += 1;
        let position = self.position();
        let Token::Text(pattern) = self.peek().clone() else {
            return Err(self.error("expected a regular expression in quotes"));
        };
        self.next += 1;
        let regex = Regex::new(&pattern).map_err(|error| self.error_at(position, &format!("bad regular expression: {}", brief(&error))))?;
        let node = Node::Match(Box::new(left), regex);
        Ok(if is_negated { Node::Not(Box::new(node)) } else { node })
    }

    fn value(&mut self) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error("this is nested too deeply"));
        }
        let node = self.bare_value()?;
        self.depth -= 1;
        Ok(node)
    }

    fn bare_value(&mut self) -> Parsed<Node> {
        let position = self.position();
        let token = self.peek().clone();
        self.next += usize::from(token != Token::End);
        let constant = match token {
            Token::Integer(value) => Constant::Integer(value),
            Token::Float(value) => Constant::Float(value),
            Token::Duration(seconds) => Constant::Duration(seconds),
            Token::Text(text) => Constant::Text(text.replace("\\\\", "\\").into_bytes()),
            Token::Name(name) => match name.as_str() {
                "true" => Constant::Bool(true),
                "false" => Constant::Bool(false),
                "null" => Constant::Null,
                _ if *self.peek() == Token::Sign("(") => return self.call(&name, position),
                _ => return self.field(name),
            },
            Token::Sign("@") => return self.known(),
            Token::Sign("(") => {
                let node = self.or()?;
                self.expect(")")?;
                return Ok(node);
            }
            Token::Sign("[") => return self.list(),
            Token::End => return Err(self.error_at(position, "expected a value, but this is the end")),
            Token::Sign(_) => return Err(self.error_at(position, "expected a value: a field, a number, a duration or a string")),
        };
        Ok(Node::Constant(constant))
    }

    fn list(&mut self) -> Parsed<Node> {
        let mut constants = Vec::new();
        while !self.takes("]") {
            let position = self.position();
            match self.value()? {
                Node::Constant(constant) => constants.push(constant),
                _ => return Err(self.error_at(position, "a list holds numbers, durations and strings")),
            }
            if !self.takes(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Node::List(constants))
    }

    fn field(&mut self, first: String) -> Parsed<Node> {
        let mut segments = vec![Segment::Name(first.into_bytes())];
        loop {
            if self.takes(".") {
                let Token::Name(name) = self.peek().clone() else { return Err(self.error("expected a name behind the dot")) };
                self.next += 1;
                segments.push(Segment::Name(name.into_bytes()));
            } else if self.takes("[") {
                let segment = match self.peek().clone() {
                    Token::Integer(index) if index >= 0 => Segment::Index(usize::try_from(index).unwrap_or(usize::MAX)),
                    Token::Text(name) => Segment::Name(name.replace("\\\\", "\\").into_bytes()),
                    _ => return Err(self.error("expected a number or a name in quotes")),
                };
                self.next += 1;
                self.expect("]")?;
                segments.push(segment);
            } else {
                break;
            }
        }
        let path = Path::new(segments);
        let index = self.paths.iter().position(|known| *known == path).unwrap_or_else(|| {
            self.paths.push(path);
            self.paths.len() - 1
        });
        Ok(Node::Field(index))
    }

    fn known(&mut self) -> Parsed<Node> {
        let known = match self.peek() {
            Token::Name(name) => Known::ALL.iter().find(|(_, known)| known == name),
            _ => None,
        };
        let Some((known, _)) = known else {
            let names: Vec<String> = Known::ALL.iter().map(|(_, name)| format!("@{name}")).collect();
            return Err(self.error(&format!("expected one of {}", names.join(", "))));
        };
        self.next += 1;
        Ok(Node::Known(*known))
    }

    fn call(&mut self, name: &str, position: usize) -> Parsed<Node> {
        let Some((function, _, count)) = Function::ALL.iter().find(|(_, known, _)| *known == name) else {
            let names: Vec<&str> = Function::ALL.iter().map(|(_, name, _)| *name).collect();
            return Err(self.error_at(position, &format!("no function {name:?}; there are {}", names.join(", "))));
        };
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.takes(")") {
            arguments.push(self.value()?);
            if !self.takes(",") {
                self.expect(")")?;
                break;
            }
        }
        if arguments.len() != *count {
            return Err(self.error_at(position, &format!("{name} takes {count} values, not {}", arguments.len())));
        }
        Ok(Node::Call(*function, arguments))
    }

    fn peek(&self) -> &Token {
        // The last token is the end, and nothing goes beyond it.
        &self.tokens[self.next.min(self.tokens.len() - 1)].1
    }

    fn position(&self) -> usize {
        self.tokens[self.next.min(self.tokens.len() - 1)].0
    }

    fn takes(&mut self, sign: &'static str) -> bool {
        let is_there = *self.peek() == Token::Sign(sign);
        self.next += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, sign: &'static str) -> Parsed<()> {
        if self.takes(sign) { Ok(()) } else { Err(self.error(&format!("expected {sign}"))) }
    }

    fn error(&self, problem: &str) -> ExpressionError {
        self.error_at(self.position(), problem)
    }

    fn error_at(&self, position: usize, problem: &str) -> ExpressionError {
        ExpressionError { text: self.text.to_owned(), position, problem: problem.to_owned() }
    }
}

/// The last line of a regex error says what is wrong; those above draw it.
fn brief(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
