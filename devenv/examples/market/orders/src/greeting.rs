//! What the service says at `/version`.

pub(crate) const GREETING: &str = "hello from orders";
