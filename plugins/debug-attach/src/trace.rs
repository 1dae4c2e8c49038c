//! Calls of functions, as a debugger sees them happen.

use crate::report::{Event, Reporter};
use crate::runtimes::{Link, Tool};
use devloop_core::agent::AgentError;
use devloop_core::{CommandError, Result};
use jiff::{Timestamp, tz::TimeZone};
use serde::{Serialize, Serializer};

/// A function was called, or comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Call {
    #[serde(serialize_with = "rfc3339")]
    pub(crate) time: Timestamp,
    pub(crate) function: String,
    pub(crate) goroutine: u64,
    /// Its arguments, or its results.
    pub(crate) values: Vec<Named>,
    pub(crate) file: String,
    pub(crate) line: u64,
}

/// A value, as the program's language writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    /// Empty for a result that has none.
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Why there is nothing more to tell.
#[derive(Debug)]
pub(crate) enum NotTraced {
    /// It can't be done.
    Refused(CommandError),
    /// The debugger is gone, or is no longer reached.
    Lost(AgentError),
}

impl Call {
    /// Such as `12:30:01.250 [18] main.buy(name: "tea", n: 3)`.
    pub(crate) fn text(&self, is_return: bool) -> String {
        let value = |value: &Named| match value.name.as_str() {
            "" => value.value.clone(),
            name => format!("{name}: {}", value.value),
        };
        let values = self.values.iter().map(value).collect::<Vec<_>>().join(", ");
        let clock = self.time.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string();
        let arrow = if is_return { " => " } else { "" };
        format!("{clock} [{}] {}{arrow}({values})", self.goroutine, self.function)
    }
}

/// Tells of every call of these functions until the debugger goes.
///
/// # Errors
/// When it can't be done.
pub(crate) async fn follow(tool: &Tool, link: Link<'_>, names: &[String], reporter: &Reporter) -> Result<()> {
    let tell = |event: &Event| reporter.tell(event);
    match tool.trace(&link, names, &tell).await {
        Ok(()) => Ok(()),
        Err(NotTraced::Refused(error)) => Err(error),
        // That is told by whoever holds the debugger.
        Err(NotTraced::Lost(error)) => {
            tracing::info!(%error, "nothing more is traced");
            Ok(())
        }
    }
}

fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}
