//! What the user asks for.

use crate::args::Args;
use crate::destination::Wishes;
use devloop_core::args::ClusterArgs;
use devloop_core::build::Platform;
use devloop_core::deploy::HelmCluster;
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
    /// What images are to be for, each once; what they are for by themselves when
    /// empty.
    pub(crate) platforms: Vec<Platform>,
    pub(crate) conflicts: Conflicts,
    pub(crate) leftovers: Leftovers,
    pub(crate) on_failure: OnFailure,
    pub(crate) timeline: Timeline,
    pub(crate) format: Format,
}

/// Whether the cluster is changed, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Change,
    /// Again and again, as files are saved.
    Watch,
    DryRun,
    Diff,
}

/// What becomes of fields that someone else manages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflicts {
    Refuse,
    Force,
}

/// What becomes of objects that the project no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// They are told of.
    Tell,
    Prune,
}

/// What becomes of a rollout that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Leave,
    RollBack,
}

/// Whether times are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeline {
    Hide,
    Print,
}

impl Request {
    pub(crate) fn new(args: Args) -> Result<Self> {
        let mode = match (args.watch, args.dry_run, args.diff) {
            (true, ..) => Mode::Watch,
            (_, true, _) => Mode::DryRun,
            (.., true) => Mode::Diff,
            _ => Mode::Change,
        };
        Ok(Self {
            services: args.services,
            file: args.file,
            start: std::env::current_dir().context("could not find out the working directory")?,
            cluster: args.cluster,
            wishes: Wishes { via: args.via.via, push: args.push, insecure: args.insecure_registry }.check()?,
            timeout: duration("--timeout", &args.timeout)?,
            mode,
            platforms: platforms(&args.platform)?,
            conflicts: if args.force_conflicts { Conflicts::Force } else { Conflicts::Refuse },
            leftovers: if args.prune { Leftovers::Prune } else { Leftovers::Tell },
            on_failure: if args.rollback { OnFailure::RollBack } else { OnFailure::Leave },
            timeline: if args.print_timeline { Timeline::Print } else { Timeline::Hide },
            format: args.output.output,
        })
    }

    /// What charts are told about the cluster.
    pub(crate) fn helm_cluster(&self) -> HelmCluster {
        let ClusterArgs { kubeconfig, context, namespace } = self.cluster.clone();
        HelmCluster { namespace, kubeconfig, context }
    }

    /// Whether it takes all manifests of the project, so that what none of them
    /// has can be told.
    pub(crate) fn needs_whole_project(&self) -> bool {
        self.services.is_empty() || self.leftovers == Leftovers::Prune
    }
}

fn platforms(named: &[String]) -> Result<Vec<Platform>> {
    let mut platforms = Vec::new();
    for text in named {
        let platform = Platform::parse(text.trim())?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
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
    fn a_platform_counts_once() {
        let read = |named: &[&str]| platforms(&named.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let found = read(&["linux/arm64", " linux/amd64", "arm64", "linux/arm64/v8"]).unwrap();
        assert_eq!(found.iter().map(Platform::architecture).collect::<Vec<_>>(), ["arm64", "amd64"]);
        assert_eq!(read(&[]).unwrap(), []);
        assert_eq!(read(&["linux/amd64", ""]).unwrap_err().status().code(), 2);
    }

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
