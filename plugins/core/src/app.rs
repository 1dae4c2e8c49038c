//! How every plugin starts and ends: arguments, colour, diagnostics, runtime,
//! signals, error printing, exit code.

use crate::args::{ColorChoice, GlobalArgs};
use crate::error::{ErrorContext, ExitStatus, Result};
use crate::shutdown::Shutdown;
use crate::ui::{Ui, Volume};
use crate::{CommandError, telemetry};
use clap::Parser;
use std::process::ExitCode;

/// What a command is given besides its request.
#[derive(Clone, Debug)]
pub struct Context {
    /// The way to the user.
    pub ui: Ui,
    /// Whether the user wants to end.
    pub shutdown: Shutdown,
}

/// Parses the arguments, runs `command` to its end, prints what went wrong.
///
/// Completion scripts come from the same definition: with `COMPLETE=bash` (zsh,
/// fish, ...) in the environment the program prints one and ends.
pub fn run<A, F>(globals: fn(&A) -> &GlobalArgs, command: fn(Context, A) -> F) -> ExitCode
where
    A: Parser,
    F: Future<Output = Result<ExitStatus>>,
{
    clap_complete::CompleteEnv::with_factory(A::command).complete();
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are data and go to stdout; clap knows which.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let global = globals(&args).clone();
    apply_color(global.color);
    telemetry::init(global.verbose, global.log_format);
    let ui = Ui::stderr(if global.quiet { Volume::Quiet } else { Volume::Normal });
    let status = block_on(&ui, command, args);
    if status == ExitStatus::Interrupted {
        crate::shutdown::die_by(nix::sys::signal::Signal::SIGINT);
    }
    ExitCode::from(status.code())
}

fn block_on<A, F>(ui: &Ui, command: fn(Context, A) -> F, args: A) -> ExitStatus
where
    F: Future<Output = Result<ExitStatus>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start the async runtime") {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.error(&error);
            return error.status();
        }
    };
    let result = runtime.block_on(async {
        let shutdown = Shutdown::install().context("could not install signal handlers")?;
        command(Context { ui: ui.clone(), shutdown }, args).await
    });
    // A blocked read of stdin must not hold up the end.
    runtime.shutdown_background();
    result.unwrap_or_else(|error: CommandError| {
        tracing::debug!(error = telemetry::error_chain(&error), "command failed");
        ui.error(&error);
        error.status()
    })
}

/// Makes the choice that of all that is printed from now on.
pub fn apply_color(choice: ColorChoice) {
    match choice {
        ColorChoice::Auto => {}
        ColorChoice::Always => {
            console::set_colors_enabled(true);
            console::set_colors_enabled_stderr(true);
        }
        ColorChoice::Never => {
            console::set_colors_enabled(false);
            console::set_colors_enabled_stderr(false);
        }
    }
}
