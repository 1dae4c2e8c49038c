//! What `/api/version` says. The quickstart edits this line.

pub(crate) const GREETING: &str = "hello from shop";
