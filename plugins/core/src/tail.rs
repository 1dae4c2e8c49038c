//! The end of what a program says, where it says why it failed.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads a stream to its end and keeps the last `kept` bytes, as text.
pub(crate) async fn tail_of(stream: Option<impl AsyncRead + Unpin>, kept: usize) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut tail = Vec::new();
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        tail.extend_from_slice(&buffer[..count]);
        tail.drain(..tail.len().saturating_sub(kept));
    }
    String::from_utf8_lossy(&tail).trim_end().to_owned()
}
