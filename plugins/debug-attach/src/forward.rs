//! One client of the debugger, passed on to it.

use crate::dap::{Framing, framed};
use devloop_core::agent::{Command, Runner};
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy};

/// Serves a client until it or the debugger ends the connection. What it says passes
/// through `message`, where it speaks DAP, or through `line`, where it speaks a JSON
/// object a line.
///
/// # Errors
/// When the debugger can't be reached, or the client says what no client says.
pub(crate) async fn serve<R, W>(
    runner: &Runner,
    socket: &str,
    reader: R,
    mut writer: W,
    message: impl Fn(Vec<u8>) -> Vec<u8>,
    line: impl Fn(&str) -> String,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Command { stdin: to, stdout: mut from, guard: _guard, .. } = runner.start(&["connect", socket]).await.map_err(io::Error::other)?;
    let up = pass(BufReader::new(reader), to, message, line);
    let down = async {
        copy(&mut from, &mut writer).await?;
        writer.shutdown().await
    };
    tokio::select! {
        result = up => result,
        result = down => result,
    }
}

/// The two protocols are told apart by the first byte.
async fn pass(
    mut reader: impl AsyncBufReadExt + Unpin,
    mut to: impl AsyncWrite + Unpin,
    message: impl Fn(Vec<u8>) -> Vec<u8>,
    line: impl Fn(&str) -> String,
) -> io::Result<()> {
    if reader.fill_buf().await?.first() == Some(&b'{') {
        let mut text = String::new();
        while reader.read_line(&mut text).await? > 0 {
            to.write_all(line(&text).as_bytes()).await?;
            to.flush().await?;
            text.clear();
        }
        return Ok(());
    }
    let mut framing = Framing::default();
    let mut piece = vec![0; 16 * 1024];
    loop {
        while let Some(content) = framing.pop().map_err(io::Error::other)? {
            to.write_all(&framed(&message(content))).await?;
            to.flush().await?;
        }
        match reader.read(&mut piece).await? {
            0 => return Ok(()),
            length => framing.push(&piece[..length]),
        }
    }
}
