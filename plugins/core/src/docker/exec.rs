//! `docker exec` with its three streams as streams.

use super::{DockerError, Engine};
use crate::node::{Ended, NodeProcess};
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures::StreamExt;
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// So much output waits for its reader before the container has to.
const BUFFER: usize = 256 * 1024;

impl Engine {
    /// Runs a program in a container; its streams are piped.
    ///
    /// # Errors
    /// When the engine refuses; a program that isn't there shows as exit code
    /// 126 or 127.
    pub async fn exec(&self, container: &str, argv: Vec<String>) -> Result<NodeProcess, DockerError> {
        let doing = || format!("run {} in container {container}", argv.first().map_or("", String::as_str));
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.clone()),
            user: Some("0:0".to_owned()),
            ..CreateExecOptions::default()
        };
        let id = self.client().create_exec(container, options).await.map_err(DockerError::request(doing()))?.id;
        let start = StartExecOptions { output_capacity: Some(BUFFER), ..StartExecOptions::default() };
        let started = self.client().start_exec(&id, Some(start)).await.map_err(DockerError::request(doing()))?;
        let StartExecResults::Attached { mut output, input } = started else {
            return Err(DockerError::request(doing())(io::Error::other("the engine did not attach").into()));
        };
        let (stdout, mut stdout_tx) = tokio::io::duplex(BUFFER);
        let (stderr, mut stderr_tx) = tokio::io::duplex(BUFFER);
        let engine = self.clone();
        let ended = tokio::spawn(async move {
            while let Some(frame) = output.next().await {
                // A reader that went away doesn't want the rest; the other may.
                let _ = match frame.map_err(io::Error::other)? {
                    LogOutput::StdErr { message } => stderr_tx.write_all(&message).await,
                    LogOutput::StdOut { message } | LogOutput::Console { message } => stdout_tx.write_all(&message).await,
                    LogOutput::StdIn { .. } => Ok(()),
                };
            }
            drop((stdout_tx, stderr_tx));
            engine.exit_code(&id).await
        });
        Ok(NodeProcess { stdin: Box::pin(input), stdout: Box::pin(stdout), stderr: Box::pin(stderr), ended: Ended::Exec(ended) })
    }

    async fn exit_code(&self, id: &str) -> io::Result<i32> {
        let mut pause = Duration::from_millis(1);
        loop {
            let state = self.client().inspect_exec(id).await.map_err(io::Error::other)?;
            if let Some(code) = state.exit_code {
                return Ok(i32::try_from(code).unwrap_or(-1));
            }
            // The output ends a moment before the engine has noted the end.
            if pause > Duration::from_secs(2) {
                return Err(io::Error::other("the engine does not know how the program ended"));
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}
