//! One client of the debugger, passed on to it.

use crate::dap::{Framing, framed};
use crate::farewell::{self, Leaving};
use crate::runtimes::Link;
use devloop_core::agent::Command;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy};

/// Serves a client until it or the debugger ends the connection. What it says passes
/// through `message`, where it speaks DAP, or through `line`, where it speaks a JSON
/// object a line.
///
/// # Errors
/// When the debugger can't be reached, or the client says what no client says.
pub(crate) async fn serve<R, W>(
    link: &Link<'_>,
    reader: R,
    writer: W,
    message: impl Fn(Vec<u8>) -> Vec<u8>,
    line: impl Fn(&str) -> String,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Command { stdin: to, stdout: from, guard: _guard, .. } =
        link.runner.start(&["connect", link.socket]).await.map_err(io::Error::other)?;
    let leaving = Leaving::default();
    let up = pass(BufReader::new(reader), to, message, line, &leaving);
    let down = farewell::down(from, writer, link.farewell.clone(), &leaving);
    farewell::both(up, down).await
}

/// The same, with all passed on as it is.
///
/// # Errors
/// When the debugger can't be reached.
pub(crate) async fn plain<R, W>(link: &Link<'_>, mut reader: R, mut writer: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Command { stdin: mut to, stdout: mut from, guard: _guard, .. } =
        link.runner.start(&["connect", link.socket]).await.map_err(io::Error::other)?;
    let up = async { copy(&mut reader, &mut to).await.map(drop) };
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
    leaving: &Leaving,
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
            leaving.note(&content);
            to.write_all(&framed(&message(content))).await?;
            to.flush().await?;
        }
        match reader.read(&mut piece).await? {
            0 => return Ok(()),
            length => framing.push(&piece[..length]),
        }
    }
}
