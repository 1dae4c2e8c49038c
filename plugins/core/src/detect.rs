//! What a service is made of, worked out where no devloop.yaml says it: from
//! its Dockerfile, else from what runs in the container and what the project's
//! folder holds.
//!
//! [`look`] gathers what there is here; [`detect`] decides, without IO, and
//! gives a reason for each thing that it decided. What could be one thing or
//! another is an error that lists both, never a guess.

mod argv;
mod artifact;
mod choose;
mod dockerfile;
mod dockerfiles;
mod gather;
mod gomod;
mod image;
mod local;
mod paths;
mod process;
mod recipe;
mod runtime;
mod yaml;

pub(crate) use dockerfile::{base_images, instructions};
pub use dockerfiles::{FoundDockerfile, dockerfiles};
pub use gather::look;
pub use local::{CargoBinary, GoMain, Local};
pub use runtime::{Runtime, guess_action, guess_for, runtime_of};
pub use yaml::render_yaml;

use crate::error::CommandError;
use crate::project::{Build, DeploySpec, FILE_NAME, ReloadAction, ReloadRule, RestartSpec, Service, SyncRule};
use crate::target::Target;
use std::path::PathBuf;

/// What runs in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// What was asked for.
    pub target: Target,
    /// The container.
    pub container: String,
    /// Its image, as the pod names it.
    pub image: String,
    /// `command` of its specification.
    pub command: Vec<String>,
    /// `args` of its specification.
    pub args: Vec<String>,
    /// `workingDir` of its specification.
    pub working_dir: Option<String>,
    /// The process that runs in it, where it was looked at.
    pub process: Option<RemoteProcess>,
}

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteProcess {
    /// The path of its program, as the container sees it.
    pub executable: String,
    /// Its arguments, the program's name first.
    pub argv: Vec<String>,
    /// Its working directory, as the container sees it.
    pub cwd: String,
    /// The arguments of the container's first process.
    pub main_argv: Vec<String>,
}

#[cfg(test)]
impl Remote {
    /// A container of which only the image is known.
    fn of(image: &str, target: &str) -> Self {
        Self {
            target: target.parse().unwrap(),
            container: "app".to_owned(),
            image: image.to_owned(),
            command: Vec::new(),
            args: Vec::new(),
            working_dir: None,
            process: None,
        }
    }
}

/// A service, and why it is described so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// What a devloop.yaml would say. It has no image: somebody else makes it.
    pub service: Service,
    /// In the order in which they were found.
    pub reasons: Vec<Reason>,
}

/// Why something was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What was decided: `sync: static -> /srv/static`.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Reason {
    fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }
}

/// Why a service could not be worked out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// There are several answers.
    #[error("could not tell {what}")]
    Ambiguous {
        /// The question.
        what: String,
        /// The answers, at least two.
        choices: Vec<String>,
        /// How to choose.
        advice: String,
    },
    /// The Dockerfile can't be read.
    #[error("{}:{line}: {message}", path.display())]
    Dockerfile {
        /// The file, relative to the root.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Nothing here fits what runs there.
    #[error("could not tell which files here belong to the container")]
    Nothing {
        /// What was looked at, and what came of it.
        looked_at: Vec<String>,
        /// What could be written instead.
        example: String,
    },
}

impl From<DetectError> for CommandError {
    fn from(error: DetectError) -> Self {
        let message = error.to_string();
        match error {
            DetectError::Ambiguous { choices, advice, .. } => {
                Self::usage(message).caused_by(format!("there are several: {}", choices.join("; "))).with_hint(advice)
            }
            DetectError::Dockerfile { .. } => {
                Self::usage(message).with_hint(format!("correct the Dockerfile, or write a {FILE_NAME}, which is asked first"))
            }
            DetectError::Nothing { looked_at, example } => Self::usage(message)
                .caused_by(format!("looked at:\n- {}", looked_at.join("\n- ")))
                .with_hint(format!("say it in a {FILE_NAME}; for example:\n{}", example.trim_end())),
        }
    }
}

/// What was found by one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    /// The program's build, and where it is in the container.
    build: Option<(Build, String)>,
    sync: Vec<SyncRule>,
    reasons: Vec<Reason>,
}

/// Works a service out.
///
/// # Errors
/// [`DetectError`]: several answers, none, or a Dockerfile that can't be read.
pub fn detect(local: &Local, remote: &Remote) -> Result<Detected, DetectError> {
    let mut looked_at: Vec<String> = local.unseen.clone();
    let specified = || process::from_spec(&remote.command, &remote.args, remote.working_dir.as_deref());
    let mut process = remote.process.clone().or_else(specified);
    let mut found = None;
    match choose::choose(local, remote)? {
        None => looked_at.push(format!("there is no Dockerfile in {}", local.root.display())),
        Some(chosen) => {
            let read = recipe::read(local, remote, &chosen)?;
            process = read.process;
            if read.found.build.is_some() || !read.found.sync.is_empty() {
                found = Some(read.found);
            } else {
                looked_at.push(format!("{}: nothing of the project goes into the image as it is", chosen.path.display()));
                looked_at.extend(read.found.reasons.iter().map(|reason| format!("{}: {}", reason.what, reason.why)));
            }
        }
    }
    if found.is_none()
        && let Some(process) = &process
    {
        found = process::find(local, process).map_err(|error| with_context(error, &looked_at, remote))?;
        looked_at.push(format!("the container runs {}: no file or program here fits it", said(process)));
    }
    if process.is_none() {
        looked_at.push(format!("what the container {:?} runs is not known", remote.container));
    }
    match found {
        Some(found) => Ok(assemble(local, remote, found, process.as_ref())),
        None => Err(DetectError::Nothing { looked_at, example: example(remote) }),
    }
}

