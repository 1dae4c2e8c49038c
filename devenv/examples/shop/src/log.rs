//! Structured logs: one JSON object per line on stdout.

use std::{
    error::Error,
    io::{self, Write},
    time::SystemTime,
};

use serde_json::{Map, Value};

use crate::timestamp;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Writes one line; `fields` is a JSON object.
pub(crate) fn write(level: Level, message: &str, fields: Value) {
    let line = render(SystemTime::now(), level, message, fields);
    // Nobody reads the logs any more: no reason to stop serving.
    let _ = io::stdout().lock().write_all(line.as_bytes());
}

pub(crate) fn failure(message: &str, error: &dyn Error) {
    write(Level::Error, message, serde_json::json!({"error": error.to_string()}));
}

fn render(now: SystemTime, level: Level, message: &str, fields: Value) -> String {
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), timestamp::rfc3339(now).into());
    line.insert("level".to_owned(), level.as_str().into());
    line.insert("message".to_owned(), message.into());
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    format!("{}\n", Value::Object(line))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_one_object_in_a_fixed_order() {
        let line = render(SystemTime::UNIX_EPOCH, Level::Warn, "two\n\"lines\"", json!({"path": "/", "status": 404}));
        assert_eq!(
            line,
            concat!(
                r#"{"timestamp":"1970-01-01T00:00:00.000000000Z","level":"warn","#,
                r#""message":"two\n\"lines\"","path":"/","status":404}"#,
                "\n"
            )
        );
    }
}
