//! The example that is tested now, deployed on the current cluster: cases share
//! it, one after another, and a case that fails leaves it to nobody.

use super::apps::App;
use crate::clusters::Cluster;
use crate::shared;
use devloop_tests::eventually;
use devloop_tests::example::{Example, Pod};
use devloop_tests::proxy::{Answer, Proxy};
use devloop_tests::session::Session;
use devloop_tests::tree::Tree;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long something may take that usually takes a moment.
pub(super) const SOON: Duration = Duration::from_secs(90);

/// The way to the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Node,
    Api,
}

impl Way {
    /// As `--via` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Api => "api",
        }
    }
}

/// What a case works on.
#[derive(Debug)]
pub(crate) struct Stage {
    cluster: Cluster,
    pub(super) app: &'static App,
    pub(super) way: Way,
    pub(super) example: Example,
    /// What the image has of the pages, and of the code.
    pub(super) pages_before: Tree,
    code_before: Option<Vec<u8>>,
    proxy: Proxy,
    session: Option<Session>,
}

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

/// Runs a case on an example. It is deployed anew when it isn't there: at the
/// first of its cases, and after one that failed.
pub(crate) fn with(cluster: Cluster, app: &'static App, way: Way, case: fn(&mut Stage)) {
    let mut place = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let there = place.take().filter(|stage| (stage.cluster, stage.app, stage.way) == (cluster, app, way));
    let mut stage = there.unwrap_or_else(|| Stage::new(cluster, app, way));
    case(&mut stage);
    *place = Some(stage);
}

/// Takes down what is deployed.
pub(crate) fn leave() {
    *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Stage {
    fn new(cluster: Cluster, app: &'static App, way: Way) -> Self {
        let environment = shared();
        let namespace = format!("hot-{}-{}", app.id, way.name());
        // A namespace of this name that a failed case left would still be going.
        environment.kubectl(["delete", "namespace", &namespace, "--ignore-not-found"]).run().ok();
        let example = Example::copy(&environment, app.name, &namespace);
        example.deploy(&cluster.needs().environment());
        let proxy = Proxy::start(&environment);
        let pod = example.pod();
        let mut stage = Self { cluster, app, way, example, pages_before: Tree::default(), code_before: None, proxy, session: None };
        stage.pages_before = stage.pages(&pod);
        stage.code_before = stage.code(&pod);
        stage
    }

    /// The session, started by the first case that needs one.
    pub(super) fn session(&mut self) -> &mut Session {
        let (example, way) = (&self.example, self.way);
        self.session.get_or_insert_with(|| example.hot_reload(&["--via", way.name()]))
    }

    /// Starts a session that ends with the case.
    pub(super) fn own_session(&mut self, more: &[&str]) -> Session {
        self.session = None;
        let arguments: Vec<&str> = ["--via", self.way.name()].iter().chain(more).copied().collect();
        self.example.hot_reload(&arguments)
    }

    /// Takes the session out, to end it.
    pub(super) fn take_session(&mut self) -> Session {
        self.session();
        self.session.take().expect("it was started")
    }

    /// What a pod has of the pages.
    pub(super) fn pages(&self, pod: &Pod) -> Tree {
        let tree = self.example.tree(pod, self.app.served);
        match self.app.own {
            Some(own) => tree.without(own).without(&format!(".{own}")),
            None => tree,
        }
    }

    /// What a pod has of the code, unless it is compiled.
    pub(super) fn code(&self, pod: &Pod) -> Option<Vec<u8>> {
        let path = devloop_tests::container::path(&pod.container, self.app.code_inside?).unwrap();
        Some(std::fs::read(path).unwrap())
    }

    /// The pages of the copy.
    pub(super) fn local_pages(&self) -> Tree {
        self.example.local(self.app.pages)
    }

    pub(super) fn page(&self, name: &str) -> String {
        format!("{}/{name}", self.app.pages)
    }

    fn get(&self, pod: &Pod, path: &str) -> Answer {
        self.proxy.get(&self.example.namespace, &pod.name, path).unwrap()
    }

    /// Waits until the pod answers a path with a text.
    #[track_caller]
    pub(super) fn serves(&mut self, path: &str, text: &str) {
        let pod = self.example.pod();
        self.pod_serves(&pod, path, text);
    }

    #[track_caller]
    pub(super) fn pod_serves(&mut self, pod: &Pod, path: &str, text: &str) {
        self.answers(pod, &format!("{path} with {text:?}"), path, |answer| answer.status == 200 && answer.body.contains(text));
    }

    /// Waits until the pod has nothing at a path.
    #[track_caller]
    pub(super) fn lacks(&mut self, path: &str) {
        let pod = self.example.pod();
        self.answers(&pod, &format!("404 for {path}"), path, |answer| answer.status == 404);
    }

    fn answers(&mut self, pod: &Pod, what: &str, path: &str, is_it: impl Fn(&Answer) -> bool) {
        eventually(&format!("{} answers {what}", self.app.name), SOON, || {
            let answer = self.get(pod, path);
            if is_it(&answer) { Ok(()) } else { Err(format!("{answer:?}{}", self.told())) }
        });
    }

    /// Waits until the pod's pages are those of the copy, byte by byte.
    #[track_caller]
    pub(super) fn converges(&mut self) {
        let pod = self.example.pod();
        eventually(&format!("the pages of {} are those of its pod", self.app.name), SOON, || {
            let differences = self.local_pages().files().differences(&self.pages(&pod).files());
            if differences.is_empty() { Ok(()) } else { Err(format!("local / pod: {differences:#?}{}", self.told())) }
        });
    }

    /// The pages and the code are those of the image again, and so is the code
    /// that runs.
    #[track_caller]
    pub(super) fn is_as_before(&mut self) {
        let pod = self.example.pod();
        let differences = self.pages_before.clone().without_times().differences(&self.pages(&pod).without_times());
        assert!(differences.is_empty(), "before / now: {differences:#?}");
        assert_eq!(self.code(&pod).map(text), self.code_before.clone().map(text));
        self.serves(self.app.version, self.app.greeting);
    }

    /// What the session told so far.
    fn told(&mut self) -> String {
        match &mut self.session {
            Some(session) => {
                session.skip();
                format!("\n{}", session.describe())
            }
            None => String::new(),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.session = None;
        self.example.remove();
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
