//! What sessions changed in clusters, on this machine's disk: the next run can
//! undo it after a crash, a kill or a power failure.
//!
//! A session has a file of its own below `hot-reload/` in the state folder, which
//! is written before anything is changed, and a lock that the kernel frees when
//! the session's process ends in whichever way. A file whose lock is free is that
//! of a session that left its changes behind: [`stale`]. Another file beside it
//! says what the session is doing, for whoever asks: [`live`].
//!
//! Nothing that can't be read is ever deleted: what a newer version wrote stays
//! for that one.

mod entry;
mod session;
mod store;
#[cfg(test)]
mod tests;

pub use entry::{ContainerEntry, Entry, Meta};
pub use session::{LiveSession, Session, StaleSession, live, stale};
