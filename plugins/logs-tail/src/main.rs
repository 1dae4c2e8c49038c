//! `kubectl logs-tail`.

use std::process::ExitCode;

fn main() -> ExitCode {
    devloop_core::app::run(|args: &kubectl_logs_tail::Args| &args.global, kubectl_logs_tail::run)
}
