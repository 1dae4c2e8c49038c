//! Where manifests come from: files, folders, Kustomize, Helm.

use super::manifest::{Manifest, ManifestError, invalid, parse};
use crate::error::Result;
use crate::project::{DeploySpec, HelmSpec};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Names that Kustomize looks for in a folder.
const KUSTOMIZATION: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Reads the manifests of several services; what they have in common, once.
#[derive(Debug)]
pub struct Loader {
    /// What paths in a project file are relative to.
    root: PathBuf,
    cluster: HelmCluster,
    read: HashMap<PathBuf, Vec<Manifest>>,
}

/// What a chart is told about the cluster. Helm doesn't talk to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelmCluster {
    /// The namespace, if it was named.
    pub namespace: Option<String>,
    /// The kubeconfig, if it was named: its context's namespace counts else.
    pub kubeconfig: Option<PathBuf>,
    /// The context, if it was named.
    pub context: Option<String>,
}

impl Loader {
    /// Reads below `root`. Messages name files by it, so that a short one makes
    /// short messages.
    pub fn new(root: impl Into<PathBuf>, cluster: HelmCluster) -> Self {
        Self { root: root.into(), cluster, read: HashMap::new() }
    }

    /// The manifests of a service, in the order of its sources; a folder's in the
    /// order of its files' names, and not those of folders in it, as `kubectl
    /// apply -f` does. Lists are taken apart.
    ///
    /// # Errors
    /// [`ManifestError`], for the first mistake; two manifests for one object are
    /// one.
    pub async fn load(&mut self, service: &str, deploy: &DeploySpec) -> Result<Vec<Manifest>> {
        let mut manifests: Vec<Manifest> = Vec::new();
        for path in &deploy.manifests {
            // `.` would only lengthen messages.
            let path = if path == Path::new(".") { self.root.clone() } else { self.root.join(path) };
            if !self.read.contains_key(&path) {
                let read = read(&path).await?;
                self.read.insert(path.clone(), read);
            }
            add(&mut manifests, self.read.get(&path).cloned().unwrap_or_default())?;
        }
        if let Some(helm) = &deploy.helm {
            add(&mut manifests, self.template(service, helm).await?)?;
        }
        Ok(manifests)
    }

    async fn template(&self, service: &str, helm: &HelmSpec) -> Result<Vec<Manifest>, ManifestError> {
        let failed = |reason, hint| ManifestError::Tool { tool: "helm", path: PathBuf::from(&helm.chart), reason, hint };
        let arguments = helm_arguments(&self.root, service, helm, &self.cluster);
        let text = match run("helm", &arguments).await {
            Ok(text) => text,
            Err(Failed::Missing) => {
                return Err(failed("helm is not on PATH".to_owned(), Some("install Helm from https://helm.sh, or name manifests instead")));
            }
            Err(Failed::Said(reason)) => return Err(failed(reason, None)),
        };
        parse(Path::new(&format!("<helm {}>", helm.chart)), &text)
    }
}

fn helm_arguments(root: &Path, service: &str, helm: &HelmSpec, cluster: &HelmCluster) -> Vec<OsString> {
    let local = root.join(&helm.chart);
    let chart = if local.exists() { local.into_os_string() } else { OsString::from(&helm.chart) };
    let release = helm.release.as_deref().unwrap_or(service);
    let mut arguments: Vec<OsString> = vec!["template".into(), "--include-crds".into()];
    let mut add = |flag: &str, value: OsString| arguments.extend([OsString::from(flag), value]);
    for (flag, value) in [("--namespace", &cluster.namespace), ("--kube-context", &cluster.context)] {
        value.iter().for_each(|value| add(flag, value.into()));
    }
    cluster.kubeconfig.iter().for_each(|path| add("--kubeconfig", path.into()));
    helm.values.iter().for_each(|path| add("--values", root.join(path).into()));
    helm.set.iter().for_each(|(key, value)| add("--set-json", format!("{key}={value}").into()));
    arguments.extend(["--".into(), release.into(), chart]);
    arguments
}

fn add(manifests: &mut Vec<Manifest>, more: Vec<Manifest>) -> Result<(), ManifestError> {
    for manifest in more {
        if let Some(earlier) = manifests.iter().find(|earlier| same_object(earlier, &manifest)) {
            let message = format!("{} is in {} already", manifest.describe(), earlier.place());
            return Err(invalid(&manifest.path, manifest.line, manifest.document, message));
        }
        manifests.push(manifest);
    }
    Ok(())
}

/// Whether two manifests are of one object.
pub fn same_object(one: &Manifest, other: &Manifest) -> bool {
    one.name() == other.name() && one.kind() == other.kind() && one.namespace() == other.namespace() && one.group() == other.group()
}

async fn read(path: &Path) -> Result<Vec<Manifest>, ManifestError> {
    if let Some(folder) = kustomization_folder(path) {
        return kustomize(&folder).await;
    }
    let mut manifests = Vec::new();
    for file in files_of(path)? {
        let text = std::fs::read_to_string(&file).map_err(|source| ManifestError::Read { path: file.clone(), source })?;
        add(&mut manifests, parse(&file, &text)?)?;
    }
    Ok(manifests)
}

/// The folder that Kustomize builds: one with a kustomization, or that of one.
pub(crate) fn kustomization_folder(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return KUSTOMIZATION.iter().any(|name| path.join(name).is_file()).then(|| path.to_owned());
    }
    let named = path.file_name().is_some_and(|name| KUSTOMIZATION.iter().any(|known| name == *known));
    named.then(|| path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned())
}

