//! Ctrl-C and SIGTERM, as a value that long work takes as a parameter.
//!
//! The first signal asks; a second one ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells whether the user wants the command to end.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested_rx: watch::Receiver<bool>,
}

impl Shutdown {
    /// Installs the signal handlers; called once, by [`crate::app::run`].
    ///
    /// # Errors
    /// When the runtime can't register a signal handler.
    pub(crate) fn install() -> std::io::Result<Self> {
        let (requested_tx, requested_rx) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => nix::sys::signal::Signal::SIGINT,
                    _ = terminate.recv() => nix::sys::signal::Signal::SIGTERM,
                    _ = hangup.recv() => nix::sys::signal::Signal::SIGHUP,
                };
                if *requested_tx.borrow() {
                    die_by(number);
                }
                if requested_tx.send(true).is_err() {
                    return;
                }
            }
        });
        Ok(Self { requested_rx })
    }

    /// A shutdown that nobody can ask for, and the switch that does, for tests.
    pub fn manual() -> (watch::Sender<bool>, Self) {
        let (requested_tx, requested_rx) = watch::channel(false);
        (requested_tx, Self { requested_rx })
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        *self.requested_rx.borrow()
    }

    /// Resolves when the end is asked for; never, if nobody is left to ask.
    pub async fn requested(&self) {
        let mut requested_rx = self.requested_rx.clone();
        if requested_rx.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs `work` until it is done or the end is asked for.
    ///
    /// # Errors
    /// [`crate::CommandError::interrupted`] when the end came first; `work` is
    /// dropped.
    pub async fn guard<T>(&self, work: impl Future<Output = crate::Result<T>>) -> crate::Result<T> {
        tokio::select! {
            result = work => result,
            () = self.requested() => Err(crate::CommandError::interrupted()),
        }
    }
}

/// Ends this process by a signal with its default action, so that the parent
/// sees the truth (a shell then stops its script, too).
pub(crate) fn die_by(number: nix::sys::signal::Signal) {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, raise, sigaction};
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours in signal context.
    if unsafe { sigaction(number, &default) }.is_ok() {
        // Fails only for an invalid signal number.
        let _ = raise(number);
    }
}
