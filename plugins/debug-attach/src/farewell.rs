//! How clients are told that their debugger goes: those that speak DAP learn whether it
//! is worth while to come back, and do that by themselves, with their breakpoints.

use crate::dap::{Framing, framed};
use serde_json::{Value, json};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::sync::watch;

/// How long it may take until it is known what comes next: the agent waits for another
/// program for 10 s.
const PATIENCE: Duration = Duration::from_secs(12);

/// What comes after a debugger, once that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another one, at the same port.
    Again,
    /// Nothing.
    Over,
}

/// Tells what comes next.
pub(crate) type Farewell = watch::Receiver<Option<Next>>;

/// Whether a client said that it leaves.
#[derive(Debug, Default)]
pub(crate) struct Leaving(AtomicBool);

impl Leaving {
    /// Takes note of what a client says.
    pub(crate) fn note(&self, content: &[u8]) {
        if command(content).is_some_and(|command| ["disconnect", "terminate"].contains(&command.as_str())) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn is_said(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn command(content: &[u8]) -> Option<String> {
    let message = serde_json::from_slice::<Value>(content).ok()?;
    Some(message.get("command")?.as_str()?.to_owned())
}

/// Passes on what a debugger says. Of its end a client hears only when it is known what
/// comes next. What is not DAP passes as it is.
///
/// # Errors
/// When either side breaks, or it is DAP to begin with and not later.
pub(crate) async fn down(
    mut from: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    mut farewell: Farewell,
    leaving: &Leaving,
) -> io::Result<()> {
    let mut framing = Framing::default();
    let mut piece = vec![0; 16 * 1024];
    let mut is_dap = false;
    let mut last = 0;
    loop {
        // A debugger that is killed breaks the connection, which is an end, too.
        let length = from.read(&mut piece).await.unwrap_or(0);
        if length == 0 {
            break;
        }
        if !is_dap && piece[0] == b'{' {
            writer.write_all(&piece[..length]).await?;
            copy(&mut from, &mut writer).await?;
            return writer.shutdown().await;
        }
        is_dap = true;
        framing.push(&piece[..length]);
        while let Some(content) = framing.pop().map_err(io::Error::other)? {
            let message = Message::of(&content);
            last = message.sequence.unwrap_or(last);
            if message.is_end && !leaving.is_said() && next(&mut farewell).await == Some(Next::Again) {
                return restart(&mut writer, last).await;
            }
            writer.write_all(&framed(&content)).await?;
        }
        writer.flush().await?;
    }
    if is_dap && !leaving.is_said() && next(&mut farewell).await == Some(Next::Again) {
        return restart(&mut writer, last + 1).await;
    }
    writer.shutdown().await
}

/// Asks a client to start over, and ends the connection.
async fn restart(writer: &mut (impl AsyncWrite + Unpin), sequence: i64) -> io::Result<()> {
    let message = json!({"seq": sequence, "type": "event", "event": "terminated", "body": {"restart": true}});
    writer.write_all(&framed(message.to_string().as_bytes())).await?;
    writer.shutdown().await
}

/// What comes next, once it is known; nothing when that takes too long.
async fn next(farewell: &mut Farewell) -> Option<Next> {
    match tokio::time::timeout(PATIENCE, farewell.wait_for(Option::is_some)).await {
        Ok(Ok(next)) => *next,
        _ => None,
    }
}

/// Both directions, until the client leaves or the debugger has said its last.
///
/// # Errors
/// When one breaks. That nothing can be said to the debugger any more is no reason not
/// to hear its last words.
pub(crate) async fn both(up: impl Future<Output = io::Result<()>>, down: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let mut down = pin!(down);
    tokio::select! {
        result = up => match result {
            Ok(()) => Ok(()),
            Err(_) => down.await,
        },
        result = &mut down => result,
    }
}

/// What matters here of a message.
struct Message {
    sequence: Option<i64>,
    /// Whether it is the event `terminated`.
    is_end: bool,
}

impl Message {
    fn of(content: &[u8]) -> Self {
        let message = serde_json::from_slice::<Value>(content).unwrap_or_default();
        Self { sequence: message["seq"].as_i64(), is_end: message["event"] == "terminated" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"{"seq":7,"type":"event","event":"output"}"#;
    const END: &str = r#"{"seq":8,"type":"event","event":"terminated"}"#;

    /// What a client hears of these, when this comes next.
    async fn heard(said: &[&str], next: Option<Next>, request: Option<&str>) -> Vec<String> {
        let bytes: Vec<u8> = said.iter().flat_map(|content| framed(content.as_bytes())).collect();
        let leaving = Leaving::default();
        if let Some(request) = request {
            leaving.note(request.as_bytes());
        }
        let (tell, farewell) = watch::channel(next);
        if next.is_none() {
            drop(tell);
        }
        let mut heard = Vec::new();
        down(bytes.as_slice(), &mut heard, farewell, &leaving).await.unwrap();
        let mut framing = Framing::default();
        framing.push(&heard);
        std::iter::from_fn(|| framing.pop().unwrap()).map(|content| String::from_utf8(content).unwrap()).collect()
    }

    #[tokio::test]
    async fn clients_start_over_when_the_debugger_comes_back() {
        let restart =
            |sequence: i64| json!({"seq": sequence, "type": "event", "event": "terminated", "body": {"restart": true}}).to_string();
        assert_eq!(heard(&[OUTPUT, END], Some(Next::Again), None).await, [OUTPUT.to_owned(), restart(8)]);
        // Also when it had no time to say anything.
        assert_eq!(heard(&[OUTPUT], Some(Next::Again), None).await, [OUTPUT.to_owned(), restart(8)]);
    }

    #[tokio::test]
    async fn otherwise_they_hear_what_it_said() {
        assert_eq!(heard(&[OUTPUT, END], Some(Next::Over), None).await, [OUTPUT, END]);
        assert_eq!(heard(&[OUTPUT, END], None, None).await, [OUTPUT, END]);
        // One that leaves does not come back.
        let request = r#"{"seq":3,"type":"request","command":"disconnect"}"#;
        assert_eq!(heard(&[OUTPUT, END], Some(Next::Again), Some(request)).await, [OUTPUT, END]);
    }

    #[tokio::test]
    async fn other_protocols_pass_as_they_are() {
        let (_tell, farewell) = watch::channel(None);
        let mut heard = Vec::new();
        down(&b"{\"id\":1}\n{\"id\":2}"[..], &mut heard, farewell, &Leaving::default()).await.unwrap();
        assert_eq!(heard, b"{\"id\":1}\n{\"id\":2}");
    }

    #[tokio::test]
    async fn last_words_are_heard_when_nothing_can_be_said_any_more() {
        let broken = async { Err(io::ErrorKind::BrokenPipe.into()) };
        let (tell, told) = tokio::sync::oneshot::channel();
        let down = async {
            tokio::task::yield_now().await;
            tell.send(()).unwrap();
            Ok(())
        };
        both(broken, down).await.unwrap();
        told.await.unwrap();
    }
}
