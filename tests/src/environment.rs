//! An environment that a test has to itself, with a state folder and a
//! kubeconfig that are not the user's, on any of the engines.

use crate::program::Program;
use crate::{eventually, programs, repository};
use devloop_core::environment::{Directories, EnvironmentDirectory, EnvironmentStatus};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// How long an image for kind's nodes may take on a slow machine, all of it compiled.
const MAKING: Duration = Duration::from_secs(30 * 60);

/// What runs an environment's cluster, and the way to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Processes of this machine.
    #[default]
    Embedded,
    /// kind, with so many workers beside the control plane.
    Kind {
        /// 0 for a cluster of one node.
        workers: u16,
    },
    /// The kubeconfig context of an environment of kind, as if its nodes were
    /// far away: our programs find no Docker engine.
    Api {
        /// The kind cluster's name.
        cluster: &'static str,
    },
}

/// A place for environments, and the name of one.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The environment's name.
    pub name: String,
    /// What runs it.
    pub engine: Engine,
    folder: PathBuf,
}

impl Environment {
    /// Everything of it goes below `target/e2e/FAMILY`, where the next run finds
    /// what a killed one left.
    pub fn new(family: &str, name: &str) -> Self {
        Self { name: name.to_owned(), engine: Engine::Embedded, folder: repository().join("target/e2e").join(family) }
    }

    /// The same on another engine.
    #[must_use]
    pub fn on(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Another environment in the same place.
    #[must_use]
    pub fn sibling(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// A folder for a test's own files.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.folder.join("scratch").join(name);
        // Left by an earlier run, perhaps.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The kubeconfig that its context goes into.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// How nodes are reached, as `--via` has it, for tests of what does not depend on it:
    /// which way is chosen without it is another one on every machine.
    pub fn way(&self) -> &'static str {
        if matches!(self.engine, Engine::Api { .. }) { "api" } else { "node" }
    }

    /// Its kubeconfig context.
    pub fn context(&self) -> String {
        match self.engine {
            Engine::Embedded => format!("devloop-{}", self.name),
            Engine::Kind { .. } => format!("kind-{}", self.name),
            Engine::Api { cluster } => format!("kind-{cluster}"),
        }
    }

    /// Its folder.
    pub fn directory(&self) -> EnvironmentDirectory {
        Directories { state: self.folder.join("state/devloop"), cache: PathBuf::new() }.environment(&self.name)
    }

    /// What its supervisor says now.
    ///
    /// # Panics
    /// When it never ran.
    pub fn status(&self) -> EnvironmentStatus {
        self.directory().status().unwrap().expect("the environment has a status")
    }

    /// Gives a program this place's folders.
    pub fn apply(&self, program: Program) -> Program {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs()].into_iter().chain(std::env::split_paths(&path))).unwrap();
        let program = match self.engine {
            Engine::Embedded => program.env("DEVLOOP_PROVIDER", "embedded"),
            Engine::Kind { .. } => {
                let program = program.env("DEVLOOP_PROVIDER", "kind");
                if let Some(image) = node_image() { program.env("KIND_NODE_IMAGE", image) } else { program }
            }
            // Nobody listens there.
            Engine::Api { .. } => program.env("DEVLOOP_PROVIDER", "context").env("DOCKER_HOST", "unix:///nowhere/docker.sock"),
        };
        program
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .env("KUBECONFIG", self.kubeconfig())
            .env("PATH", path)
            .env("DEVLOOP_NAME", &self.name)
            .env_remove("DEVLOOP_LOG")
            .env_remove("DEVLOOP_VIA")
            .env_remove("RUST_BACKTRACE")
    }

    /// `kubectl-devenv` with these arguments.
    pub fn devenv<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Program {
        self.plugin("kubectl-devenv", arguments)
    }

    /// One of our plugins.
    pub fn plugin<S: AsRef<OsStr>>(&self, name: &str, arguments: impl IntoIterator<Item = S>) -> Program {
        self.apply(Program::new(programs().join(name)).args(arguments))
    }

    /// Stock kubectl on this environment's context.
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Program {
        self.apply(Program::new(kubectl()).args(["--context", &self.context()]).args(arguments))
    }

    /// Brings it up.
    ///
    /// # Panics
    /// When that fails.
    pub fn up(&self) {
        self.devenv(self.up_arguments()).run().ok();
    }

    /// The arguments that bring it up.
    pub fn up_arguments(&self) -> Vec<String> {
        let words: Vec<String> = match self.engine {
            Engine::Embedded => ["--provider", "embedded"].map(str::to_owned).into(),
            Engine::Kind { workers } => ["--provider", "kind", "--workers", &workers.to_string()].map(str::to_owned).into(),
            Engine::Api { .. } => ["--provider", "context", "--context", &self.context()].map(str::to_owned).into(),
        };
        std::iter::once("up".to_owned()).chain(words).collect()
    }

    /// Removes every trace of it.
    ///
    /// # Panics
    /// When that fails.
    pub fn down(&self) {
        self.devenv(["down"]).run().ok();
    }

    /// Ends and removes whatever an earlier run left in this place.
    ///
    /// # Panics
    /// When that fails.
    pub fn clear(&self) {
        self.devenv(["down", "--all"]).run().ok();
        let _ = std::fs::remove_dir_all(&self.folder);
        std::fs::create_dir_all(&self.folder).unwrap();
    }

    /// Applies manifests.
    ///
    /// # Panics
    /// When kubectl refuses.
    pub fn apply_manifest(&self, manifest: &str) {
        self.kubectl(["apply", "-f", "-"]).input(manifest).run().ok();
    }
}

/// The kubectl on PATH, else the one that was built with the node.
fn kubectl() -> PathBuf {
    let built = programs().join("kubectl");
    if built.exists() { built } else { Path::new("kubectl").to_owned() }
}

/// The image for kind's nodes, where one is being made: waits for that. The environment
/// names one elsewhere, or kind takes its own.
///
/// # Panics
/// When it can't be made.
pub fn node_image() -> Option<&'static str> {
    static IMAGE: OnceLock<Option<String>> = OnceLock::new();
    let wait = || {
        let path = PathBuf::from(std::env::var_os("DEVLOOP_E2E_NODE_IMAGE")?);
        let read = || std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let image = eventually("the image for kind's nodes is made", MAKING, read).trim().to_owned();
        assert!(!image.is_empty(), "there is no image for kind's nodes; see {}.log", path.display());
        Some(image)
    };
    IMAGE.get_or_init(wait).as_deref()
}
