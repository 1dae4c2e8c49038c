//! Kubernetes manifests: from text to objects. Pure.

use crate::error::CommandError;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One object of a manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The object; it has `apiVersion`, `kind` and `metadata.name`.
    pub object: Value,
    /// The file.
    pub path: PathBuf,
    /// Which document in the file, from 1.
    pub document: usize,
    /// Where the document begins, from 1.
    pub line: usize,
}

impl Manifest {
    /// `v1`, `apps/v1`, ...
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    /// The group of `apiVersion`: `apps`, ...; empty for the core's.
    pub fn group(&self) -> &str {
        self.api_version().rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// `Deployment`, ...
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`, where the manifest says one.
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty())
    }

    /// `deployment/shop`, as kubectl names it.
    pub fn describe(&self) -> String {
        format!("{}/{}", self.kind().to_lowercase(), self.name())
    }

    /// `k8s/shop.yaml:13`, as editors jump to it.
    pub fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.line)
    }
}

/// Why manifests can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system said no.
    #[error("could not read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// No manifest in a folder.
    #[error("no manifest (*.yaml, *.yml, *.json) in {}", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Kustomize or Helm did not make manifests.
    #[error("{tool} can't make the manifests of {}", path.display())]
    Tool {
        /// `kustomize` or `helm`.
        tool: &'static str,
        /// The folder, or the chart.
        path: PathBuf,
        /// Its own words, or why it can't be run.
        reason: String,
        /// What can be done, where that is known.
        hint: Option<&'static str>,
    },
    /// Not a manifest.
    #[error("{}:{line}: {message} (document {document})", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        document: usize,
        /// What is wrong.
        message: String,
    },
}

impl From<ManifestError> for CommandError {
    fn from(error: ManifestError) -> Self {
        let message = error.to_string();
        match error {
            ManifestError::Read { source, .. } => Self::new(message).caused_by(source),
            ManifestError::Tool { reason, hint, .. } => {
                let error = Self::new(message).caused_by(reason);
                match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
            ManifestError::EmptyFolder { .. } | ManifestError::Invalid { .. } => Self::new(message),
        }
    }
}

/// Parses the text of a manifest file; `path` is for messages. Pure.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    if path.extension().is_some_and(|extension| extension == "json") {
        let object = serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            invalid(path, error.line(), 1, message.split(" at line ").next().unwrap_or_default().to_owned())
        })?;
        take(path, 1, 1, object, &mut manifests)?;
        return Ok(manifests);
    }
    for (index, (line, document)) in documents(text).into_iter().enumerate() {
        let number = index + 1;
        let object = parse_document(&document).map_err(|error| {
            let at = error.location().map_or(line, |location| line + location.line() - 1);
            let message = error.to_string();
            invalid(path, at, number, message.split(" at line ").next().unwrap_or_default().to_owned())
        })?;
        let first = document.lines().position(|text| !is_blank(text)).unwrap_or(0);
        take(path, line + first, number, object, &mut manifests)?;
    }
    Ok(manifests)
}

/// Splits a YAML stream into its documents, each with the line it begins at. A
/// line that begins with `---` is always a boundary, even in a block of text
/// (YAML 1.2.2, 9.1.2). Documents of nothing but comments are left out.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        let boundary = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        match (boundary, documents.last_mut()) {
            // What follows on the same line belongs to the document.
            (Some(rest), _) => documents.push((index + 1, format!("{rest}\n"))),
            // Directives belong to the stream.
            (None, Some((_, document))) => {
                if !line.starts_with('%') {
                    document.push_str(line);
                }
                document.push('\n');
            }
            (None, None) => {}
        }
    }
    documents.retain(|(_, document)| !document.lines().all(is_blank));
    documents
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "..."
}

fn parse_document(text: &str) -> Result<Value, serde_yaml_ng::Error> {
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text)?;
    value.apply_merge()?;
    // Through YAML's own model, so that keys that are numbers become text.
    let mut object = Value::deserialize(value)?;
    octal_modes(&mut object);
    Ok(object)
}

/// File modes such as `0644` are octal numbers for kubectl (YAML 1.1), but text
/// for our parser (YAML 1.2).
fn octal_modes(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if (key == "mode" || key == "defaultMode")
                    && let Some(mode) =
                        field.as_str().filter(|text| text.starts_with('0')).and_then(|text| u32::from_str_radix(text, 8).ok())
                {
                    *field = mode.into();
                }
                octal_modes(field);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(octal_modes),
        _ => {}
    }
}

/// Checks an object and adds it, or the objects of a list.
fn take(path: &Path, line: usize, document: usize, object: Value, manifests: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    let refused = |message: &str| Err(invalid(path, line, document, message.to_owned()));
    let filled = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if !object.is_object() {
        return refused("not a Kubernetes object: it is not a map");
    }
    if !filled(&object["apiVersion"]) {
        return refused("not a Kubernetes object: apiVersion is missing");
    }
    if !filled(&object["kind"]) {
        return refused("not a Kubernetes object: kind is missing");
    }
    if let Some(items) = object["items"].as_array().filter(|_| object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))) {
        for item in items {
            take(path, line, document, item.clone(), manifests)?;
        }
        return Ok(());
    }
    if !filled(&object["metadata"]["name"]) {
        return refused(match filled(&object["metadata"]["generateName"]) {
            true => "generateName can't be applied, for it names a new object each time; give metadata.name",
            false => "metadata.name is missing",
        });
    }
    manifests.push(Manifest { object, path: path.to_owned(), document, line });
    Ok(())
}

pub(super) fn invalid(path: &Path, line: usize, document: usize, message: String) -> ManifestError {
    ManifestError::Invalid { path: path.to_owned(), line, document, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Manifest> {
        parse(Path::new("k8s/app.yaml"), text).unwrap()
    }

    fn fail(text: &str) -> String {
        parse(Path::new("k8s/app.yaml"), text).unwrap_err().to_string()
    }

    const TWO: &str = "# The shop.\n---\napiVersion: v1\nkind: Service\nmetadata: {name: shop}\n--- # next\n\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: shop\nspec: {template: {spec: {containers: [{name: a, image: shop, imagePullPolicy: Always}, {name: b, image: 'shopping:1'}]}}}\n";

    #[test]
    fn documents_are_read_with_their_lines() {
        let manifests = read(TWO);
        let found: Vec<(String, String)> = manifests.iter().map(|manifest| (manifest.describe(), manifest.place())).collect();
        assert_eq!(found, [("service/shop", "k8s/app.yaml:3"), ("deployment/shop", "k8s/app.yaml:8")].map(|(a, b)| (a.into(), b.into())));
        assert_eq!(manifests[1].document, 2);
    }

    #[test]
    fn mistakes_name_file_line_and_document() {
        insta::assert_snapshot!(fail(&TWO.replace("  name: shop", "  title: shop")), @"k8s/app.yaml:8: metadata.name is missing (document 2)");
        insta::assert_snapshot!(fail(&TWO.replace("kind: Deployment", "kind: [")), @"k8s/app.yaml:11: did not find expected ',' or ']' (document 2)");
        insta::assert_snapshot!(fail("a: 1\na: 2\n"), @r#"k8s/app.yaml:1: duplicate entry with key "a" (document 1)"#);
        insta::assert_snapshot!(fail("- 1"), @"k8s/app.yaml:1: not a Kubernetes object: it is not a map (document 1)");
        insta::assert_snapshot!(fail("kind: Pod"), @"k8s/app.yaml:1: not a Kubernetes object: apiVersion is missing (document 1)");
        insta::assert_snapshot!(parse(Path::new("a.json"), "{\n\"a\": }").unwrap_err(), @"a.json:2: expected value (document 1)");
    }

    #[test]
    fn lists_merges_and_modes_are_understood() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}}\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n";
        assert_eq!(read(list).iter().map(Manifest::name).collect::<Vec<_>>(), ["a", "b"]);
        let text = "apiVersion: v1\nkind: X\nmetadata: {name: a}\nbase: &base {one: 1}\nother: {<<: *base, two: 2}\nvolume: {defaultMode: 0644}\nenv: {value: '0644'}\n";
        let object = &read(text)[0].object;
        assert_eq!(object["other"], serde_json::json!({"one": 1, "two": 2}));
        assert_eq!((&object["volume"]["defaultMode"], &object["env"]["value"]), (&420.into(), &"0644".into()));
        assert!(read("---\n# nothing\n---\n").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-a:{} \n#%.]{0,40}") {
            let _ = parse(Path::new("x.yaml"), &text);
        }
    }
}
