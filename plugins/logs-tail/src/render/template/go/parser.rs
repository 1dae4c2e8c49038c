//! From actions to a tree. Pure.

use super::Problem;
use super::evaluate::BUILTINS;
use super::lexer::{Part, Token};
use crate::render::template::functions::NAMES;
use serde_json::Value;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
}

/// Commands of which each gets the result of the one before as its last value.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// The variables that get the result (two in a `range`).
    pub(super) variables: Vec<String>,
    pub(super) is_assignment: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug)]
pub(super) enum Command {
    Value(Operand),
    Call(String, Vec<Operand>),
}

#[derive(Debug)]
pub(super) enum Operand {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Constant(Value),
    Pipeline(Box<Pipeline>, Vec<String>),
    Call(String),
}

/// Deeper nesting is refused.
const DEPTH: usize = 32;

pub(super) fn parse(parts: Vec<Part>) -> Result<Vec<Node>, Problem> {
    let mut parser = Parser { parts: parts.into_iter().peekable(), depth: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some((position, word, _)) => Err((position, format!("this {word} belongs to nothing"))),
    }
}

struct Parser {
    parts: std::iter::Peekable<std::vec::IntoIter<Part>>,
    depth: usize,
}

/// An `else` or `end`: where, which, and what follows the word.
type Ending = (usize, String, Tokens);

impl Parser {
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<Ending>), Problem> {
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.next() {
            let (tokens, end) = match part {
                Part::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Part::Action(tokens, end) => (tokens, end),
            };
            let mut tokens = Tokens { tokens, next: 0, end, depth: 0 };
            let position = tokens.position();
            let word = match tokens.peek() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match word.as_str() {
                "if" | "with" | "range" => {
                    tokens.next += 1;
                    nodes.push(self.block(position, &word, tokens)?);
                }
                "end" | "else" => {
                    tokens.next += 1;
                    return Ok((nodes, Some((position, word, tokens))));
                }
                "define" | "template" | "block" | "break" | "continue" => {
                    return Err((position, format!("{word} is not supported here; put the template into one piece")));
                }
                _ => nodes.push(Node::Print(tokens.whole()?)),
            }
        }
        Ok((nodes, None))
    }

    fn block(&mut self, position: usize, word: &str, mut tokens: Tokens) -> Result<Node, Problem> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err((position, "this is nested too deeply".into()));
        }
        let pipeline = tokens.whole()?;
        let (body, ending) = self.nodes()?;
        let otherwise = match ending {
            Some((_, end, _)) if end == "end" => Vec::new(),
            Some((at, _, mut tokens)) => match tokens.peek() {
                // `{{else if ...}}` is an `if` of its own, with the same end.
                Some(Token::Word(inner)) if inner == "if" || inner == "with" => {
                    let inner = inner.clone();
                    tokens.next += 1;
                    vec![self.block(at, &inner, tokens)?]
                }
                _ => match self.nodes()? {
                    (nodes, Some((_, end, _))) if end == "end" => nodes,
                    _ => return Err((at, "this else has no end".into())),
                },
            },
            None => return Err((position, format!("this {word} has no end"))),
        };
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(pipeline, body, otherwise),
        })
    }
}

struct Tokens {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Tokens {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(position, _)| *position)
    }

    fn whole(&mut self) -> Result<Pipeline, Problem> {
        let pipeline = self.pipeline()?;
        match self.peek() {
            None => Ok(pipeline),
            Some(_) => Err((self.position(), "this can't stand here".into())),
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, Problem> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err((self.position(), "this is nested too deeply".into()));
        }
        let (variables, is_assignment) = self.declaration();
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Token::Pipe) {
            self.next += 1;
            let position = self.position();
            commands.push(self.command()?);
            if !matches!(commands.last(), Some(Command::Call(..))) {
                return Err((position, "only a function can stand behind a |".into()));
            }
        }
        self.depth -= 1;
        Ok(Pipeline { variables, is_assignment, commands })
    }

    /// `$x :=`, `$i, $x :=` or `$x =`, if that is next.
    fn declaration(&mut self) -> (Vec<String>, bool) {
        let start = self.next;
        let mut variables = Vec::new();
        while let Some(Token::Variable(name, fields)) = self.peek() {
            if !fields.is_empty() {
                break;
            }
            variables.push(name.clone());
            self.next += 1;
            match self.peek() {
                Some(Token::Comma) => self.next += 1,
                Some(token @ (Token::Declare | Token::Assign)) => {
                    let is_assignment = *token == Token::Assign;
                    self.next += 1;
                    return (variables, is_assignment);
                }
                _ => break,
            }
        }
        self.next = start;
        (Vec::new(), false)
    }

    fn command(&mut self) -> Result<Command, Problem> {
        let first = self.operand()?.ok_or_else(|| (self.position(), "expected a value".to_owned()))?;
        match first {
            Operand::Call(name) => {
                let mut arguments = Vec::new();
                while let Some(argument) = self.operand()? {
                    arguments.push(argument);
                }
                Ok(Command::Call(name, arguments))
            }
            value => {
                let position = self.position();
                match self.operand()? {
                    None => Ok(Command::Value(value)),
                    Some(_) => Err((position, "a value takes no other values; is a | or a function missing?".into())),
                }
            }
        }
    }

    fn operand(&mut self) -> Result<Option<Operand>, Problem> {
        let position = self.position();
        let operand = match self.peek().cloned() {
            Some(Token::Field(names)) => Operand::Field(names),
            Some(Token::Variable(name, names)) => Operand::Variable(name, names),
            Some(Token::Text(text)) => Operand::Constant(text.into()),
            Some(Token::Number(number)) => Operand::Constant(Value::Number(number)),
            Some(Token::Word(word)) => match word.as_str() {
                "true" | "false" => Operand::Constant((word == "true").into()),
                "nil" => Operand::Constant(Value::Null),
                known if NAMES.contains(&known) || BUILTINS.contains(&known) => Operand::Call(word),
                _ => return Err((position, format!("no function {word:?}"))),
            },
            Some(Token::Open) => {
                self.next += 1;
                let pipeline = self.pipeline()?;
                if self.peek() != Some(&Token::Close) {
                    return Err((self.position(), "expected )".into()));
                }
                let behind = self.position() + 1;
                self.next += 1;
                let names = match self.tokens.get(self.next) {
                    Some((at, Token::Field(names))) if *at == behind => {
                        let names = names.clone();
                        self.next += 1;
                        names
                    }
                    _ => Vec::new(),
                };
                return Ok(Some(Operand::Pipeline(Box::new(pipeline), names)));
            }
            _ => return Ok(None),
        };
        self.next += 1;
        Ok(Some(operand))
    }
}
