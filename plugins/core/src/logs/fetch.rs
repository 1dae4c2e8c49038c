//! One connection to a log, and the end of a log at once.

use super::LogsError;
use super::line::{LineBuffer, RawLine};
use crate::error::{CommandError, Result};
use futures::{AsyncBufRead, AsyncBufReadExt, FutureExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use std::pin::Pin;

/// So many lines are taken at once, about.
const LINES_AT_ONCE: usize = 512;

/// An open connection that gives lines.
pub(super) struct LineReader {
    reader: Pin<Box<dyn AsyncBufRead + Send>>,
    buffer: LineBuffer,
    /// How it broke, behind the lines that came before.
    broken: Option<std::io::Error>,
}

impl LineReader {
    pub(super) async fn open(pods: &Api<Pod>, pod: &str, params: &LogParams) -> kube::Result<Self> {
        let reader = Box::pin(pods.log_stream(pod, params).await?);
        Ok(Self { reader, buffer: LineBuffer::default(), broken: None })
    }

    /// The next whole lines: at least one, and those that came with it; none at the
    /// end of the connection. Can be dropped and called again: what was read is kept.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Vec<RawLine>>> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let mut lines = Vec::new();
        while lines.is_empty() {
            let chunk = self.reader.fill_buf().await?;
            let length = chunk.len();
            if length == 0 {
                return Ok(None);
            }
            self.buffer.push(chunk, &mut lines);
            self.reader.consume_unpin(length);
        }
        // The server may send each line by itself.
        while lines.len() < LINES_AT_ONCE {
            match self.reader.fill_buf().now_or_never() {
                Some(Ok(chunk)) if !chunk.is_empty() => {
                    let length = chunk.len();
                    self.buffer.push(chunk, &mut lines);
                    self.reader.consume_unpin(length);
                }
                Some(Err(error)) => {
                    self.broken = Some(error);
                    break;
                }
                // The end is met again.
                _ => break,
            }
        }
        Ok(Some(lines))
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
    while let Some(read) = reader.next().await.map_err(|error| LogsError::Broken(format!("{pod}/{container}"), error))? {
        read.into_iter().for_each(|line| sort_out(line, &mut lines, &mut excuse));
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
