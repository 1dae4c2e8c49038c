//! The example service on an environment, and a hot-reload session on it.

use crate::environment::Environment;
use crate::program::Running;
use crate::{eventually, repository};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
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
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.file_name() != "target") {
            devloop_core::files::remove_all(&entry.path()).unwrap();
        }
        copy_tree(&repository().join("devenv/examples/shop"), &folder);
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

    /// Builds, delivers and rolls out; answers what `kubectl rebuild` reports.
    ///
    /// # Panics
    /// When that fails.
    pub fn rebuild(&self) -> serde_json::Value {
        let arguments = self.context().into_iter().chain(self.file()).chain(["-o".to_owned(), "json".to_owned()]);
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
        let path = self.folder.join(path);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{} lacks {from:?}", path.display());
        devloop_core::files::write_atomic(&path, text.replacen(from, to, 1).as_bytes(), 0o644).unwrap();
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
        let mut running = self.environment.plugin("kubectl-hot_reload", arguments).start();
        let (lines_tx, lines_rx) = channel();
        let stdout = running.child.stdout.take().unwrap();
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| lines_tx.send(line)));
        let session = Session { running, lines_rx };
        session.wait_for("ready");
        session
    }
}

/// A running `kubectl hot-reload`.
#[derive(Debug)]
pub struct Session {
    /// The process.
    pub running: Running,
    lines_rx: Receiver<String>,
}

impl Session {
    /// The next event of a kind; others before it are passed over.
    ///
    /// # Panics
    /// When none comes within two minutes, or the session ends.
    pub fn wait_for(&self, kind: &str) -> serde_json::Value {
        let mut seen = Vec::new();
        loop {
            match self.lines_rx.recv_timeout(Duration::from_secs(120)) {
                Ok(line) => {
                    let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                    if event["event"] == kind {
                        return event;
                    }
                    seen.push(line);
                }
                Err(error) => panic!("no event {kind:?} ({error}); seen: {seen:#?}"),
            }
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| entry.file_name() != "target") {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
