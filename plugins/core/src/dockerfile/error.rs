//! Why a Dockerfile gives no image, said with the line that it is about.

use super::context::ContextError;
use super::ignore::BadPattern;
use super::progress::Failure;
use crate::detect::instructions;
use crate::docker::DockerError;
use crate::error::CommandError;
use std::io;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum DockerfileError {
    /// There is no such file.
    #[error("there is no Dockerfile at {}", path.display())]
    NoDockerfile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is no such folder.
    #[error("the build's context {} is no folder", path.display())]
    NoContext {
        /// It.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The patterns of what is ignored can't be used.
    #[error("{}: {source}", path.display())]
    Ignore {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BadPattern,
    },
    /// The context can't be sent.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A mistake in the Dockerfile.
    #[error("{}:{line}: {message}\n\n{}", path.display(), quoted(*line, text))]
    Syntax {
        /// The Dockerfile, as the project calls it.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// A step failed.
    #[error("{}", told(.at, step, reason, said))]
    Step {
        /// The Dockerfile and the line, where it is known.
        at: Option<(PathBuf, usize)>,
        /// As the builder calls it.
        step: String,
        /// Why.
        reason: String,
        /// The last lines that it said.
        said: Vec<String>,
    },
    /// The builder refused for another reason.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The Dockerfile.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// BuildKit isn't there, and the build can't do without.
    #[error("{what} in the build of a Dockerfile takes BuildKit, which {builder} does not have")]
    NeedsBuildKit {
        /// What it is needed for.
        what: &'static str,
        /// Who doesn't have it.
        builder: String,
    },
    /// No connection, or it broke.
    #[error("could not build with {builder}")]
    Connection {
        /// Who was to build.
        builder: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] DockerError),
    /// What is needed for a build is not there.
    #[error("{0}")]
    Missing(String),
}

impl DockerfileError {
    pub(super) fn connection(builder: impl Into<String>) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        let builder = builder.into();
        |source| Self::Connection { builder, source }
    }
}

impl From<DockerfileError> for CommandError {
    fn from(error: DockerfileError) -> Self {
        let message = error.to_string();
        match error {
            DockerfileError::Engine(error) => error.into(),
            DockerfileError::Read { source, .. } | DockerfileError::Context(ContextError::Read { source, .. }) => {
                Self::new(message).caused_by(source)
            }
            DockerfileError::Connection { source, .. } => Self::new(message)
                .caused_by(Self::new(chain(source.as_ref())))
                .with_hint("see whether it runs, and is reached from here by what `build.dockerfile.builder` or DOCKER_HOST says"),
            DockerfileError::Context(ContextError::Refused { .. }) => {
                Self::new(message).with_hint("name it in .dockerignore if the build can do without it")
            }
            DockerfileError::NoDockerfile { .. } | DockerfileError::NoContext { .. } => {
                Self::usage(message).with_hint("`build.dockerfile` has `file` and `context`, both relative to devloop.yaml")
            }
            DockerfileError::NeedsBuildKit { .. } => Self::usage(message).with_hint(
                "install Docker 20.10 or newer, unset DOCKER_BUILDKIT, or name a BuildKit daemon with `build.dockerfile.builder`",
            ),
            _ => Self::new(message),
        }
    }
}

/// What an error says, with what it was caused by where that says more.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if said.iter().all(|known| !known.contains(&text)) {
            said.push(text);
        }
        source = error.source();
    }
    said.join(": ")
}

fn quoted(line: usize, text: &str) -> String {
    format!("  {line} | {text}")
}

fn told(at: &Option<(PathBuf, usize)>, step: &str, reason: &str, said: &[String]) -> String {
    let place = at.as_ref().map(|(path, line)| format!("{}:{line}: ", path.display())).unwrap_or_default();
    let lines: String = said.iter().map(|line| format!("\n  {line}")).collect();
    let gap = if lines.is_empty() { "" } else { "\n" };
    format!("{place}{step} failed: {reason}{gap}{lines}")
}

/// What the builder's words mean. Pure.
pub(super) fn explain(path: &Path, dockerfile: &str, message: &str, failure: Option<Failure>) -> DockerfileError {
    let reason = without_preamble(message);
    if let Some((line, wrong)) = syntax(reason) {
        let text = dockerfile.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim_end().to_owned();
        return DockerfileError::Syntax { path: path.to_owned(), line, text, message: wrong.to_owned() };
    }
    let own = |failure: &Failure| failure.step.starts_with('[') && !failure.step.starts_with("[internal] load build definition");
    match failure.filter(own) {
        Some(failure) => {
            let at = line_of(dockerfile, &failure.step).map(|line| (path.to_owned(), line));
            let reason = exit_of(&failure.error).unwrap_or_else(|| without_preamble(&failure.error).to_owned());
            DockerfileError::Step { at, step: failure.step, reason, said: failure.said }
        }
        None => DockerfileError::Refused { path: path.to_owned(), reason: reason.to_owned() },
    }
}

