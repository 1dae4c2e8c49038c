//! What is asked for, once the arguments are checked.

use crate::args::Args;
use crate::setup::Setup;
use devloop_core::args::ClusterArgs;
use devloop_core::error::{ErrorContext, ErrorHint};
use devloop_core::logs::LogOptions;
use devloop_core::target::Target;
use devloop_core::{CommandError, Result};
use jiff::SignedDuration;

/// A valid request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) targets: Vec<Target>,
    pub(crate) options: LogOptions,
    pub(crate) follow: bool,
    /// Lines come from standard input, not from a cluster.
    pub(crate) reads_stdin: bool,
    /// What comes is looked through on the whole screen.
    pub(crate) has_screen: bool,
    pub(crate) setup: Setup,
    pub(crate) cluster: ClusterArgs,
}

impl Request {
    /// `template` is what the template's file holds, `colors` whether stdout
    /// shows colours.
    pub(crate) fn new(args: Args, template: Option<&str>, colors: bool) -> Result<Self> {
        let mut targets = Vec::new();
        for text in &args.choose.targets {
            let target = text.parse::<Target>().map_err(|error| CommandError::usage(error.to_string()))?;
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets.extend(args.choose.selector.map(Target::Selector));
        let since = args.range.since.as_deref().map(parse_since).transpose()?;
        Ok(Self {
            targets,
            options: LogOptions { containers: args.choose.containers, since, tail: args.range.tail, previous: args.range.previous },
            follow: !(args.range.no_follow || args.range.previous),
            reads_stdin: args.lines.stdin,
            has_screen: args.output.ui,
            setup: Setup::new(&args.lines, &args.output, template, colors)?,
            cluster: args.cluster,
        })
    }
}

fn parse_since(text: &str) -> Result<SignedDuration> {
    let wrong = || CommandError::usage(format!("--since {text:?} is not a duration"));
    let duration = text.parse::<SignedDuration>().map_err(|error| wrong().caused_by(error)).hint("write it like 30s, 5m or 1h30m")?;
    if duration < SignedDuration::from_secs(1) {
        return Err(CommandError::usage(format!("--since {text:?} is less than a second"))).context("the API counts whole seconds");
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn request(arguments: &str) -> Result<Request> {
        Request::new(Args::try_parse_from(std::iter::once("kubectl-logs_tail").chain(arguments.split(' '))).unwrap(), None, false)
    }

    #[test]
    fn arguments_become_a_request() {
        let request = request("web sts/db web --since 1h30m --tail 5 -c app -c proxy -t -o json").unwrap();
        assert_eq!(request.targets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["deployment/web", "statefulset/db"]);
        assert_eq!(request.options.since, Some(SignedDuration::from_mins(90)));
        assert_eq!(request.options.containers, ["app", "proxy"]);
        assert!(request.follow && !request.reads_stdin);
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for arguments in ["web --since soon", "web --since 0s", "web --since -5m", "node/a"] {
            let arguments = arguments.replace("--since -", "--since=-");
            assert_eq!(request(&arguments).unwrap_err().status().code(), 2, "{arguments}");
        }
        for arguments in [vec!["x"], vec!["x", "web", "-l", "a=b"], vec!["x", "web", "--tail", "-1"]] {
            assert!(Args::try_parse_from(&arguments).is_err(), "{arguments:?}");
        }
        assert!(!request("web --previous").unwrap().follow);
    }
}
