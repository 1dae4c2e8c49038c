//! What the user asks for.

use crate::args::Args;
use crate::destination::Wishes;
use devloop_core::args::ClusterArgs;
use devloop_core::output::Format;
use devloop_core::{CommandError, ErrorContext, Result};
use std::path::PathBuf;
use std::time::Duration;

/// A validated request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Names of services; all when empty.
    pub(crate) services: Vec<String>,
    /// The project file, if it was named.
    pub(crate) file: Option<PathBuf>,
    /// Where to look for it otherwise.
    pub(crate) start: PathBuf,
    pub(crate) cluster: ClusterArgs,
    /// Where images are to go.
    pub(crate) wishes: Wishes,
    /// For the pods of each service.
    pub(crate) timeout: Duration,
    pub(crate) mode: Mode,
    pub(crate) conflicts: Conflicts,
    pub(crate) timeline: Timeline,
    pub(crate) format: Format,
}

/// Whether the cluster is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Change,
    DryRun,
}

/// What becomes of fields that someone else manages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflicts {
    Refuse,
    Force,
}

/// Whether times are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeline {
    Hide,
    Print,
}

impl Request {
    pub(crate) fn new(args: Args) -> Result<Self> {
        Ok(Self {
            services: args.services,
            file: args.file,
            start: std::env::current_dir().context("could not find out the working directory")?,
            cluster: args.cluster,
            wishes: Wishes { via: args.via.via, push: args.push, insecure: args.insecure_registry }.check()?,
            timeout: duration("--timeout", &args.timeout)?,
            mode: if args.dry_run { Mode::DryRun } else { Mode::Change },
            conflicts: if args.force_conflicts { Conflicts::Force } else { Conflicts::Refuse },
            timeline: if args.print_timeline { Timeline::Print } else { Timeline::Hide },
            format: args.output.output,
        })
    }
}

/// Reads the value of a flag.
pub(crate) fn duration(flag: &str, text: &str) -> Result<Duration> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.filter(|duration| !duration.is_zero()).ok_or_else(|| {
        CommandError::usage(format!("{text:?} is not a duration for {flag}")).with_hint("write a number and a unit, as in 90s, 2m or 1h30m")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_are_not_zero() {
        assert_eq!(duration("--timeout", "120s").unwrap(), Duration::from_secs(120));
        assert_eq!(duration("--timeout", "1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("--timeout", "500ms").unwrap(), Duration::from_millis(500));
        for text in ["", "120", "0s", "-1s", "soon"] {
            assert_eq!(duration("--timeout", text).unwrap_err().status().code(), 2, "{text}");
        }
    }
}
