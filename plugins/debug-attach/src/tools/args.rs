//! What is looked at without a debugger, from the command line.

use clap::Args;
use devloop_core::{CommandError, Result};
use k8s_openapi::jiff::SignedDuration;
use std::path::PathBuf;
use std::time::Duration;

/// The arguments about a debugger.
const DEBUGGER: [&str; 6] = ["list", "cli", "dap_stdio", "open", "port", "trace"];
/// The longest profile.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is looked at without a debugger.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Without a debugger")]
pub struct LookArgs {
    /// Write a core file of the process, which runs on [default file: core.POD.PID]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, group = "look", conflicts_with_all = DEBUGGER)]
    pub core: Option<Option<PathBuf>>,
    /// Show where all threads, or goroutines, are
    #[arg(long, group = "look", conflicts_with_all = DEBUGGER)]
    pub snapshot: bool,
    /// See where it spends its processor time, for so long: a profile for pprof, and a flame graph
    #[arg(long, value_name = "DURATION", group = "look", conflicts_with_all = DEBUGGER)]
    pub profile: Option<String>,
    /// Open a shell in the process's namespaces with the tools of busybox and the process's files in target, or run COMMAND there
    #[arg(long, group = "look", conflicts_with_all = DEBUGGER)]
    pub shell: bool,
    /// What to run in place of the shell
    #[arg(last = true, value_name = "COMMAND", requires = "shell")]
    pub command: Vec<String>,
    /// Where a profile goes: FILE.pb.gz and FILE.svg [default: profile.POD.PID]
    #[arg(long, value_name = "FILE", requires = "profile")]
    pub out: Option<PathBuf>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A core file.
    Core { file: Option<PathBuf> },
    /// Stacks.
    Snapshot,
    /// Processor time.
    Profile { duration: Duration, out: Option<PathBuf> },
    /// A toolbox; without a command its shell.
    Shell { command: Vec<String> },
}

impl Look {
    /// Understands the arguments; `None` where a debugger is asked for.
    ///
    /// # Errors
    /// When a duration is none.
    pub(crate) fn new(args: LookArgs) -> Result<Option<Self>> {
        Ok(match args {
            LookArgs { core: Some(file), .. } => Some(Self::Core { file }),
            LookArgs { snapshot: true, .. } => Some(Self::Snapshot),
            LookArgs { shell: true, command, .. } => Some(Self::Shell { command }),
            LookArgs { profile: Some(text), out, .. } => Some(Self::Profile { duration: duration(&text)?, out }),
            _ => None,
        })
    }

    /// For `--dry-run`.
    pub(crate) fn preview(&self) -> String {
        match self {
            Self::Shell { .. } => "would run busybox in the process's namespaces; the process itself is left alone",
            Self::Core { .. } => "would stop the process while its memory is copied, and write the copy here",
            Self::Snapshot => "would stop the process for a moment, to see where its threads are",
            Self::Profile { .. } => {
                "would sample the process by perf events, which don't stop it, or where these are not allowed by stopping its threads for moments"
            }
        }
        .to_owned()
    }
}

/// Such as `10s`, `500ms` or `2m`.
fn duration(text: &str) -> Result<Duration> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.filter(|duration| !duration.is_zero() && *duration <= LONGEST).ok_or_else(|| {
        CommandError::usage(format!("{text:?} is not a duration for --profile"))
            .with_hint("write a number and a unit, as in 10s, 500ms or 2m, up to an hour")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for text in ["", "10", "0s", "-1s", "2h", "61m", "soon"] {
            assert_eq!(duration(text).unwrap_err().status().code(), 2, "{text}");
        }
    }
}
