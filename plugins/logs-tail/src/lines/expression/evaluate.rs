//! Whether a record is what an expression says. Pure.

use super::ExpressionError;
use super::parser::Parser;
use super::path::{Path, find};
use super::value::{Value, number};
use crate::lines::format::{Facts, Format, Slot};
use crate::lines::level::Level;
use crate::lines::place::Place;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Debug)]
pub(super) enum Node {
    Constant(Constant),
    /// The path with this index.
    Field(usize),
    Known(Known),
    List(Vec<Constant>),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Compare(Order, Box<Node>, Box<Node>),
    Match(Box<Node>, Regex),
    In(Box<Node>, Vec<Constant>),
    Call(Function, Vec<Node>),
}

#[derive(Clone, Debug)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Duration(f64),
    Text(Vec<u8>),
    Level(Level),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is known of any record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Level,
    Message,
    Line,
    Format,
    Pod,
    Container,
    Namespace,
    Node,
}

impl Known {
    pub(super) const ALL: [(Self, &'static str); 8] = [
        (Self::Level, "level"),
        (Self::Message, "message"),
        (Self::Line, "line"),
        (Self::Format, "format"),
        (Self::Pod, "pod"),
        (Self::Container, "container"),
        (Self::Namespace, "namespace"),
        (Self::Node, "node"),
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Has,
    Length,
    Lower,
    Contains,
    StartsWith,
    EndsWith,
    Number,
}

impl Function {
    /// With its name and how many values it takes.
    pub(super) const ALL: [(Self, &'static str, usize); 7] = [
        (Self::Has, "has", 1),
        (Self::Length, "len", 1),
        (Self::Lower, "lower", 1),
        (Self::Contains, "contains", 2),
        (Self::StartsWith, "startswith", 2),
        (Self::EndsWith, "endswith", 2),
        (Self::Number, "number", 1),
    ];
}

/// An expression, ready to be asked about records.
#[derive(Debug)]
pub(crate) struct Expression {
    root: Node,
    paths: Vec<Path>,
    /// Those of the last record; kept for its memory.
    slots: Vec<Option<Slot>>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) format: Format,
    pub(crate) place: &'a Place,
}

impl Expression {
    /// From what a person writes.
    ///
    /// # Errors
    /// When it can't be read: what is wrong, and where.
    pub(crate) fn parse(text: &str) -> Result<Self, ExpressionError> {
        let mut parser = Parser::new(text)?;
        let root = parser.whole()?;
        Ok(Self { root, paths: parser.paths, slots: Vec::new() })
    }

    /// Whether a record is meant.
    pub(crate) fn holds(&mut self, subject: Subject<'_>) -> bool {
        find(&self.paths, subject.format, subject.text, &mut self.slots);
        truth(&self.root, subject, &self.slots)
    }
}

fn truth(node: &Node, subject: Subject<'_>, slots: &[Option<Slot>]) -> bool {
    match node {
        Node::Not(inner) => !truth(inner, subject, slots),
        Node::All(nodes) => nodes.iter().all(|node| truth(node, subject, slots)),
        Node::Any(nodes) => nodes.iter().any(|node| truth(node, subject, slots)),
        Node::Compare(order, left, right) => {
            let (left, right) = (value(left, subject, slots), value(right, subject, slots));
            match order {
                Order::Equal => left.equals(&right),
                Order::Unequal => !left.equals(&right),
                Order::Less => left.compare(&right) == Some(Ordering::Less),
                Order::LessOrEqual => left.compare(&right).is_some_and(Ordering::is_le),
                Order::Greater => left.compare(&right) == Some(Ordering::Greater),
                Order::GreaterOrEqual => left.compare(&right).is_some_and(Ordering::is_ge),
            }
        }
        Node::Match(inner, regex) => value(inner, subject, slots).text().is_some_and(|text| regex.is_match(&text)),
        Node::In(inner, constants) => {
            let value = value(inner, subject, slots);
            constants.iter().any(|constant| value.equals(&constant.value()))
        }
        other => value(other, subject, slots).is_true(),
    }
}

fn value<'a>(node: &'a Node, subject: Subject<'a>, slots: &[Option<Slot>]) -> Value<'a> {
    match node {
        Node::Constant(constant) => constant.value(),
        Node::Field(index) => slots[*index].map_or(Value::Null, |slot| Value::of(slot, subject.text)),
        Node::Known(known) => known_value(*known, subject),
        Node::Call(function, arguments) => call(*function, arguments, subject, slots),
        Node::List(_) => Value::Null,
        condition => Value::Bool(truth(condition, subject, slots)),
    }
}

fn known_value(known: Known, subject: Subject<'_>) -> Value<'_> {
    let text = |text: &'_ str| Value::Text(Cow::Owned(text.as_bytes().to_vec()));
    match known {
        Known::Level => Facts::of(subject.format, subject.text).level.map_or(Value::Null, |(level, _)| Value::Level(level)),
        Known::Message => match Facts::of(subject.format, subject.text).message {
            Some(slot) => Value::Text(slot.text(subject.text)),
            None => Value::Text(Cow::Borrowed(subject.text)),
        },
        Known::Line => Value::Text(Cow::Borrowed(subject.text)),
        Known::Format => text(subject.format.name()),
        Known::Pod => Value::Text(Cow::Borrowed(subject.place.pod.as_bytes())),
        Known::Container => Value::Text(Cow::Borrowed(subject.place.container.as_bytes())),
        Known::Namespace => Value::Text(Cow::Borrowed(subject.place.namespace.as_bytes())),
        Known::Node => Value::Text(Cow::Borrowed(subject.place.node.as_bytes())),
    }
}

fn call<'a>(function: Function, arguments: &'a [Node], subject: Subject<'a>, slots: &[Option<Slot>]) -> Value<'a> {
    let argument = |index: usize| value(&arguments[index], subject, slots);
    let first = argument(0);
    let pair = |check: fn(&[u8], &[u8]) -> bool| match (first.text(), argument(1).text()) {
        (Some(text), Some(part)) => Value::Bool(check(&text, &part)),
        _ => Value::Bool(false),
    };
    match function {
        Function::Has => Value::Bool(!matches!(first, Value::Null)),
        Function::Length => match first.text() {
            Some(text) => Value::Integer(i64::try_from(String::from_utf8_lossy(&text).chars().count()).unwrap_or(i64::MAX)),
            None => Value::Null,
        },
        Function::Lower => first.text().map_or(Value::Null, |text| Value::Text(Cow::Owned(text.to_ascii_lowercase()))),
        Function::Contains => pair(|text, part| memchr::memmem::find(text, part).is_some()),
        Function::StartsWith => pair(<[u8]>::starts_with),
        Function::EndsWith => pair(<[u8]>::ends_with),
        Function::Number => first.text().and_then(|text| number(&text)).unwrap_or(Value::Null),
    }
}

impl Constant {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Duration(seconds) => Value::Duration(*seconds),
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::Level(level) => Value::Level(*level),
        }
    }
}
