//! A kind cluster's configuration: the user's file, what flags add to it, and
//! defaults of ours for what neither says. Nothing here looks at the machine.

mod conflicts;
mod defaults;
mod flags;
#[cfg(test)]
mod tests;

pub(crate) use defaults::{Machine, add_defaults, version_of_image};
pub(crate) use flags::{Wanted, add_flags};

use devloop_core::error::{CommandError, ErrorContext, Result};
use serde_yaml_ng::{Mapping, Value};

/// What kind calls this form of its configuration.
const API_VERSION: &str = "kind.x-k8s.io/v1alpha4";

/// A configuration, and what to call it in messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// A file's path, or what else it is.
    pub(crate) label: String,
    root: Mapping,
}

impl Config {
    /// One that says nothing yet.
    pub(crate) fn empty() -> Self {
        let pairs = [("kind", "Cluster"), ("apiVersion", API_VERSION)];
        let root = pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self { label: "the configuration".to_owned(), root }
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is not YAML (with line and column), or not a cluster's
    /// configuration in a form that is known.
    pub(crate) fn parse(label: &str, text: &str) -> Result<Self> {
        let mut value: Value = serde_yaml_ng::from_str(text).map_err(|error| unreadable(label, &error))?;
        value.apply_merge().map_err(|error| unreadable(label, &error))?;
        let Value::Mapping(root) = value else {
            return Err(CommandError::usage(format!("{label} is not a kind configuration")).with_hint(form_hint()));
        };
        for (key, expected) in [("kind", "Cluster"), ("apiVersion", API_VERSION)] {
            let place = place_of(text, key).map_or_else(String::new, |(line, column)| format!(" line {line} column {column}"));
            match root.get(key).and_then(Value::as_str) {
                Some(found) if found == expected => {}
                Some(found) => {
                    return Err(
                        CommandError::usage(format!("{label}{place}: {key} is {found:?}, expected {expected:?}")).with_hint(form_hint())
                    );
                }
                None => return Err(CommandError::usage(format!("{label}{place}: {key} is missing")).with_hint(form_hint())),
            }
        }
        let config = Self { label: label.to_owned(), root };
        conflicts::refuse_shapes(&config)?;
        Ok(config)
    }

    /// As YAML.
    ///
    /// # Errors
    /// Never, in practice: the structure is plain.
    pub(crate) fn render(&self) -> Result<String> {
        serde_yaml_ng::to_string(&self.root).context("could not write the cluster's configuration as YAML")
    }

    /// The image of each node that names one.
    pub(crate) fn images(&self) -> Vec<Option<String>> {
        self.nodes().iter().map(|node| text(node, "image").map(str::to_owned)).collect()
    }

    /// Gives this image to each node that names none.
    pub(crate) fn set_default_image(&mut self, image: &str) {
        for node in self.nodes_mut() {
            if let Value::Mapping(node) = node {
                node.entry("image".into()).or_insert(image.into());
            }
        }
    }

    /// Sets the API's port, where one is known that the configuration doesn't
    /// say: kind chose it.
    pub(crate) fn set_api_port(&mut self, port: u16) {
        if let Some(networking) = self.mapping_mut("networking") {
            networking.insert("apiServerPort".into(), port.into());
        }
    }

    /// Adds a node, for a configuration made from what is there.
    pub(crate) fn push_node(&mut self, role: &str, image: &str) {
        let node = [("role", role), ("image", image)].into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self.nodes_mut().push(Value::Mapping(node));
    }

    /// Whether nodes can become Ready without something being added to the
    /// cluster.
    pub(crate) fn has_network(&self) -> bool {
        let networking = self.root.get("networking");
        networking.and_then(|networking| networking.get("disableDefaultCNI")).and_then(Value::as_bool) != Some(true)
    }

    /// Whether Services work without something being added to the cluster.
    pub(crate) fn has_services(&self) -> bool {
        let networking = self.root.get("networking");
        self.has_network() && networking.and_then(|networking| networking.get("kubeProxyMode")).and_then(Value::as_str) != Some("none")
    }

    /// The path of the first thing that the two don't agree on.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<String> {
        difference(&Value::Mapping(self.root.clone()), &Value::Mapping(other.root.clone()), "")
    }

