//! A program that runs on a node, whichever way it got there.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// A program that runs on a node. Dropped, its streams close, which ends a
/// program that reads its input.
pub struct NodeProcess {
    /// Its standard input; shut down to end it.
    pub stdin: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it prints.
    pub stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// What it complains about.
    pub stderr: Pin<Box<dyn AsyncRead + Send>>,
    /// How it ended, in time.
    pub ended: Ended,
}

/// The way to a program's exit code.
#[derive(Debug)]
pub enum Ended {
    /// It is a process of this machine; killed when dropped.
    Child(Box<Child>),
    /// A task knows when it ends.
    Exec(JoinHandle<io::Result<i32>>),
}

/// What a program said, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOutput {
    /// Its exit code; 128 and the signal's number when it was killed.
    pub code: i32,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: String,
}

impl std::fmt::Debug for NodeProcess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NodeProcess").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl NodeProcess {
    /// Starts a command whose streams are all piped.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("no pipes to the program"));
        };
        widen_pipe(&stdin);
        widen_pipe(&stdout);
        Ok(Self { stdin: Box::pin(stdin), stdout: Box::pin(stdout), stderr: Box::pin(stderr), ended: Ended::Child(Box::new(child)) })
    }

    /// Ends its input and reads all that it says.
    ///
    /// # Errors
    /// When the way to it breaks.
    pub async fn output(mut self) -> io::Result<NodeOutput> {
        // It may have ended by itself, and its input with it.
        let _ = self.stdin.shutdown().await;
        drop(self.stdin);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        tokio::try_join!(self.stdout.read_to_end(&mut stdout), self.stderr.read_to_end(&mut stderr))?;
        let code = self.ended.code().await?;
        Ok(NodeOutput { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    }
}

impl Ended {
    /// Waits for the end; answers the exit code, or 128 and the number of the
    /// signal.
    ///
    /// # Errors
    /// When the way to the program breaks.
    pub async fn code(self) -> io::Result<i32> {
        match self {
            Self::Child(mut child) => {
                let status = child.wait().await?;
                Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
            }
            Self::Exec(task) => task.await.unwrap_or_else(|error| Err(io::Error::other(error))),
        }
    }
}

/// A larger pipe means fewer switches between the two programs; as it is, is
/// fine, too.
fn widen_pipe(pipe: &impl std::os::fd::AsFd) {
    let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
}
