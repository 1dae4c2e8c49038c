//! logs-tail
