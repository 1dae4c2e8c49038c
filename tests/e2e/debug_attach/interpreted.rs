//! `kubectl debug-attach` on Python, Node and Java, with real clients of their
//! debuggers.

mod java;
mod node;
mod python;

use super::{Extent, Test};
use crate::clusters::Cluster;
use crate::shared;
use devloop_tests::example::{Example, Pod};
use devloop_tests::program::Program;
use devloop_tests::proxy::Proxy;
use devloop_tests::session::Session;
use devloop_tests::{container, eventually};
use serde_json::Value;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// An example, and where the app is to stop.
#[derive(Clone, Copy)]
struct App {
    name: &'static str,
    file: &'static str,
    /// A statement that runs for each request of the test's, and for no probe.
    statement: &'static str,
}

pub(super) fn add(add: &mut impl FnMut(&str, Test), way: &str, extent: Extent) {
    add("python_stops_at_a_breakpoint_and_runs_on", python::stops);
    add("node_stops_at_a_breakpoint_and_its_inspector_is_closed", node::stops);
    add("java_is_started_again_for_a_debugger_and_once_more", java::restarts);
    if extent >= Extent::Nodes {
        add("python_starts_anew_under_its_debugger_once_it_runs_on", python::anew);
    }
    if extent == Extent::Full {
        add("node_starts_anew_once_it_runs_on", node::anew);
        add("java_starts_anew_once_it_runs_on", java::anew);
        if way == "node" {
            add("a_supervised_program_starts_anew_once_it_runs_on", python::supervised);
        }
    }
}

/// The example, deployed.
struct Stage {
    app: App,
    example: Example,
    way: &'static str,
}

impl Stage {
    fn new(cluster: Cluster, way: &'static str, app: App) -> Self {
        let environment = shared();
        let namespace = format!("debug-{}-{way}", app.name);
        environment.kubectl(["delete", "namespace", &namespace, "--ignore-not-found"]).run().ok();
        let example = Example::copy(&environment, app.name, &namespace);
        let manifest = format!("k8s/{}.yaml", app.name);
        if std::fs::read_to_string(example.folder.join(&manifest)).unwrap().contains("path: /version") {
            // A probe must not come upon the breakpoints that are meant for the test.
            example.edit(&manifest, "path: /version", "path: /");
        }
        example.deploy(&cluster.needs().environment());
        Self { app, example, way }
    }

    fn program(&self, more: &[&str]) -> Program {
        let (context, folder) = (self.example.environment.context(), self.example.folder.display().to_string());
        let target = format!("deploy/{}", self.app.name);
        let own = [&target, "--context", &context, "-n", &self.example.namespace, "--via", self.way, "--sources", &folder];
        self.example.environment.plugin("kubectl-debug_attach", own.iter().chain(more))
    }

    /// Attaches; answers the session and what it said.
    fn attach(&self, more: &[&str]) -> (Session, Value) {
        let arguments: Vec<&str> = ["-o", "json", "--editor", "none"].iter().chain(more).copied().collect();
        let mut session = Session::launch(self.program(&arguments));
        let attached = session.wait_for("attached");
        assert_eq!(attached["via"].as_str(), Some(self.way), "{attached}");
        (session, attached)
    }

    fn file(&self) -> PathBuf {
        self.example.folder.join(self.app.file)
    }

    /// The line of the statement.
    fn line(&self) -> usize {
        let text = std::fs::read_to_string(self.file()).unwrap();
        1 + text.lines().position(|line| line.contains(self.app.statement)).unwrap()
    }

    /// Asks the app, in its own time.
    fn ask(&self, pod: &Pod) -> JoinHandle<Result<String, String>> {
        let (environment, namespace, pod) = (self.example.environment.clone(), self.example.namespace.clone(), pod.name.clone());
        std::thread::spawn(move || {
            let proxy = Proxy::start(&environment);
            let answer = proxy.get(&namespace, &pod, "/version").map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
        })
    }

    #[track_caller]
    fn answers(&self, request: JoinHandle<Result<String, String>>) {
        let body = request.join().unwrap().unwrap();
        assert!(body.contains(&format!("hello from {}", self.app.name)), "{body}");
    }

    /// The app answers with a text before long.
    #[track_caller]
    fn serves(&self, pod: &Pod, text: &str) {
        eventually(&format!("{text:?} is served"), SOON, || match self.ask(pod).join().unwrap()? {
            body if body.contains(text) => Ok(()),
            body => Err(body),
        });
    }

    /// The app answers, is the same process as before, and nobody traces it.
    #[track_caller]
    fn runs_on(&self, before: &Pod) {
        self.answers(self.ask(before));
        assert_eq!(&self.example.pod(), before, "the container was restarted");
        let status = std::fs::read_to_string(format!("/proc/{}/status", container::process(&before.container).unwrap())).unwrap();
        assert!(status.contains("TracerPid:\t0\n") && !status.contains("State:\tT"), "{status}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.example.remove();
    }
}

fn port(attached: &Value) -> u16 {
    u16::try_from(attached["port"].as_u64().unwrap()).unwrap()
}
