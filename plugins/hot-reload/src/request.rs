//! What was asked for, checked.

use crate::args::{Args, OutputForm};
use crate::work::Leaving;
use devloop_core::args::{ClusterArgs, Via};
use devloop_core::{CommandError, ErrorContext, Result};
use std::path::PathBuf;

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Names of services or their targets; all for none.
    pub(crate) services: Vec<String>,
    pub(crate) file: Option<PathBuf>,
    /// Where the search for the project file begins.
    pub(crate) start: PathBuf,
    pub(crate) build: bool,
    /// What becomes of the changed pods at the end.
    pub(crate) leaving: Leaving,
    pub(crate) probe: Option<ProbeRequest>,
    pub(crate) output: OutputForm,
    pub(crate) cluster: ClusterArgs,
    /// The way to the containers.
    pub(crate) via: Via,
    /// An image of the agent that the nodes can pull.
    pub(crate) agent_image: Option<String>,
}

/// How to find out whether a change is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeRequest {
    pub(crate) path: String,
    /// The service's first port when absent.
    pub(crate) port: Option<u16>,
}

impl Request {
    pub(crate) fn new(args: Args) -> Result<Self> {
        let probe = args.probe_path.map(|path| check_path(path).map(|path| ProbeRequest { path, port: args.probe_port })).transpose()?;
        Ok(Self {
            services: args.services,
            file: args.file,
            start: std::env::current_dir().context("could not find out the working directory")?,
            build: !args.no_build,
            leaving: if args.keep { Leaving::Keep } else { Leaving::Undo },
            probe,
            output: args.output,
            cluster: args.cluster,
            via: args.via.via,
            agent_image: args.agent_image.filter(|image| !image.is_empty()),
        })
    }
}

fn check_path(path: String) -> Result<String> {
    if !path.starts_with('/') || path.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err(CommandError::usage(format!("probe path {path:?} is not an absolute path of a URL"))
            .with_hint("for example --probe-path /healthz"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_path_can_not_smuggle_headers() {
        assert!(check_path("/healthz?full=1".to_owned()).is_ok());
        for path in ["healthz", "/a b", "/a\r\nX: y", ""] {
            assert_eq!(check_path(path.to_owned()).unwrap_err().status().code(), 2, "{path:?}");
        }
    }
}
