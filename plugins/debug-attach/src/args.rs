//! The command line.

use crate::tools::args::LookArgs;
use clap::{Parser, ValueEnum};
use devloop_core::args::{ClusterArgs, GlobalArgs, OutputArgs, ViaArgs};
use std::path::PathBuf;

/// Attach a debugger to a running process of a pod, as it is
///
/// No rebuild, no restart, no change to the image: the process goes on running
/// until a breakpoint is hit. The debugger is brought along (Delve for Go, LLDB with
/// gdbserver for Rust, C and C++, debugpy for Python) or opened (Node's inspector, the
/// debug agent of Java), is reached by a port of this machine that stays the same for a
/// target, and knows where the sources are here. When the command ends, however it ends, the
/// debugger detaches and the process runs on at full speed.
///
/// Other runtimes are recognised and named, but can't be attached to yet.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubectl debug-attach",
    bin_name = "kubectl debug-attach",
    version,
    after_long_help = AFTER_HELP,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(false).args(["target", "selector"])))]
pub struct Args {
    /// What to attach to: deploy/web (or web), sts/db, pod/x, svc/web
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// Pods with these labels, as a target (kubectl's syntax)
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// One of the target's pods [default: the newest that is ready]
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,
    /// The container [default: the only one, else that of the annotation kubectl.kubernetes.io/default-container]
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// The process, by its number in the container (see --list)
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Show the processes of the container, and end
    #[arg(long, conflicts_with_all = ["cli", "dap_stdio", "open", "dry_run"])]
    pub list: bool,
    /// Say what would be done in the cluster and here, and end
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the output: text, or JSON (events, one a line; with --list one document)
    #[command(flatten)]
    pub output: OutputArgs,
    /// How the debugger is used.
    #[command(flatten)]
    pub use_args: UseArgs,
    /// What is looked at without one.
    #[command(flatten)]
    pub look_args: LookArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Which way to the container.
    #[command(flatten)]
    pub via: ViaArgs,
    /// User of the ephemeral container where the namespace forbids root, if the pod does not name its own
    #[arg(long, value_name = "UID", help_heading = "Cluster options")]
    pub user: Option<i64>,
    /// Image with /devloop-agent and /dlv, /gdbserver/gdbserver or, for --shell, /busybox for the way through the API, as the nodes can pull it
    #[arg(long, value_name = "IMAGE", env = "DEVLOOP_DEBUG_IMAGE", hide_env_values = true, help_heading = "Cluster options")]
    pub debug_image: Option<String>,
    /// How much is said.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What this command starts itself for.
    #[command(subcommand)]
    pub own: Option<Own>,
}

/// Parts of this command that are programs of their own. No workload can be called so.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Own {
    /// The command line of a debugger that has none
    #[command(name = "__prompt", hide = true)]
    Prompt {
        /// Where the session listens.
        port: u16,
    },
}

/// How the debugger is used.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Debugger options")]
pub struct UseArgs {
    /// Port of this machine that the debugger listens on [default: one that stays the same for the target]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Be the debug adapter of an editor, on stdin and stdout
    #[arg(long, conflicts_with_all = ["cli", "open"])]
    pub dap_stdio: bool,
    /// Open a command line: Delve's, LLDB's, `node inspect`, jdb, or for Python one with pdb's commands
    #[arg(long)]
    pub cli: bool,
    /// Print each call of a function, with its arguments and results, in place of opening a port (Go); repeatable
    #[arg(long, value_name = "FUNCTION", value_parser = clap::builder::NonEmptyStringValueParser::new(), conflicts_with_all = ["list", "cli", "dap_stdio", "open", "port", "editor"])]
    pub trace: Vec<String>,
    /// Start the pods again where the process takes no debugger as it is (Java); undone at the end
    #[arg(long)]
    pub restart: bool,
    /// Start the pods again without the probes that would end a process that stands still; undone at the end
    #[arg(long)]
    pub pause_probes: bool,
    /// End with the process, instead of attaching to the one that takes its place
    #[arg(long)]
    pub once: bool,
    /// Whose settings to write (vscode: .vscode/launch.json) or to show (all others)
    #[arg(long, value_enum, default_value_t, value_name = "EDITOR")]
    pub editor: EditorArg,
    /// Open VS Code in the folder of the sources
    #[arg(long)]
    pub open: bool,
    /// Folder of the sources [default: where the program's are, here or nearby]
    #[arg(long, value_name = "FOLDER")]
    pub sources: Option<PathBuf>,
    /// The program as it was built, with the debug information that the one in the container lacks
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
}

/// An editor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EditorArg {
    /// VS Code where the sources have a folder .vscode, else none
    #[default]
    Auto,
    /// VS Code: an entry in .vscode/launch.json, beside all that is there
    Vscode,
    /// Zed: shown, for .zed/debug.json
    Zed,
    /// Neovim: shown, for nvim-dap
    Neovim,
    /// Helix: shown, for languages.toml
    Helix,
    /// GoLand, IntelliJ IDEA: shown
    Jetbrains,
    /// None
    None,
}

const AFTER_HELP: &str = "\
Examples:
  # What runs there, and can it be debugged?
  kubectl debug-attach deploy/web --list

  # Attach, and leave the port open until Ctrl-C; VS Code is set up
  kubectl debug-attach deploy/web --editor vscode --open

  # The debugger's command line, in one go
  kubectl debug-attach web --cli

  # A Java virtual machine that was started without its debug agent
  kubectl debug-attach web --restart

  # As the debug adapter of any editor
  kubectl debug-attach web --dap-stdio

  # Through the API alone, as on any cluster
  kubectl debug-attach web --via api

  # A program that was stripped, with its symbols from here
  kubectl debug-attach web --symbols ./bin/web

  # Who calls what, with which arguments: the process is halted for moments only
  kubectl debug-attach web --trace 'Shop.Buy' --trace main.serve

  # Without a debugger: a core file, a CPU profile, all stacks, a toolbox
  kubectl debug-attach web --core=web.core
  kubectl debug-attach web --profile 10s --out web
  kubectl debug-attach web --snapshot
  kubectl debug-attach web --shell -- netstat -ltn

Where the node is on this machine (kind, the embedded cluster), the debugger runs
on the node and nothing in the pod changes. Elsewhere it runs in an ephemeral
container, which Kubernetes can't remove from a pod: it is used again by the next
run, and goes with the pod.

When an editor goes away, its breakpoints are removed and the process runs on. When
`kubectl hot-reload` puts new code into the process, or the container or the pod is
replaced, the debugger is attached to what takes its place, on the same port, and
editors are told to start over with their breakpoints (DAP: `terminated` with
`restart`). While the process stands at a breakpoint, hot-reload waits. With
-o json what happens is told as events, one JSON object a line; --list is one
document. What was done is kept in devloop's state folder, debug-attach/journal.jsonl.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn help() {
        insta::assert_snapshot!(Args::command().render_long_help().to_string());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in [
            "",
            "web -l app=web",
            "web --cli --dap-stdio",
            "web --list --open",
            "web --port 70000",
            "web --trace f --cli",
            "web --trace f --core",
            "web --trace=",
        ] {
            assert!(Args::try_parse_from(std::iter::once("x").chain(words.split_whitespace())).is_err(), "{words}");
        }
        assert!(Args::try_parse_from(["x", "web", "--cli", "--port", "4711"]).is_ok());
    }
}
