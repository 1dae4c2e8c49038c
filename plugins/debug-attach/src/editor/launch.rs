//! An entry in a `launch.json`: comments, order and all other entries stay as they
//! are. Pure.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstNode, CstObject, CstRootNode};
use serde_json::Value;

/// The version that VS Code writes.
const VERSION: &str = "0.2.0";

/// The file with the entry. One of the same name gets these settings, and keeps what
/// else it has. An empty file becomes one.
///
/// # Errors
/// When it is no object, or its `configurations` are no list.
pub(super) fn merged(text: &str, entry: &Value) -> Result<String, String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| error.to_string())?;
    let is_new = root.value().is_none();
    let object = root.object_value_or_create().ok_or("it is not an object")?;
    if is_new {
        object.append("version", CstInputValue::String(VERSION.to_owned()));
    }
    let list = object.array_value_or_create("configurations").ok_or("its `configurations` are no list")?;
    let name = entry["name"].as_str().unwrap_or_default();
    let own = list.elements().into_iter().find(|element| named(element).as_deref() == Some(name));
    match own.and_then(|element| element.as_object()) {
        Some(object) => update(&object, entry),
        None => {
            list.ensure_multiline();
            list.append(input(entry));
        }
    }
    let mut after = root.to_string();
    if !after.ends_with('\n') {
        after.push('\n');
    }
    Ok(after)
}

fn update(object: &CstObject, entry: &Value) {
    for (name, value) in entry.as_object().into_iter().flatten() {
        match object.get(name) {
            // Writing it again would change how it is laid out.
            Some(field) if field.value().and_then(|node| node.to_serde_value()).as_ref() == Some(value) => {}
            Some(field) => field.set_value(input(value)),
            None => {
                object.append(name, input(value));
            }
        }
    }
}

fn named(element: &CstNode) -> Option<String> {
    let value = element.as_object()?.get("name")?.value()?;
    value.as_string_lit()?.decoded_value().ok()
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(list) => CstInputValue::Array(list.iter().map(input).collect()),
        Value::Object(fields) => CstInputValue::Object(fields.iter().map(|(name, value)| (name.clone(), input(value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;
    use crate::runtimes::entry;

    #[test]
    fn other_entries_and_comments_stay() {
        let text = "// ours\n{\n    \"version\": \"0.2.0\",\n    \"configurations\": [\n        // by hand\n        { \"name\": \"Tests\", \"type\": \"go\" }, // last\n    ],\n    \"compounds\": []\n}\n";
        let once = merged(text, &entry(&settings())).unwrap();
        let moved = super::super::Settings { port: 4711, ..settings() };
        let twice = merged(&once, &entry(&moved)).unwrap();
        assert_eq!(twice, once.replace("23456", "4711"));
        insta::assert_snapshot!(once);
    }

    #[test]
    fn an_empty_file_becomes_one() {
        insta::assert_snapshot!(merged("", &entry(&settings())).unwrap());
        assert!(merged("{}", &entry(&settings())).unwrap().contains("configurations"));
    }

    #[test]
    fn what_can_not_be_added_to_is_an_error() {
        for text in ["[]", "{\"configurations\": 1}", "{"] {
            assert!(merged(text, &entry(&settings())).is_err(), "{text}");
        }
    }
}
