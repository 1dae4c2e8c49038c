//! The clusters that the tests run on, each brought up by the first test of it
//! and taken down before the first of the next: two cores carry one well.

use crate::watch::Watch;
use devloop_tests::environment::{Engine, Environment, node_image};
use devloop_tests::program::Program;
use devloop_tests::toolbox;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A cluster that tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cluster {
    /// The embedded one.
    Embedded,
    /// kind, one node.
    Kind,
    /// kind, three nodes.
    Kind3,
    /// The API of the one before, and nothing but that.
    Api,
}

impl Cluster {
    const ALL: [Self; 4] = [Self::Embedded, Self::Kind, Self::Kind3, Self::Api];

    /// As in the names of tests and in `DEVLOOP_E2E`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kind => "kind",
            Self::Kind3 => "kind3",
            Self::Api => "api",
        }
    }

    /// Those that a list names; all without one.
    pub(crate) fn chosen(list: Option<&str>) -> Result<Vec<Self>, String> {
        let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(Self::ALL.into()) };
        let known = |word: &str| Self::ALL.into_iter().find(|cluster| cluster.name() == word);
        list.split(',').map(|word| known(word.trim()).ok_or_else(|| format!("DEVLOOP_E2E: there is no cluster {word:?}"))).collect()
    }

    /// Its environment.
    pub(crate) fn environment(self) -> Environment {
        match self {
            Self::Embedded => Environment::new("shared", "e2e"),
            Self::Kind => Environment::new("shared", "e2e-kind").on(Engine::Kind { workers: 0 }),
            Self::Kind3 => Environment::new("shared", "e2e-kind3").on(Engine::Kind { workers: 2 }),
            Self::Api => Environment::new("shared", "e2e-api").on(Engine::Api { cluster: "e2e-kind3" }),
        }
    }

    /// The cluster that is to be there for the tests of this one.
    pub(crate) fn needs(self) -> Self {
        if self == Self::Api { Self::Kind3 } else { self }
    }
}

/// The cluster that tests run on now, and what is up.
#[derive(Debug)]
struct Stage {
    current: Cluster,
    up: Option<Cluster>,
    ready: Option<Environment>,
}

static STAGE: Mutex<Stage> = Mutex::new(Stage { current: Cluster::Embedded, up: None, ready: None });

/// The cluster that tests run on now.
pub(crate) fn current() -> Cluster {
    STAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).current
}

/// The environment that the tests of the current cluster share, brought up by
/// the first that asks.
pub(crate) fn shared() -> Environment {
    let mut stage = STAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(environment) = &stage.ready {
        return environment.clone();
    }
    let environment = stage.current.environment();
    let base = stage.current.needs();
    if stage.up != Some(base) {
        take_down(&mut stage);
        base.environment().up();
        load_toolbox(&base.environment());
        stage.up = Some(base);
    }
    if base != stage.current {
        environment.up();
    }
    stage.ready = Some(environment.clone());
    environment
}

/// Takes down what is up.
pub(crate) fn leave() {
    take_down(&mut STAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

fn take_down(stage: &mut Stage) {
    stage.ready = None;
    if let Some(cluster) = stage.up.take() {
        cluster.environment().down();
    }
}

/// Puts the image that tests run in pods on an environment's nodes.
pub(crate) fn load_toolbox(environment: &Environment) {
    let archive = toolbox::archive(&environment.scratch("toolbox"));
    environment.devenv(["load".as_ref(), archive.as_os_str()]).run().ok();
}

/// Says something beside the runner's own lines.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    // Nobody may be left to read it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says which nodes take no pods, and what they are short of: after that every test
/// fails, and none says why.
fn say_tainted(cluster: Cluster) {
    let stage = STAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if stage.up != Some(cluster.needs()) {
        return;
    }
    let template = r#"{range .items[?(@.spec.taints)]}{"node "}{.metadata.name}{" "}{.spec.taints}{range .status.conditions[*]}{"\n  "}{.type}{"="}{.status}{" "}{.message}{end}{"\n"}{end}"#;
    let nodes =
        cluster.needs().environment().kubectl(["get", "nodes", "--request-timeout=5s", "-o", &format!("jsonpath={template}")]).run();
    let machine = Program::new("df").args(["-h", "/"]).run().stdout + &Program::new("free").args(["-m"]).run().stdout;
    if !nodes.status.success() || !nodes.stdout.is_empty() {
        say(&format!("{}{}{machine}", nodes.stdout, nodes.stderr));
    }
}

/// How many tests ran on each cluster, and how long.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    counts: Mutex<BTreeMap<Cluster, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    ran: u32,
    passed: u32,
    /// Of each suite, which is what a test's name begins with.
    times: BTreeMap<String, Duration>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), counts: Mutex::default() }
    }

    /// Runs a test on a cluster and counts it.
    pub(crate) fn run(&self, cluster: Cluster, name: &str, test: impl FnOnce()) {
        let started = Instant::now();
        if current() != cluster {
            // What is deployed there, while it is up.
            crate::hot_reload::leave();
        }
        {
            let mut stage = STAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if stage.current != cluster {
                stage.current = cluster;
                stage.ready = None;
                if stage.up.is_some_and(|up| up != cluster.needs()) {
                    take_down(&mut stage);
                }
            }
        }
        let suite = name.split("::").next().unwrap_or(name);
        self.begin(cluster, suite);
        if cluster != Cluster::Embedded {
            // Not the test's time.
            node_image();
        }
        let watch = Watch::start(format!("{}::{name}", cluster.name()));
        let outcome = catch_unwind(AssertUnwindSafe(test));
        drop(watch);
        {
            let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let count = counts.entry(cluster).or_default();
            count.ran += 1;
            count.passed += u32::from(outcome.is_ok());
            *count.times.entry(suite.to_owned()).or_default() += started.elapsed();
        }
        if let Err(panic) = outcome {
            say_tainted(cluster);
            resume_unwind(panic);
        }
    }

    /// Says when a suite begins: a run that is cut off tells by that what took it so long.
    fn begin(&self, cluster: Cluster, suite: &str) {
        let counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !counts.get(&cluster).is_some_and(|count| count.times.contains_key(suite)) {
            say(&format!("(after {} s, the first of {suite} on {})", self.started.elapsed().as_secs(), cluster.name()));
        }
    }

    /// Whether each of these clusters had tests, none of them left out silently.
    pub(crate) fn check(&self, chosen: &[Cluster]) -> Result<(), String> {
        let counts = self.counts.lock().unwrap();
        match chosen.iter().find(|cluster| !counts.contains_key(cluster)) {
            Some(cluster) => Err(format!("no test ran on {}", cluster.name())),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap();
        writeln!(formatter, "\nTests on each cluster:")?;
        for cluster in Cluster::ALL {
            let Some(Count { ran, passed, times }) = counts.get(&cluster) else { continue };
            let total = times.values().sum::<Duration>().as_secs();
            let times: Vec<String> = times.iter().map(|(suite, time)| format!("{suite} {}", time.as_secs())).collect();
            writeln!(formatter, "  {:<9} {ran} ran, {passed} passed in {total} s ({})", cluster.name(), times.join(", "))?;
        }
        writeln!(formatter)
    }
}
