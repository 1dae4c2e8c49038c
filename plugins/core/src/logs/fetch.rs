//! One connection to a log, and the end of a log at once.

use super::LogsError;
use super::line::{LineBuffer, RawLine};
use crate::error::{CommandError, Result};
use futures::{AsyncBufRead, AsyncBufReadExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use std::pin::Pin;

/// An open connection that gives lines.
pub(super) struct LineReader {
    reader: Pin<Box<dyn AsyncBufRead + Send>>,
    buffer: LineBuffer,
}

impl LineReader {
    pub(super) async fn open(pods: &Api<Pod>, pod: &str, params: &LogParams) -> kube::Result<Self> {
        let reader = Box::pin(pods.log_stream(pod, params).await?);
        Ok(Self { reader, buffer: LineBuffer::default() })
    }

    /// The next whole line; none at the end of the connection. Can be dropped
    /// and called again: what was read is kept.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<RawLine>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let (line, taken) = self.buffer.push(chunk);
            self.reader.as_mut().consume(taken);
            if line.is_some() {
                return Ok(line);
            }
        }
    }

    /// What came after the last newline: the end of a line, if the log has
    /// ended, else the beginning of one that is yet to be read.
    pub(super) fn rest(mut self) -> Option<RawLine> {
        self.buffer.finish()
    }
}

/// The last `count` lines of a container's current or previous instance.
///
/// # Errors
/// When the API server or the kubelet can't give them, as when there is no
/// previous instance.
pub async fn last_lines(client: &Client, namespace: &str, pod: &str, container: &str, previous: bool, count: u32) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = LogParams {
        container: Some(container.to_owned()),
        previous,
        // Stamped, the container's lines are told from the kubelet's own.
        timestamps: true,
        tail_lines: Some(i64::from(count)),
        ..LogParams::default()
    };
    let doing = format!("read the last lines of {pod}/{container}");
    let mut reader = LineReader::open(&pods, pod, &params).await.map_err(|error| super::follow::classify(error, doing.clone()))?;
    let (mut lines, mut excuse) = (Vec::new(), None);
    while let Some(line) = reader.next().await.map_err(|error| LogsError::Broken(format!("{pod}/{container}"), error))? {
        sort_out(line, &mut lines, &mut excuse);
    }
    if let Some(line) = reader.rest() {
        sort_out(line, &mut lines, &mut excuse);
    }
    match excuse {
        Some(excuse) if lines.is_empty() => Err(CommandError::new(format!("could not {doing}")).caused_by(CommandError::new(excuse))),
        _ => Ok(lines),
    }
}

fn sort_out(line: RawLine, lines: &mut Vec<String>, excuse: &mut Option<String>) {
    let text = String::from_utf8_lossy(&line.message).into_owned();
    match line.timestamp {
        Some(_) => lines.push(text),
        None => *excuse = Some(text),
    }
}