    /// The path of the first thing here that is otherwise, or missing, in
    /// `other`, which may say more.
    pub(crate) fn first_contradiction(&self, other: &Self) -> Option<String> {
        contradiction(&Value::Mapping(self.root.clone()), &Value::Mapping(other.root.clone()), "")
    }

    fn nodes(&self) -> &[Value] {
        self.root.get("nodes").and_then(Value::as_sequence).map_or(&[], Vec::as_slice)
    }

    fn nodes_mut(&mut self) -> &mut Vec<Value> {
        sequence(&mut self.root, "nodes")
    }

    fn mapping_mut(&mut self, key: &str) -> Option<&mut Mapping> {
        let value = self.root.entry(key.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
        if value.is_null() {
            *value = Value::Mapping(Mapping::new());
        }
        value.as_mapping_mut()
    }
}

fn unreadable(label: &str, error: &serde_yaml_ng::Error) -> CommandError {
    // Its own words end with the line and the column.
    CommandError::usage(format!("{label} can't be read: {error}"))
}

fn form_hint() -> String {
    format!("it starts with `kind: Cluster` and `apiVersion: {API_VERSION}`")
}

/// Line and column of a key at the top of a document, from 1.
fn place_of(text: &str, key: &str) -> Option<(usize, usize)> {
    let is_key = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    text.lines().position(is_key).map(|index| (index + 1, 1))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The list under `key`; absence and `null` become an empty one. Other shapes
/// have been refused.
fn sequence<'a>(mapping: &'a mut Mapping, key: &str) -> &'a mut Vec<Value> {
    let value = mapping.entry(key.into()).or_insert(Value::Null);
    if !value.is_sequence() {
        *value = Value::Sequence(Vec::new());
    }
    match value {
        Value::Sequence(items) => items,
        _ => unreachable!("made a sequence just above"),
    }
}

fn difference(left: &Value, right: &Value, path: &str) -> Option<String> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (left, right) {
        (Value::Mapping(left), Value::Mapping(right)) => {
            let keys = left.keys().chain(right.keys().filter(|key| !left.contains_key(key)));
            keys.into_iter().find_map(|key| {
                let path = below(key.as_str().unwrap_or("?"));
                match (left.get(key), right.get(key)) {
                    (Some(left), Some(right)) => difference(left, right, &path),
                    (Some(value @ Value::Mapping(_)), None) | (None, Some(value @ Value::Mapping(_))) => {
                        difference(value, &Value::Mapping(Mapping::new()), &path)
                    }
                    (Some(value), None) | (None, Some(value)) => (!is_nothing(value)).then_some(path),
                    (None, None) => None,
                }
            })
        }
        (Value::Sequence(left), Value::Sequence(right)) => {
            let shared = left.iter().zip(right).enumerate();
            let first = shared.into_iter().find_map(|(index, (left, right))| difference(left, right, &format!("{path}[{index}]")));
            first.or_else(|| (left.len() != right.len()).then(|| format!("{path}[{}]", left.len().min(right.len()))))
        }
        (left, right) => (left != right && !(is_nothing(left) && is_nothing(right))).then(|| path.to_owned()),
    }
}

fn contradiction(left: &Value, right: &Value, path: &str) -> Option<String> {
    match (left, right) {
        (left, _) if is_nothing(left) => None,
        (Value::Mapping(_), Value::Null) => contradiction(left, &Value::Mapping(Mapping::new()), path),
        (Value::Mapping(left), Value::Mapping(right)) => left.iter().find_map(|(key, value)| {
            let key = key.as_str().unwrap_or("?");
            let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            contradiction(value, right.get(key).unwrap_or(&Value::Null), &path)
        }),
        // Patches: ours may be around those of the user.
        (Value::Sequence(left), Value::Sequence(right)) if left.iter().all(Value::is_string) => {
            left.iter().position(|item| !right.contains(item)).map(|index| format!("{path}[{index}]"))
        }
        (Value::Sequence(left), Value::Sequence(right)) => {
            let shared = left.iter().zip(right).enumerate();
            let first = shared.into_iter().find_map(|(index, (left, right))| contradiction(left, right, &format!("{path}[{index}]")));
            first.or_else(|| (left.len() != right.len()).then(|| format!("{path}[{}]", left.len().min(right.len()))))
        }
        (left, right) => (left != right).then(|| path.to_owned()),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(mapping) => mapping.is_empty(),
        _ => false,
    }
}