/// The builder says first what it was doing, several times over.
fn without_preamble(message: &str) -> &str {
    const PREAMBLES: [&str; 5] = [
        "failed to solve with frontend dockerfile.v0: ",
        "failed to solve with frontend gateway.v0: ",
        "failed to solve: ",
        "failed to create LLB definition: ",
        "rpc error: code = Unknown desc = ",
    ];
    let mut message = message.trim();
    // BuildKit's own name for a state of the files says nothing to anybody.
    if let Some((_, rest)) = message.split_once("failed to calculate checksum of ref ")
        && let Some((_, rest)) = rest.split_once(": \"")
    {
        return &message[message.len() - rest.len() - 1..];
    }
    while let Some(rest) = PREAMBLES.iter().find_map(|preamble| message.strip_prefix(preamble)) {
        message = rest;
    }
    message
}

/// `dockerfile parse error line 2: unknown instruction: FRMO`, in the words of
/// several years.
fn syntax(message: &str) -> Option<(usize, &str)> {
    let (_, rest) = ["parse error on line ", "parse error line ", "Syntax error - can't find = in ", "parse error at line "]
        .iter()
        .find_map(|words| message.split_once(words))?;
    let (line, wrong) = rest.split_once(':')?;
    Some((line.trim().parse().ok()?, wrong.trim()))
}

/// `exit code: 3` of `process "/bin/sh -c x" did not complete successfully: exit code: 3`.
fn exit_of(error: &str) -> Option<String> {
    let at = error.rfind("exit code: ")?;
    Some(error[at..].lines().next()?.replace("exit code: ", "exit code "))
}

/// The line of a step such as `[build 2/3] RUN make`.
fn line_of(dockerfile: &str, step: &str) -> Option<usize> {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted = squeezed(step.split_once("] ").map_or(step, |(_, text)| text));
    let lines = instructions(dockerfile);
    let mut fitting = lines.iter().filter(|(_, text)| squeezed(text) == wanted);
    // Two that read the same can't be told apart.
    let first = fitting.next()?;
    fitting.next().is_none().then_some(first.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERFILE: &str = "# comment\nFROM scratch AS a\nRUN make \\\n  all\nCOPY x /\nCOPY y /\nCOPY y /\n";

    fn said(message: &str, failure: Option<(&str, &str)>) -> String {
        let failure =
            failure.map(|(step, error)| Failure { step: step.into(), error: error.into(), said: vec!["one".into(), "two".into()] });
        let error = explain(Path::new("web/Dockerfile"), DOCKERFILE, message, failure);
        CommandError::from(error).chain().join("\n")
    }

    #[test]
    fn mistakes_are_shown_with_their_line() {
        insta::assert_snapshot!(said("failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error line 5: unknown instruction: COYP", None), @r"
        web/Dockerfile:5: unknown instruction: COYP

          5 | COPY x /
        ");
        insta::assert_snapshot!(said("dockerfile parse error on line 2: FROM requires either one or three arguments", None), @r"
        web/Dockerfile:2: FROM requires either one or three arguments

          2 | FROM scratch AS a
        ");
        insta::assert_snapshot!(said("target stage \"run\" could not be found", None), @r#"web/Dockerfile: target stage "run" could not be found"#);
    }

    #[test]
    fn a_failing_step_is_shown_with_its_last_words() {
        let message = "failed to solve: process \"/bin/sh -c make   all\" did not complete successfully: exit code: 2";
        insta::assert_snapshot!(said(message, Some(("[a 2/3] RUN make   all", "executor failed running [/bin/sh -c make   all]: exit code: 2"))), @r"
        web/Dockerfile:3: [a 2/3] RUN make   all failed: exit code 2

          one
          two
        ");
        assert_eq!(
            without_preamble("failed to compute cache key: failed to calculate checksum of ref a::b: \"/y\": not found"),
            "\"/y\": not found"
        );
        insta::assert_snapshot!(said("x", Some(("[3/3] COPY y /", "failed to compute cache key: \"/y\" not found: not found"))), @r#"
        [3/3] COPY y / failed: failed to compute cache key: "/y" not found: not found

          one
          two
        "#);
        insta::assert_snapshot!(said("failed to solve: pull access denied", Some(("exporting to image", "x"))), @"web/Dockerfile: pull access denied");
    }
}
