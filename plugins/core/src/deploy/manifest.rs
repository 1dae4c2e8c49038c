//! Kubernetes manifests: from files to objects.

use crate::error::CommandError;
use crate::image::REGISTRY;
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
    /// A Kustomize folder.
    #[error("{} is for Kustomize, which is not supported yet", path.display())]
    Kustomize {
        /// The kustomization file.
        path: PathBuf,
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
            ManifestError::Kustomize { .. } => {
                Self::new(message).with_hint("write its output to a file with `kubectl kustomize`, and name that file instead")
            }
            ManifestError::EmptyFolder { .. } | ManifestError::Invalid { .. } => Self::new(message),
        }
    }
}

/// Reads manifest files, and those of folders (not of folders in them, as
/// `kubectl apply -f` does), in the order of their names. Lists are taken apart.
///
/// # Errors
/// [`ManifestError`], for the first mistake.
pub fn load(paths: &[PathBuf]) -> crate::Result<Vec<Manifest>> {
    let mut manifests: Vec<Manifest> = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            let text = std::fs::read_to_string(&file).map_err(|source| ManifestError::Read { path: file.clone(), source })?;
            for manifest in parse(&file, &text)? {
                if let Some(earlier) = manifests.iter().find(|earlier| same_object(earlier, &manifest)) {
                    let message = format!("{} is in {} already", manifest.describe(), earlier.place());
                    return Err(invalid(&manifest.path, manifest.line, manifest.document, message).into());
                }
                manifests.push(manifest);
            }
        }
    }
    Ok(manifests)
}

fn same_object(one: &Manifest, other: &Manifest) -> bool {
    let group = |manifest: &Manifest| manifest.api_version().rsplit_once('/').map(|(group, _)| group.to_owned());
    one.name() == other.name() && one.kind() == other.kind() && one.namespace() == other.namespace() && group(one) == group(other)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let failed = |source| ManifestError::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case("kustomization")) {
            return Err(ManifestError::Kustomize { path: file });
        }
        let known = file.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if known && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(ManifestError::EmptyFolder { path: path.to_owned() }) } else { Ok(files) }
}

/// Parses the text of a manifest file; `path` is for messages. Pure.
fn parse(path: &Path, text: &str) -> Result<Vec<Manifest>, ManifestError> {
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

fn invalid(path: &Path, line: usize, document: usize, message: String) -> ManifestError {
    ManifestError::Invalid { path: path.to_owned(), line, document, message }
}

/// Makes every container that runs the image `name` (bare, with any tag or
/// digest, or as devloop built it before) run `reference`; answers how many there
/// are. Containers are looked for in every pod spec, wherever it is in an object.
///
/// A pull policy of `Always` becomes `IfNotPresent`, for the image is nowhere to
/// be pulled from. Pure.
pub fn replace_image(manifests: &mut [Manifest], name: &str, reference: &str) -> usize {
    let mut count = 0;
    for manifest in manifests {
        for_each_container(&mut manifest.object, &mut |container| {
            if container["image"].as_str().is_some_and(|image| refers_to(image, name)) {
                container["image"] = reference.into();
                if container["imagePullPolicy"] == "Always" {
                    container["imagePullPolicy"] = "IfNotPresent".into();
                }
                count += 1;
            }
        });
    }
    count
}

/// Whether a container of the object runs the image `name`. Pure.
pub fn uses_image(manifest: &Manifest, name: &str) -> bool {
    let mut found = false;
    for_each_container(&mut manifest.object.clone(), &mut |container| {
        found |= container["image"].as_str().is_some_and(|image| refers_to(image, name));
    });
    found
}

fn refers_to(image: &str, name: &str) -> bool {
    let local = image.strip_prefix(REGISTRY).and_then(|rest| rest.strip_prefix('/')).unwrap_or(image);
    local.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
}

fn for_each_container(value: &mut Value, visit: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if ["containers", "initContainers", "ephemeralContainers"].contains(&key.as_str())
                    && let Some(containers) = field.as_array_mut()
                {
                    containers.iter_mut().filter(|container| container.is_object()).for_each(&mut *visit);
                } else {
                    for_each_container(field, visit);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_container(item, visit)),
        _ => {}
    }
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

    #[test]
    fn the_image_is_replaced_wherever_a_pod_is_described() {
        for (image, fits) in [
            ("shop", true),
            ("shop:1", true),
            ("shop@sha256:0", true),
            ("devloop.local/shop:12", true),
            ("shopping", false),
            ("docker.io/shop", false),
            ("devloop.local/shopping:1", false),
        ] {
            assert_eq!(refers_to(image, "shop"), fits, "{image}");
        }
        let mut manifests = read(TWO);
        assert!(uses_image(&manifests[1], "shop") && !uses_image(&manifests[0], "shop"));
        assert_eq!(replace_image(&mut manifests, "shop", "devloop.local/shop:abc"), 1);
        let container = &manifests[1].object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!((&container["image"], &container["imagePullPolicy"]), (&"devloop.local/shop:abc".into(), &"IfNotPresent".into()));
        let cron = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec: {jobTemplate: {spec: {template: {spec: {initContainers: [{image: shop}], containers: [{image: shop}]}}}}}";
        assert_eq!(replace_image(&mut read(cron), "shop", "x"), 2);
    }

    #[test]
    fn folders_are_read_in_order_and_an_object_only_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(&[folder.path().into()]).unwrap_err().to_string().starts_with("no manifest"));
        std::fs::write(folder.path().join("b.yml"), "{apiVersion: v1, kind: Secret, metadata: {name: b}}").unwrap();
        std::fs::write(folder.path().join("a.yaml"), "{apiVersion: v1, kind: Secret, metadata: {name: a}}").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        let manifests = load(&[folder.path().into()]).unwrap();
        assert_eq!(manifests.iter().map(Manifest::name).collect::<Vec<_>>(), ["a", "b"]);
        std::fs::write(folder.path().join("c.yaml"), "{apiVersion: v1, kind: Secret, metadata: {name: a}}").unwrap();
        assert!(load(&[folder.path().into()]).unwrap_err().to_string().contains("secret/a is in"));
        assert!(load(&[folder.path().join("none.yaml")]).unwrap_err().to_string().starts_with("could not read"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-a:{} \n#%.]{0,40}") {
            let _ = parse(Path::new("x.yaml"), &text);
        }
    }
}
