//! One of the examples on an environment: a scratch copy of its folder, its
//! image on the nodes, its pods in a namespace of its own.

use crate::container;
use crate::environment::Environment;
use crate::images::{self, copy_tree};
use crate::session::Session;
use crate::tree::Tree;
use crate::{eventually, repository};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A scratch copy of an example, and where it runs.
#[derive(Clone, Debug)]
pub struct Example {
    /// Where it is deployed.
    pub environment: Environment,
    /// The example's name, that of its service, deployment and image, too.
    pub name: String,
    /// The copy's folder.
    pub folder: PathBuf,
    /// Where its pods are.
    pub namespace: String,
}

/// One of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The id of its container.
    pub container: String,
    /// How often that was restarted.
    pub restarts: u64,
}

impl Example {
    /// Copies an example; what an earlier copy compiled is kept.
    ///
    /// # Panics
    /// When it can't be copied.
    pub fn copy(environment: &Environment, name: &str, namespace: &str) -> Self {
        let folder = repository().join("target/examples").join(name);
        let example = Self { environment: environment.clone(), name: name.to_owned(), folder, namespace: namespace.to_owned() };
        example.restore();
        example
    }

    /// Makes the copy what the example is.
    ///
    /// # Panics
    /// When it can't be copied.
    pub fn restore(&self) {
        copy_example(&self.name, &self.folder);
    }

    /// Deploys it: from an image of the harness, which is put on the nodes of `nodes`,
    /// where it would be built upon what only a registry has; else by `kubectl
    /// rebuild`. Comes back when it runs.
    ///
    /// # Panics
    /// When that fails.
    pub fn deploy(&self, nodes: &Environment) {
        let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n", self.namespace);
        self.environment.apply_manifest(&namespace);
        if images::has_recipe(&self.name) {
            let archive = images::archive(&self.name, &self.folder);
            nodes.devenv(["load".as_ref(), archive.as_os_str()]).run().ok();
            let manifest = std::fs::read_to_string(self.folder.join(format!("k8s/{}.yaml", self.name))).unwrap();
            let manifest = manifest.replace(&format!("image: {}\n", self.name), &format!("image: {}\n", images::reference(&self.name)));
            self.kubectl(&["apply", "-f", "-"]).input(manifest).run().ok();
        } else {
            self.environment.plugin("kubectl-rebuild", self.arguments()).run().ok();
        }
        self.rolled_out();
    }

    /// Waits until its pods are those of the last rollout, and only those.
    ///
    /// # Panics
    /// When that takes more than two minutes.
    pub fn rolled_out(&self) {
        self.kubectl(&["rollout", "status", &format!("deployment/{}", self.name), "--timeout=120s"]).run().ok();
    }

    /// Takes its namespace away, without waiting.
    pub fn remove(&self) {
        // The cluster may be gone already.
        let _ = self.environment.kubectl(["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]).run();
    }

    /// kubectl in its namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> crate::program::Program {
        self.environment.kubectl(["-n", &self.namespace].iter().chain(arguments))
    }

    /// `--context`, `--namespace` and `--file`.
    pub fn arguments(&self) -> Vec<String> {
        let file = self.folder.join("devloop.yaml").display().to_string();
        ["--context", &self.environment.context(), "--namespace", &self.namespace, "--file", &file].map(str::to_owned).into()
    }

    /// Its running pods that nobody deletes, by name.
    ///
    /// # Panics
    /// When kubectl fails.
    pub fn pods(&self) -> Vec<Pod> {
        let label = format!("app.kubernetes.io/name={}", self.name);
        let list = self.kubectl(&["get", "pods", "-l", &label, "-o", "json"]).run().ok();
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let pods = list["items"].as_array().into_iter().flatten();
        pods.filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| {
                let status = &pod["status"]["containerStatuses"][0];
                Pod {
                    name: text(&pod["metadata"]["name"]),
                    address: format!("{}:8080", text(&pod["status"]["podIP"])),
                    container: text(&status["containerID"]),
                    restarts: status["restartCount"].as_u64().unwrap_or_default(),
                }
            })
            .collect()
    }

    /// Its one pod.
    ///
    /// # Panics
    /// When there is not one within a minute.
    pub fn pod(&self) -> Pod {
        eventually(&format!("{} has one pod", self.name), Duration::from_secs(60), || match &self.pods()[..] {
            [pod] if pod.container.contains("//") => Ok(pod.clone()),
            pods => Err(format!("{pods:?}")),
        })
    }

    /// What lies in a folder of a pod's container.
    ///
    /// # Panics
    /// When the container isn't on this machine.
    pub fn tree(&self, pod: &Pod, folder: &str) -> Tree {
        container::tree(&pod.container, folder).unwrap_or_else(|reason| panic!("{}: {reason}", pod.name))
    }

    /// What lies in a folder of the copy.
    pub fn local(&self, folder: &str) -> Tree {
        Tree::read(&self.folder.join(folder))
    }

    /// Replaces text in one of its files, as editors save.
    ///
    /// # Panics
    /// When the file lacks the text.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        edit(&self.folder.join(path), from, to);
    }

    /// Writes one of its files, as editors save.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(&self.folder.join(path), content.as_ref());
    }

    /// Starts `kubectl hot-reload` and waits until it watches.
    ///
    /// # Panics
    /// When it doesn't get there.
    pub fn hot_reload(&self, more: &[&str]) -> Session {
        let words = self.arguments().into_iter().chain(["-o".to_owned(), "json".to_owned()]);
        Session::start(self.environment.plugin("kubectl-hot_reload", words.chain(more.iter().map(|word| (*word).to_owned()))))
    }
}

/// Makes a folder a copy of an example. What was compiled in it stays.
///
/// # Panics
/// When it can't be copied.
pub fn copy_example(name: &str, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for entry in std::fs::read_dir(folder).unwrap().flatten().filter(|entry| !is_built(&entry.path())) {
        devloop_core::files::remove_all(&entry.path()).unwrap();
    }
    copy_tree(&repository().join("devenv/examples").join(name), folder, &|path| !is_built(path));
}

fn is_built(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "target")
}

/// Replaces text in a file, by a new file under the old name, as editors save.
///
/// # Panics
/// When the file lacks the text.
pub fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} lacks {from:?}", path.display());
    write(path, text.replacen(from, to, 1).as_bytes());
}

fn write(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
    devloop_core::files::write_atomic(path, content, mode).unwrap();
}
