//! `kubectl debug-attach`: a debugger on the running, unmodified process.
//!
//! Code map: `args` (the command line) -> `request` (what it means) -> `choose`
//! (pure: which pod and container, which way) -> `place` (where the debugger runs:
//! node or ephemeral container) -> `process` (pure: which process, and what is in
//! the way) -> `runtime` (pure: which debugger) -> `runtimes` (a file for each
//! debugger) with `kit` and `symbols` (what is brought there) -> `hold` (attached,
//! and what became of it) -> `session` (the loop) with `forward` and `dap` (clients
//! come, speak and go), `farewell` (and are told to come back) and `cli`, with `prompt`
//! for debuggers that have no command line; `follow` attaches to what takes the
//! process's place. `sources` finds out which folder here is which of
//! the program, `editor` writes or shows settings, `ports` gives a target its port,
//! `leases` warns of what a stopped app
//! loses, `trace` tells of calls of functions, `report` says what happens and `journal` keeps it. `tools` looks at a process without a
//! debugger.
//!
//! Architecture invariant: nothing here can end the process that is debugged, and
//! whatever ends this command leaves it running.

mod args;
mod attach;
mod choose;
mod cli;
mod dap;
mod editor;
mod farewell;
mod follow;
mod forward;
mod hold;
mod journal;
mod kit;
mod leases;
mod place;
mod ports;
mod process;
mod prompt;
#[cfg(test)]
mod real;
mod report;
mod request;
mod restart;
mod runtime;
mod runtimes;
mod session;
mod sources;
mod symbols;
mod tools;
mod trace;

pub use args::Args;

use devloop_core::{Context, ExitStatus, Result};
use request::Request;

/// Runs until the user ends it.
///
/// # Errors
/// When the request, the cluster, the process or the kernel are against it.
pub async fn run(context: Context, args: Args) -> Result<ExitStatus> {
    if let Some(args::Own::Prompt { port }) = args.own {
        // Ctrl-C does not end it, however often.
        drop(context);
        return prompt::run(port).await;
    }
    let request = Request::new(args)?;
    match &request.look {
        Some(look) => tools::run(&context, &request, look).await,
        None => attach::run(&context, request).await,
    }
}
