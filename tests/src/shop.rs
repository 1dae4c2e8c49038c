//! The example service on an environment, and a hot-reload session on it.

use crate::environment::Environment;
use crate::example::{copy_example, edit};
use crate::session::Session;
use crate::{eventually, repository};
use std::path::PathBuf;
use std::time::Duration;

/// A scratch copy of the example, deployed.
#[derive(Clone, Debug)]
pub struct Shop {
    /// Where it is deployed.
    pub environment: Environment,
    /// The copy's folder.
    pub folder: PathBuf,
}

impl Shop {
    /// Copies the example; what an earlier copy compiled is kept.
    ///
    /// # Panics
    /// When it can't be copied.
    pub fn copy(environment: &Environment, name: &str) -> Self {
        let folder = repository().join("target/shops").join(name);
        copy_example("shop", &folder);
        Self { environment: environment.clone(), folder }
    }

    /// `--file` and the project file.
    pub fn file(&self) -> [String; 2] {
        ["--file".to_owned(), self.folder.join("devloop.yaml").display().to_string()]
    }

    /// `--context` and the environment's.
    pub fn context(&self) -> [String; 2] {
        ["--context".to_owned(), self.environment.context()]
    }

    /// Builds, delivers and rolls out; answers what `kubectl rebuild` reports. Images go
    /// by [`Environment::way`].
    ///
    /// # Panics
    /// When that fails.
    pub fn rebuild(&self) -> serde_json::Value {
        let more = ["--via", self.environment.way(), "-o", "json"].map(str::to_owned);
        let arguments = self.context().into_iter().chain(self.file()).chain(more);
        serde_json::from_str(&self.environment.plugin("kubectl-rebuild", arguments).run().ok()).unwrap()
    }

    /// The one running pod: its name and its address with the service's port.
    ///
    /// # Panics
    /// When there is none within a minute.
    pub fn pod(&self) -> (String, String) {
        let path = "jsonpath={range .items[?(@.status.phase==\"Running\")]}{.metadata.name} {.status.podIP} {.metadata.deletionTimestamp}{\"\\n\"}{end}";
        eventually("the shop has a pod", Duration::from_secs(60), || {
            let text = self.environment.kubectl(["get", "pods", "-l", "app.kubernetes.io/name=shop", "-o", path]).run().ok();
            let pods: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
            let alive: Vec<&Vec<&str>> = pods.iter().filter(|words| words.len() == 2).collect();
            match alive.as_slice() {
                [pod] => Ok((pod[0].to_owned(), format!("{}:8080", pod[1]))),
                _ => Err(text),
            }
        })
    }

    /// What the service says at `/api/version`, by its source.
    ///
    /// # Panics
    /// When the source doesn't say.
    pub fn greeting(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("src/greeting.rs")).unwrap();
        let line = text.lines().find(|line| line.contains("const")).unwrap();
        line.split('"').nth(1).unwrap_or_else(|| panic!("{line}")).to_owned()
    }

    /// Makes it say something else.
    ///
    /// # Panics
    /// When the source can't be written.
    pub fn greet(&self, greeting: &str) {
        self.edit("src/greeting.rs", &format!("\"{}\"", self.greeting()), &format!("\"{greeting}\""));
    }

    /// Replaces text in one of its files, by a new file under the old name, as
    /// editors save.
    ///
    /// # Panics
    /// When the file lacks the text.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        edit(&self.folder.join(path), from, to);
    }

    /// Starts `kubectl hot-reload` and waits until it watches.
    ///
    /// # Panics
    /// When it doesn't get there.
    pub fn hot_reload(&self, more: &[&str]) -> Session {
        let arguments = self
            .context()
            .into_iter()
            .chain(self.file())
            .chain(["-o".to_owned(), "json".to_owned()])
            .chain(more.iter().map(|word| (*word).to_owned()));
        Session::start(self.environment.plugin("kubectl-hot_reload", arguments))
    }
}
