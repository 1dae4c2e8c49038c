//! An answer, before it is bytes on a connection.

use serde_json::{Value, json};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    /// What went wrong in here, for the log and not for the client.
    pub(crate) error: Option<String>,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, body: body.into(), error: None }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", format!("{body}\n"))
    }

    /// A refusal or a failure, in the form that clients of the API parse.
    pub(crate) fn problem(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"error": message}))
    }
}
