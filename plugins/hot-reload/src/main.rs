//! `kubectl hot-reload`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    devloop_core::app::run(|args: &kubectl_hot_reload::Args| &args.global, kubectl_hot_reload::run)
}
