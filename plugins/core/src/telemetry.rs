//! Diagnostics on stderr: `tracing` events as text for people, JSON for tools.

use std::fmt::Write as _;
use tracing_subscriber::EnvFilter;

/// How diagnostics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event: timestamp, level, thread, target, span, fields.
    Json,
}

/// Starts writing diagnostics to stderr.
///
/// `DEVLOOP_LOG` (an `EnvFilter` directive list) wins over the count of `-v`:
/// none shows warnings, one `info`, two `debug`, three `trace` of our crates.
pub fn init(verbosity: u8, format: LogFormat) {
    let default = match verbosity {
        0 => "warn,kube_client=off,kube_runtime=error,notify=error",
        1 => {
            "warn,notify=error,devloop=info,devloop_core=info,kubectl_devenv=info,kubectl_rebuild=info,kubectl_hot_reload=info,kubectl_logs_tail=info,kubectl_debug_attach=info"
        }
        2 => {
            "info,devloop_core=debug,kubectl_devenv=debug,kubectl_rebuild=debug,kubectl_hot_reload=debug,kubectl_logs_tail=debug,kubectl_debug_attach=debug"
        }
        _ => {
            "debug,devloop_core=trace,kubectl_devenv=trace,kubectl_rebuild=trace,kubectl_hot_reload=trace,kubectl_logs_tail=trace,kubectl_debug_attach=trace"
        }
    };
    let filter = std::env::var("DEVLOOP_LOG")
        .ok()
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_thread_names(true).with_target(true);
    // A second call (a test in the same process) keeps the first one's choice.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(console::colors_enabled_stderr()).try_init(),
        LogFormat::Json => builder.json().with_current_span(true).with_span_list(true).try_init(),
    };
}

/// An error and all its causes in one line, for an event's `error` field.
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(cause) = current {
        let message = cause.to_string();
        if !text.ends_with(&message) {
            // Writing to a string can't fail.
            let _ = write!(text, ": {message}");
        }
        current = cause.source();
    }
    text
}
