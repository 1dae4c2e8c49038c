//! `kubectl debug-attach`.

use std::process::ExitCode;

fn main() -> ExitCode {
    devloop_core::app::run(|args: &kubectl_debug_attach::Args| &args.global, kubectl_debug_attach::run)
}