/// The file with which Kustomize begins in a folder.
pub(crate) fn kustomization_file(folder: &Path) -> Option<PathBuf> {
    KUSTOMIZATION.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

async fn kustomize(folder: &Path) -> Result<Vec<Manifest>, ManifestError> {
    let failed = |reason, hint| ManifestError::Tool { tool: "kustomize", path: folder.to_owned(), reason, hint };
    // One that begins with a dash would be taken for an option.
    let named = if folder.is_absolute() { folder.to_owned() } else { Path::new(".").join(folder) };
    let mut said = None;
    for (program, command) in [("kubectl", "kustomize"), ("kustomize", "build")] {
        match run(program, &[command.into(), named.clone().into_os_string()]).await {
            Ok(text) => return parse(Path::new(&format!("<kustomize {}>", folder.display())), &text),
            Err(Failed::Missing) => {}
            Err(Failed::Said(reason)) => {
                said = Some(reason);
                break;
            }
        }
    }
    Err(match said {
        Some(reason) => failed(reason, None),
        None => failed(
            "neither kubectl nor kustomize is on PATH".to_owned(),
            Some("install kubectl, or write the manifests to a file and name it"),
        ),
    })
}

/// Why a program gave no manifests.
enum Failed {
    Missing,
    Said(String),
}

async fn run(program: &str, arguments: &[OsString]) -> Result<String, Failed> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failed::Missing,
        _ => Failed::Said(format!("{program} can't be run: {error}")),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let words = plain(said.trim());
        return Err(Failed::Said(if words.is_empty() { format!("{program} failed ({})", output.status) } else { words }));
    }
    String::from_utf8(output.stdout).map_err(|_| Failed::Said(format!("what {program} printed is no text")))
}

/// Without the label, or the frame of a log line, that some kubectls put around
/// what they say.
fn plain(said: &str) -> String {
    match said.split_once(" err=\"").and_then(|(_, rest)| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\n", "\n"),
        None => said.trim_start_matches("Error: ").trim_start_matches("error: ").to_owned(),
    }
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let failed = |source| ManifestError::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let known = file.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if known && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(ManifestError::EmptyFolder { path: path.to_owned() }) } else { Ok(files) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn deploy(paths: &[&str]) -> DeploySpec {
        DeploySpec { manifests: paths.iter().map(PathBuf::from).collect(), ..DeploySpec::of("web".parse().unwrap(), None) }
    }

    async fn load(folder: &Path, paths: &[&str]) -> Result<Vec<String>> {
        let manifests = Loader::new(folder, HelmCluster::default()).load("web", &deploy(paths)).await?;
        Ok(manifests.iter().map(Manifest::describe).collect())
    }

    fn text(error: crate::CommandError, folder: &Path) -> String {
        crate::ui::render_error(&error).replace(&folder.display().to_string(), "[FOLDER]")
    }

    #[tokio::test]
    async fn folders_are_read_in_order_and_an_object_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, object: &str| {
            std::fs::write(folder.path().join(name), format!("{{apiVersion: v1, kind: Secret, metadata: {{name: {object}}}}}")).unwrap();
        };
        assert!(load(folder.path(), &["."]).await.unwrap_err().to_string().starts_with("no manifest"));
        write("b.yml", "b");
        write("a.yaml", "a");
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        assert_eq!(load(folder.path(), &["."]).await.unwrap(), ["secret/a", "secret/b"]);
        write("c.yaml", "a");
        assert!(load(folder.path(), &["."]).await.unwrap_err().to_string().contains("secret/a is in"));
        assert!(load(folder.path(), &["a.yaml", "c.yaml"]).await.unwrap_err().to_string().contains("secret/a is in"));
        assert!(load(folder.path(), &["none.yaml"]).await.unwrap_err().to_string().starts_with("could not read"));
    }

    #[tokio::test]
    async fn kustomize_builds_its_folders_and_its_words_are_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("over")).unwrap();
        std::fs::create_dir_all(folder.path().join("base")).unwrap();
        std::fs::write(folder.path().join("base/map.yaml"), "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}").unwrap();
        std::fs::write(folder.path().join("base/kustomization.yaml"), "resources: [map.yaml]\n").unwrap();
        std::fs::write(folder.path().join("over/kustomization.yml"), "namePrefix: dev-\nresources: [../base]\n").unwrap();
        assert_eq!(load(folder.path(), &["over"]).await.unwrap(), ["configmap/dev-a"]);
        assert_eq!(load(folder.path(), &["over/kustomization.yml"]).await.unwrap(), ["configmap/dev-a"]);
        std::fs::write(folder.path().join("base/kustomization.yaml"), "resources: [gone.yaml]\n").unwrap();
        let error = text(load(folder.path(), &["base"]).await.unwrap_err(), folder.path());
        assert!(error.starts_with("Error: kustomize can't make the manifests of [FOLDER]/base") && error.contains("gone.yaml"), "{error}");
    }

    #[test]
    fn helm_is_given_values_and_never_an_option_of_the_users() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("chart")).unwrap();
        let helm = |chart: &str| HelmSpec {
            chart: chart.into(),
            release: None,
            values: vec!["dev.yaml".into()],
            set: BTreeMap::from([("image.tag".into(), "a,b".into()), ("replicas".into(), 2.into())]),
        };
        let cluster = HelmCluster { namespace: Some("dev".into()), ..HelmCluster::default() };
        let line = |chart: &str| {
            let arguments = helm_arguments(folder.path(), "web", &helm(chart), &cluster);
            arguments.join(std::ffi::OsStr::new(" ")).to_string_lossy().replace(&folder.path().display().to_string(), "[FOLDER]")
        };
        insta::assert_snapshot!(line("chart"), @r#"template --include-crds --namespace dev --values [FOLDER]/dev.yaml --set-json image.tag="a,b" --set-json replicas=2 -- web [FOLDER]/chart"#);
        assert!(line("repo/web").ends_with("-- web repo/web"));
    }
}
