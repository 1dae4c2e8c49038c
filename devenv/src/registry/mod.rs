//! The local image registry of an environment, by kind's convention and KEP-1755.

pub(crate) mod convention;
pub(crate) mod port;
