//! What the user asked for, checked: nothing after this sees clap.

use crate::args::{Command, ProviderArg};
use devloop_core::error::{CommandError, ErrorHint, Result};
use devloop_core::output::Format;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The name of an environment: a DNS label (RFC 1123) of at most 32 characters,
/// since it becomes part of host, interface and context names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvironmentName(String);

impl EnvironmentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for EnvironmentName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for EnvironmentName {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=32).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(CommandError::usage(format!("{text:?} can't be the name of an environment")))
            .hint("use 1 to 32 lower-case letters, digits and dashes, with a letter or digit at both ends")
    }
}

/// Which engine is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderChoice {
    /// The best one that is there.
    Auto,
    /// The embedded engine.
    Embedded,
}

/// One checked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Bring an environment up.
    Up(UpRequest),
    /// Take environments down.
    Down {
        /// Which.
        which: Which,
        /// Whether the state is kept.
        keep: bool,
    },
    /// Show environments.
    Status {
        /// Which.
        which: Which,
        /// In which form.
        output: Format,
    },
    /// Show a component's log.
    Logs(LogsRequest),
    /// Put an image archive on the node.
    Load {
        /// The environment.
        name: EnvironmentName,
        /// The archive.
        archive: PathBuf,
    },
    /// Print the kubeconfig.
    Kubeconfig {
        /// The environment.
        name: EnvironmentName,
    },
    /// Build the node's programs.
    Build {
        /// kubectl, too.
        with_kubectl: bool,
    },
}

/// One environment or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one.
    One(EnvironmentName),
    /// All there are.
    All,
}

/// What `up` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpRequest {
    /// The environment.
    pub name: EnvironmentName,
    /// The engine.
    pub provider: ProviderChoice,
    /// The API's port on loopback, if it matters.
    pub api_port: Option<u16>,
    /// How long to wait for readiness.
    pub timeout: Duration,
    /// The form of the result.
    pub output: Format,
}

/// Which log, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsRequest {
    /// The environment.
    pub name: EnvironmentName,
    /// The component's name.
    pub component: String,
    /// Go on as it grows.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
}

impl TryFrom<Command> for Request {
    type Error = CommandError;

    fn try_from(command: Command) -> Result<Self> {
        Ok(match command {
            Command::Up { name, provider, api_port, timeout, output } => {
                if api_port == Some(0) {
                    return Err(CommandError::usage("--api-port 0 is not a port"));
                }
                let provider = choose(provider)?;
                Self::Up(UpRequest {
                    name: name.name.parse()?,
                    provider,
                    api_port,
                    timeout: Duration::from_secs(timeout.max(1)),
                    output: output.output,
                })
            }
            Command::Down { all: true, .. } => Self::Down { which: Which::All, keep: false },
            Command::Down { name, keep, .. } => Self::Down { which: Which::One(name.name.parse()?), keep },
            Command::Status { name, output } => {
                let which = name.map_or(Ok(Which::All), |name| name.parse().map(Which::One))?;
                Self::Status { which, output: output.output }
            }
            Command::Logs { component, name, follow, tail } => {
                Self::Logs(LogsRequest { name: name.name.parse()?, component, follow, tail })
            }
            Command::Load { archive, name } => Self::Load { name: name.name.parse()?, archive },
            Command::Kubeconfig { name } => Self::Kubeconfig { name: name.name.parse()? },
            Command::Build { with_kubectl } => Self::Build { with_kubectl },
        })
    }
}

fn choose(provider: ProviderArg) -> Result<ProviderChoice> {
    let missing = |name: &str| {
        Err(CommandError::usage(format!("provider {name:?} is not there yet")))
            .hint("use `--provider embedded`: real Kubernetes on this machine, without Docker")
    };
    match provider {
        ProviderArg::Auto => Ok(ProviderChoice::Auto),
        ProviderArg::Embedded => Ok(ProviderChoice::Embedded),
        ProviderArg::Kind => missing("kind"),
        ProviderArg::Context => missing("context"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["default", "a", "team-1", &"x".repeat(32)] {
            assert!(good.parse::<EnvironmentName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a_b", "a/b", "../x", &"x".repeat(33)] {
            let error = bad.parse::<EnvironmentName>().unwrap_err();
            assert_eq!(error.status().code(), 2, "{bad}");
        }
    }
}
