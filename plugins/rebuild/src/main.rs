//! `kubectl rebuild`.

use std::process::ExitCode;

fn main() -> ExitCode {
    devloop_core::app::run(|args: &kubectl_rebuild::Args| &args.global, kubectl_rebuild::run)
}