fn said(process: &RemoteProcess) -> String {
    let arguments = process.argv.join(" ");
    if arguments.is_empty() { process.executable.clone() } else { format!("{} ({arguments})", process.executable) }
}

/// Adds what was looked at before.
fn with_context(error: DetectError, earlier: &[String], remote: &Remote) -> DetectError {
    match error {
        DetectError::Nothing { looked_at, .. } => {
            DetectError::Nothing { looked_at: earlier.iter().cloned().chain(looked_at).collect(), example: example(remote) }
        }
        other => other,
    }
}

fn assemble(local: &Local, remote: &Remote, found: Found, process: Option<&RemoteProcess>) -> Detected {
    let mut reasons = vec![Reason::new(format!("container: {}", remote.container), format!("it runs the image {}", remote.image))];
    reasons.extend(found.reasons.iter().cloned());
    let mut reload = Vec::new();
    if let Some(process) = process.filter(|_| !found.sync.is_empty()) {
        for (rule, why) in reload_rules(local, process, &found) {
            reasons.push(Reason::new(what_reload(&rule), why));
            reload.push(rule);
        }
    }
    let (build, binary) = found.build.unzip();
    let service = Service {
        name: service_name(remote),
        build,
        image: None,
        binary,
        sync: found.sync,
        reload,
        restart: RestartSpec::default(),
        deploy: DeploySpec::of(remote.target.clone(), Some(remote.container.clone())),
    };
    Detected { service, reasons }
}

fn service_name(remote: &Remote) -> String {
    match &remote.target {
        Target::Object { name, .. } => name.clone(),
        Target::Selector(_) => remote.container.clone(),
    }
}

/// What [`guess_for`] does, in writing.
fn reload_rules(local: &Local, process: &RemoteProcess, found: &Found) -> Vec<(ReloadRule, String)> {
    let runtime = runtime_of(&process.executable, &process.argv);
    let mut rules: Vec<(ReloadRule, String)> = Vec::new();
    for rule in &found.sync {
        for path in program_files(process) {
            let Some(file) = local_file(local, rule, &path) else { continue };
            let is_program = guess_for(process, &path) == ReloadAction::Restart || path == process.executable;
            if is_program && guess_action(runtime, &path) == ReloadAction::None {
                let rule = ReloadRule { on: vec![format!("/{}", file.display())], action: ReloadAction::Restart };
                rules.push((rule, format!("it is {path}, which runs: {}", said(process))));
            }
        }
    }
    rules.extend(runtime::rules_of(runtime).map(|rule| (rule, format!("the container runs {}", process.executable))));
    rules.dedup();
    rules
}

/// The program, and what its arguments may name, as paths of the container.
fn program_files(process: &RemoteProcess) -> Vec<String> {
    let arguments = process.argv.iter().skip(1).filter(|argument| !argument.starts_with('-'));
    arguments.chain([&process.executable]).map(|path| paths::join(&process.cwd, path)).collect()
}

/// The local file that a rule keeps the same as a file of the container.
fn local_file(local: &Local, rule: &SyncRule, path: &str) -> Option<PathBuf> {
    let rest = paths::below(path, &rule.to)?;
    let folder: PathBuf = rule.from.iter().filter(|part| *part != ".").collect();
    let file = if rest.is_empty() { folder } else { folder.join(rest) };
    local.files.contains(&file).then_some(file)
}

/// A devloop.yaml for somebody who knows better.
fn example(remote: &Remote) -> String {
    let rule = SyncRule { from: PathBuf::from("src"), to: "/app/src".to_owned(), ignore: Vec::new() };
    let service = Service {
        name: service_name(remote),
        build: None,
        image: None,
        binary: None,
        reload: vec![ReloadRule { on: Vec::new(), action: ReloadAction::Restart }],
        sync: vec![rule],
        restart: RestartSpec::default(),
        deploy: DeploySpec::of(remote.target.clone(), Some(remote.container.clone())),
    };
    yaml::plain(&service)
}

fn what_build(build: &Build) -> String {
    match build {
        Build::Cargo(cargo) => format!("build: cargo, binary {} of package {}", cargo.binary, cargo.package),
        Build::Go(go) => {
            format!("build: go, package {} in {}", go.package, go.folder.as_deref().map_or_else(|| ".".to_owned(), local::shown))
        }
        Build::Command(command) => format!("build: {}", command.run.join(" ")),
        Build::Dockerfile(dockerfile) => format!("build: {}", dockerfile.file().display()),
        Build::Node(_) | Build::Python(_) => "build: dependencies by the lock file".to_owned(),
    }
}

fn what_binary(path: &str) -> String {
    format!("binary: {path}")
}

fn what_sync(rule: &SyncRule) -> String {
    format!("sync: {} -> {}", rule.from.display(), rule.to)
}

fn what_reload(rule: &ReloadRule) -> String {
    let action = match &rule.action {
        ReloadAction::None => "none".to_owned(),
        ReloadAction::Restart => "restart".to_owned(),
        ReloadAction::Signal(name) => format!("signal {name}"),
        ReloadAction::Http(call) => format!("{} :{}{}", call.method, call.port, call.path),
        ReloadAction::Exec(words) => words.join(" "),
    };
    let on = if rule.on.is_empty() { "all files".to_owned() } else { rule.on.join(" ") };
    format!("reload: {on} -> {action}")
}

#[cfg(test)]
mod tests;
