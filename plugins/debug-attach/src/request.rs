//! What was asked for, checked.

use crate::args::{Args, EditorArg};
use crate::tools::args::Look;
use devloop_core::args::{ClusterArgs, Via};
use devloop_core::output::Format;
use devloop_core::target::Target;
use devloop_core::{CommandError, ErrorContext, Result};
use std::path::PathBuf;

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) pod: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) aim: Aim,
    /// The functions whose calls are told.
    pub(crate) trace: Vec<String>,
    /// What is looked at without a debugger, in place of that.
    pub(crate) look: Option<Look>,
    pub(crate) dry_run: bool,
    /// Whether pods may be started again for the debugger.
    pub(crate) restart: bool,
    /// Whether they are started again without probes that would end a stopped process.
    pub(crate) pause_probes: bool,
    /// Whether it ends with the process.
    pub(crate) once: bool,
    pub(crate) output: Format,
    pub(crate) port: Option<u16>,
    pub(crate) editor: EditorArg,
    pub(crate) open: bool,
    /// Where the search for sources begins.
    pub(crate) folder: PathBuf,
    /// Whether that was named, so that it must be there.
    pub(crate) folder_is_named: bool,
    pub(crate) symbols: Option<PathBuf>,
    pub(crate) cluster: ClusterArgs,
    pub(crate) via: Via,
    pub(crate) user: Option<i64>,
    pub(crate) debug_image: Option<String>,
}

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The processes are shown.
    List,
    /// The port is open until the user ends it.
    Port,
    /// The debugger's command line is opened.
    Cli,
    /// An editor speaks on stdin and stdout.
    Stdio,
    /// Calls of functions are told.
    Trace,
}

impl Request {
    pub(crate) fn new(args: Args) -> Result<Self> {
        let target = match (args.target, args.selector) {
            (Some(text), _) => text.parse::<Target>().map_err(|error| CommandError::usage(error.to_string()))?,
            (None, selector) => Target::Selector(selector.unwrap_or_default()),
        };
        let here = std::env::current_dir().context("could not find out the working directory")?;
        let folder_is_named = args.use_args.sources.is_some();
        let folder = args.use_args.sources.map_or_else(|| here.clone(), |folder| here.join(folder));
        if !folder.is_dir() {
            return Err(
                CommandError::usage(format!("{} is not a folder", folder.display())).with_hint("name the sources' folder with --sources")
            );
        }
        if args.user.is_some_and(|user| user < 0) {
            return Err(CommandError::usage("--user takes a number that is not negative"));
        }
        let aim = if args.list {
            Aim::List
        } else if args.use_args.cli {
            Aim::Cli
        } else if args.use_args.dap_stdio {
            Aim::Stdio
        } else if !args.use_args.trace.is_empty() {
            Aim::Trace
        } else {
            Aim::Port
        };
        if aim == Aim::Stdio && args.output.output != Format::Text {
            return Err(CommandError::usage("stdout is the editor's with --dap-stdio").with_hint("leave out -o"));
        }
        if aim != Aim::List && args.output.output == Format::Yaml {
            return Err(CommandError::usage("events come as text or JSON").with_hint("-o yaml goes with --list"));
        }
        Ok(Self {
            target,
            pod: args.pod,
            container: args.container,
            pid: args.pid,
            aim,
            trace: args.use_args.trace,
            look: Look::new(args.look_args)?,
            dry_run: args.dry_run,
            restart: args.use_args.restart,
            pause_probes: args.use_args.pause_probes,
            // The debugger's own command line ends with its connection.
            once: args.use_args.once || aim == Aim::Cli,
            output: args.output.output,
            port: args.use_args.port.filter(|port| *port != 0),
            editor: args.use_args.editor,
            open: args.use_args.open,
            folder,
            folder_is_named,
            symbols: args.use_args.symbols.map(|path| here.join(path)),
            cluster: args.cluster,
            via: args.via.via,
            user: args.user,
            debug_image: args.debug_image.filter(|image| !image.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn request(words: &str) -> Result<Request> {
        Request::new(Args::try_parse_from(std::iter::once("x").chain(words.split_whitespace())).unwrap())
    }

    #[test]
    fn arguments_become_a_request() {
        let request = request("web -c app --pid 7 --cli --port 0").unwrap();
        assert_eq!(request.target.to_string(), "deployment/web");
        assert_eq!((request.container.as_deref(), request.pid, request.aim, request.port), (Some("app"), Some(7), Aim::Cli, None));
        assert_eq!(self::request("-l app=web").unwrap().target, Target::Selector("app=web".to_owned()));
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for words in ["node/a", "web --sources /nowhere/at/all", "web --dap-stdio -o json", "web -o yaml", "web --user=-1"] {
            assert_eq!(request(words).unwrap_err().status().code(), 2, "{words}");
        }
    }
}
