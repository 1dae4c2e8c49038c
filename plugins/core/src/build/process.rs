//! A build tool as a child process: it and all that it started end with the one
//! who waits for it.

use super::BuildError;
use crate::error::CommandError;
use crate::shutdown::Shutdown;
use crate::tail::tail_of;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::process::{ChildStderr, ChildStdout, Command};

/// How long a tool may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);
/// So much of what a tool says is kept: its end, where it says why it failed.
const KEPT: usize = 64 * 1024;

/// A tool that ended, and what was read of it.
pub(super) struct Finished<O, E> {
    pub(super) stdout: O,
    pub(super) stderr: E,
    pub(super) status: ExitStatus,
}

/// Runs a tool to its end. The inner error is that it could not be started.
///
/// # Errors
/// When `shutdown` was asked for; the tool is asked to end, then made to.
pub(super) async fn run<O, E>(
    mut command: Command,
    read_stdout: impl AsyncFnOnce(Option<ChildStdout>) -> O,
    read_stderr: impl AsyncFnOnce(Option<ChildStderr>) -> E,
    shutdown: &Shutdown,
) -> Result<std::io::Result<Finished<O, E>>, BuildError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    let group = ProcessGroup(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async { tokio::join!(read_stdout(stdout), read_stderr(stderr), child.wait()) };
    let (stdout, stderr, status) = tokio::select! {
        outcome = work => outcome,
        () = shutdown.requested() => {
            group.signal(Signal::SIGINT);
            // Whatever it says now, the user has ended the command.
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
            return Err(CommandError::interrupted().into());
        }
    };
    let status = status.map_err(|error| CommandError::new("could not wait for the build to end").caused_by(error))?;
    // Reaped: the number may soon be another's.
    group.forget();
    Ok(Ok(Finished { stdout, stderr, status }))
}

/// The end of what a tool says, as text.
pub(super) async fn read_text(stream: Option<impl AsyncRead + Unpin>) -> String {
    tail_of(stream, KEPT).await
}

/// A tool and the compilers, linkers and scripts that it started; killed
/// when dropped.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Fails when all of them are gone, which is what is wanted.
            let _ = killpg(group, signal);
        }
    }

    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}
