//! Places in an object that stay the same when lists around them change.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// From an object to a place in it. Items of lists are named by what the API
/// merges them by, not by their number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Step {
    Field(String),
    /// The item whose field `key` has this value.
    Item {
        key: String,
        value: String,
    },
}

impl Path {
    /// Fields within each other, separated by dots.
    pub(super) fn new(fields: &str) -> Self {
        Self(fields.split('.').map(|field| Step::Field(field.to_owned())).collect())
    }

    pub(super) fn field(&self, name: &str) -> Self {
        self.step(Step::Field(name.to_owned()))
    }

    pub(super) fn item(&self, key: &str, value: &str) -> Self {
        self.step(Step::Item { key: key.to_owned(), value: value.to_owned() })
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Whether it is an item of a list.
    pub(super) fn is_item(&self) -> bool {
        matches!(self.0.last(), Some(Step::Item { .. }))
    }

    /// Whether it leads through a field of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|step| matches!(step, Step::Field(field) if field == name))
    }

    /// What is there; `null` is nothing.
    pub(super) fn get<'v>(&self, object: &'v Value) -> Option<&'v Value> {
        follow(&self.0, object)
    }

    /// Whether what it is a field or an item of is there. A list that isn't is as
    /// good as an empty one.
    pub(super) fn has_holder(&self, object: &Value) -> bool {
        let holder = match self.0.as_slice() {
            [rest @ .., Step::Field(_), Step::Item { .. }] | [rest @ .., _] => rest,
            [] => return false,
        };
        follow(holder, object).is_some()
    }

    /// Puts a value there, or removes what is; answers whether there is such a
    /// place. A list comes with its first item and goes with its last.
    pub(super) fn set(&self, object: &mut Value, value: Option<Value>) -> bool {
        set(&self.0, object, value).is_some()
    }
}

fn follow<'v>(steps: &[Step], object: &'v Value) -> Option<&'v Value> {
    let found = steps.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Item { key, value: wanted } => value.as_array()?.iter().find(|item| item[key] == wanted.as_str()),
    });
    found.filter(|value| !value.is_null())
}

fn set(steps: &[Step], value: &mut Value, new: Option<Value>) -> Option<()> {
    let (first, rest) = steps.split_first()?;
    match first {
        Step::Field(name) => {
            let fields = value.as_object_mut()?;
            if rest.is_empty() {
                match new {
                    Some(new) => fields.insert(name.clone(), new),
                    None => fields.remove(name),
                };
                return Some(());
            }
            let list = matches!(rest, [Step::Item { .. }]);
            if list && fields.get(name).is_none_or(Value::is_null) {
                if new.is_none() {
                    return Some(());
                }
                fields.insert(name.clone(), Value::Array(Vec::new()));
            }
            let done = set(rest, fields.get_mut(name)?, new);
            if list && fields.get(name).and_then(Value::as_array).is_some_and(Vec::is_empty) {
                fields.remove(name);
            }
            done
        }
        Step::Item { key, value: wanted } => {
            let items = value.as_array_mut()?;
            let position = items.iter().position(|item| item[key] == wanted.as_str());
            if !rest.is_empty() {
                return set(rest, &mut items[position?], new);
            }
            match (position, new) {
                (Some(position), Some(new)) => items[position] = new,
                (Some(position), None) => drop(items.remove(position)),
                (None, Some(new)) => items.push(new),
                (None, None) => {}
            }
            Some(())
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if index == 0 => formatter.write_str(name)?,
                Step::Field(name) => write!(formatter, ".{name}")?,
                Step::Item { value, .. } => write!(formatter, "[{value}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_are_found_wherever_they_are() {
        let path = Path::new("spec.containers").item("name", "web").field("command");
        assert_eq!(path.to_string(), "spec.containers[web].command");
        let mut object = json!({"spec": {"containers": [{"name": "other"}, {"name": "web", "command": ["a"]}]}});
        assert_eq!(path.get(&object), Some(&json!(["a"])));
        assert!(path.set(&mut object, Some(json!(["b"]))));
        object["spec"]["containers"].as_array_mut().unwrap().reverse();
        assert_eq!(path.get(&object), Some(&json!(["b"])));
        assert!(path.set(&mut object, None));
        assert_eq!(object, json!({"spec": {"containers": [{"name": "web"}, {"name": "other"}]}}));
        let text = serde_json::to_string(&path).unwrap();
        assert_eq!(text, r#"["spec","containers",{"key":"name","value":"web"},"command"]"#);
        assert_eq!(serde_json::from_str::<Path>(&text).unwrap(), path);
    }

    #[test]
    fn a_list_comes_and_goes_with_its_items() {
        let path = Path::new("spec.volumes").item("name", "ours");
        let mut object = json!({"spec": {}});
        assert!(path.has_holder(&object) && path.get(&object).is_none());
        assert!(path.set(&mut object, Some(json!({"name": "ours"}))));
        assert_eq!(object, json!({"spec": {"volumes": [{"name": "ours"}]}}));
        assert!(path.set(&mut object, None) && path.set(&mut object, None));
        assert_eq!(object, json!({"spec": {}}));
    }

    #[test]
    fn a_place_that_is_not_there_is_no_place() {
        let path = Path::new("spec.containers").item("name", "web").field("command");
        for mut object in [json!({}), json!({"spec": {"containers": [{"name": "other"}]}}), json!({"spec": 1}), json!(null)] {
            let before = object.clone();
            assert!(!path.has_holder(&object) && path.get(&object).is_none());
            assert!(!path.set(&mut object, Some(json!(["b"]))));
            assert_eq!(object, before);
        }
    }
}
