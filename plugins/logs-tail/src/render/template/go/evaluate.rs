//! A Go template filled in. Pure.

use super::parser::{Command, Node, Operand, Pipeline};
use crate::render::template::functions::{call, text};
use serde_json::Value;

/// Go's own functions that are known here.
pub(super) const BUILTINS: [&str; 15] =
    ["print", "println", "printf", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "len", "index", "slice"];

/// A record's text in a template grows to this at most.
const MOST_BYTES: usize = 16 * 1024 * 1024;

pub(super) fn render(nodes: &[Node], data: Value, colors: bool) -> Result<String, String> {
    let mut filling = Filling { output: String::new(), variables: vec![(String::new(), data.clone())], colors };
    filling.nodes(nodes, &data)?;
    Ok(filling.output)
}

struct Filling {
    output: String,
    /// The innermost last; the one without a name is what the template was given.
    variables: Vec<(String, Value)>,
    colors: bool,
}

impl Filling {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let scope = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
            if self.output.len() > MOST_BYTES {
                return Err("the result is too large".into());
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.output.push_str(&text(&value));
                }
            }
            Node::If(pipeline, body, otherwise) | Node::With(pipeline, body, otherwise) => {
                let scope = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let is_with = matches!(node, Node::With(..));
                if is_true(&value) {
                    self.nodes(body, if is_with { &value } else { dot })?;
                } else {
                    self.nodes(otherwise, dot)?;
                }
                self.variables.truncate(scope);
            }
            Node::Range(pipeline, body, otherwise) => self.range(pipeline, body, otherwise, dot)?,
        }
        Ok(())
    }

    fn range(&mut self, pipeline: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<(), String> {
        let scope = self.variables.len();
        let elements: Vec<(Value, Value)> = match self.commands(pipeline, dot)? {
            Value::Array(values) => values.into_iter().enumerate().map(|(index, value)| (index.into(), value)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            Value::Null => Vec::new(),
            other => return Err(format!("range can't go over {other}")),
        };
        if elements.is_empty() {
            self.nodes(otherwise, dot)?;
        }
        for (key, value) in elements {
            match pipeline.variables.as_slice() {
                [name] => self.variables.push((name.clone(), value.clone())),
                [index, name, ..] => self.variables.extend([(index.clone(), key), (name.clone(), value.clone())]),
                [] => {}
            }
            self.nodes(body, &value)?;
            self.variables.truncate(scope);
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.commands(pipeline, dot)?;
        if let Some(name) = pipeline.variables.last() {
            if pipeline.is_assignment {
                let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                known.ok_or_else(|| format!("no variable ${name}"))?.1 = value.clone();
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last: Option<Value> = None;
        for command in &pipeline.commands {
            last = Some(match command {
                Command::Value(operand) => self.operand(operand, dot)?,
                Command::Call(name, operands) => {
                    let mut arguments = operands.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>, _>>()?;
                    arguments.extend(last);
                    if BUILTINS.contains(&name.as_str()) { builtin(name, &arguments)? } else { call(name, &arguments, self.colors)? }
                }
            });
        }
        Ok(last.unwrap_or_default())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Constant(value) => Ok(value.clone()),
            Operand::Field(names) => Ok(descend(dot, names)),
            Operand::Variable(name, names) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| descend(value, names)).ok_or_else(|| format!("no variable ${name}"))
            }
            Operand::Pipeline(pipeline, names) => Ok(descend(&self.pipeline(pipeline, dot)?, names)),
            Operand::Call(name) if BUILTINS.contains(&name.as_str()) => builtin(name, &[]),
            Operand::Call(name) => call(name, &[], self.colors),
        }
    }
}

fn descend(value: &Value, names: &[String]) -> Value {
    names.iter().try_fold(value, |value, name| value.get(name)).cloned().unwrap_or_default()
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn builtin(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let two = || match arguments {
        [left, right, ..] => Ok((left, right)),
        _ => Err(format!("{name} takes two values")),
    };
    let order = || {
        let (left, right) = two()?;
        match (left.as_f64(), right.as_f64(), left.as_str(), right.as_str()) {
            (Some(left), Some(right), ..) => left.partial_cmp(&right).ok_or_else(|| "these have no order".to_owned()),
            (_, _, Some(left), Some(right)) => Ok(left.cmp(right)),
            _ => Err(format!("{name} can't compare {left} with {right}")),
        }
    };
    let same = |left: &Value, right: &Value| match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    };
    Ok(match name {
        "print" => arguments.iter().map(text).collect::<String>().into(),
        "println" => (arguments.iter().map(text).collect::<Vec<_>>().join(" ") + "\n").into(),
        "printf" => {
            let format = arguments.first().and_then(Value::as_str).ok_or("printf takes a format")?;
            printf(format, &arguments[1..])?.into()
        }
        // With more than two: whether the first is one of the others.
        "eq" => {
            two()?;
            arguments[1..].iter().any(|other| same(&arguments[0], other)).into()
        }
        "ne" => (!two().map(|(left, right)| same(left, right))?).into(),
        "lt" => order()?.is_lt().into(),
        "le" => order()?.is_le().into(),
        "gt" => order()?.is_gt().into(),
        "ge" => order()?.is_ge().into(),
        "and" => arguments.iter().find(|value| !is_true(value)).or(arguments.last()).cloned().unwrap_or_default(),
        "or" => arguments.iter().find(|value| is_true(value)).or(arguments.last()).cloned().unwrap_or_default(),
        "not" => (!arguments.first().is_some_and(is_true)).into(),
        "len" => match arguments.first() {
            Some(Value::String(text)) => text.len().into(),
            Some(Value::Array(values)) => values.len().into(),
            Some(Value::Object(map)) => map.len().into(),
            other => return Err(format!("{} has no length", other.map_or_else(|| "nothing".into(), text))),
        },
        "index" => {
            two()?;
            let step = |value: &Value, key: &Value| match key {
                Value::Number(number) => number.as_u64().and_then(|index| value.get(usize::try_from(index).ok()?)).cloned(),
                key => value.get(text(key)).cloned(),
            };
            arguments[1..].iter().try_fold(arguments[0].clone(), |value, key| step(&value, key)).unwrap_or_default()
        }
        _ => {
            let whole = arguments.first().and_then(Value::as_str).ok_or("slice takes a string")?;
            let number = |index: usize, default: usize| {
                arguments.get(index).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
            };
            whole.get(number(1, 0)..number(2, whole.len())).ok_or("slice is out of range")?.into()
        }
    })
}

/// Go's `fmt.Sprintf`, with `%s %v %d %f %q %t %x %%`, widths and precisions.
fn printf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut output = String::new();
    let mut arguments = arguments.iter();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        output.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        let length =
            rest.find(|next: char| !next.is_ascii_digit() && !matches!(next, '-' | '+' | '.' | '0' | ' ' | '#')).unwrap_or(rest.len());
        let (flags, verb) = (&rest[..length], rest[length..].chars().next());
        let Some(verb) = verb else { return Err("printf: the format ends in the middle of a verb".into()) };
        rest = &rest[length + verb.len_utf8()..];
        if verb == '%' {
            output.push('%');
            continue;
        }
        let Some(value) = arguments.next() else {
            output.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let (width, precision) = flags
            .trim_start_matches(['-', '+', ' ', '#', '0'])
            .split_once('.')
            .map_or((flags.trim_start_matches(['-', '+', ' ', '#', '0']), None), |(width, precision)| {
                (width, precision.parse::<usize>().ok().map(|precision| precision.min(1000)))
            });
        let shown = match verb {
            's' | 'v' | 't' | 'd' => {
                let shown = text(value);
                match precision {
                    Some(precision) if verb == 's' => shown.chars().take(precision).collect(),
                    _ => shown,
                }
            }
            'f' => format!("{:.*}", precision.unwrap_or(6), value.as_f64().unwrap_or_default()),
            'q' => Value::from(text(value)).to_string(),
            'x' => match value.as_u64() {
                Some(number) => format!("{number:x}"),
                None => text(value).bytes().map(|byte| format!("{byte:02x}")).collect(),
            },
            other => return Err(format!("printf: %{other} is not supported here")),
        };
        let width = width.parse::<usize>().unwrap_or(0).min(1000);
        output.push_str(&if flags.starts_with('-') {
            format!("{shown:<width$}")
        } else if flags.starts_with('0') && verb != 's' {
            format!("{shown:0>width$}")
        } else {
            format!("{shown:>width$}")
        });
    }
    output.push_str(rest);
    Ok(output)
}
