//! A shell, or another command, in a toolbox beside the process: its namespaces, its
//! files below `target`, and tools of our own, whatever the image has.

use super::terminal::{self, Raw};
use super::toolbox::FILE;
use super::{Subject, cut};
use crate::choose::Way;
use crate::journal;
use crate::kit::Kit;
use devloop_core::agent::ByteString;
use devloop_core::agent::debug::HEARTBEAT;
use devloop_core::agent::tools::{ShellInput, ShellOutput};
use devloop_core::agent::{AgentError, encode};
use devloop_core::output;
use devloop_core::{CommandError, ErrorContext, ExitStatus, Result};
use serde_json::json;
use std::io::Write;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

const FAILED: &str = "could not start a shell";
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
const PIECE: usize = 16 * 1024;

/// Answers the exit code of the command.
pub(super) async fn run(subject: &Subject<'_>, kit: Option<&Kit>, command: &[String]) -> Result<ExitStatus> {
    let place = subject.place;
    let busybox = place.bring(kit, FILE).await?;
    let size = terminal::size();
    let [pid, start] = subject.words();
    let shown = size.map_or_else(|| "-".to_owned(), |(columns, rows)| format!("{columns}x{rows}"));
    let kind = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let folder = place.toolbox();
    let mut arguments = vec!["shell"];
    arguments.extend((place.way == Way::Pod).then_some("--beside"));
    arguments.extend([&*pid, &*start, &*busybox, &*folder, &*shown, &*kind, "--"]);
    arguments.extend(if command.is_empty() { vec!["sh"] } else { command.iter().map(String::as_str).collect() });
    let (stdin, mut messages) = place.runner.start(&arguments).await?.split();
    match tokio::time::timeout(PATIENCE, messages.next::<ShellOutput>()).await.map_err(|_| AgentError::TimedOut(PATIENCE))?? {
        Some(ShellOutput::Started) => {}
        Some(ShellOutput::Failed(refusal)) => {
            let hint = if command.is_empty() {
                "run the command again"
            } else {
                "the toolbox has the commands of busybox; those of the image are below target"
            };
            return Err(subject.explain(FAILED, refusal).with_hint(hint));
        }
        Some(_) => return Err(CommandError::new(FAILED).caused_by("the agent said what it never says")),
        None => return Err(cut(FAILED, messages.complaint().await)),
    }
    note(subject, command)?;
    if size.is_some() {
        subject.context.ui.say(format!(
            "the files of {} are in {}",
            subject.describe(),
            if place.way == Way::Node { "/target" } else { "target, here" }
        ));
    }
    let _raw = size.map(|_| Raw::begin()).transpose()?;
    let talk = talk(stdin, size.is_some());
    tokio::pin!(talk);
    loop {
        let message = tokio::select! {
            message = messages.next::<ShellOutput>() => message?,
            ended = &mut talk => return ended.and_then(|()| Err(CommandError::new("the shell is out of reach"))),
        };
        match message {
            Some(ShellOutput::Bytes(bytes)) => output::bytes(&bytes.0)?,
            // Nobody is left to tell when stderr is closed.
            Some(ShellOutput::Complaint(bytes)) => drop(std::io::stderr().write_all(&bytes.0)),
            Some(ShellOutput::Ended { code: 0 }) => return Ok(ExitStatus::Success),
            Some(ShellOutput::Ended { code }) => return Ok(ExitStatus::Code(code)),
            Some(_) => {}
            None => return Err(cut("the shell is out of reach", messages.complaint().await)),
        }
    }
}

/// Tells the program what is typed, and the size of the terminal, until it can't be told.
async fn talk(mut program: Pin<Box<dyn AsyncWrite + Send>>, has_terminal: bool) -> Result<()> {
    let mut resized = signal(SignalKind::window_change()).context("could not follow the size of the terminal")?;
    let mut beat = tokio::time::interval(HEARTBEAT);
    let mut stdin = tokio::io::stdin();
    let mut piece = vec![0; PIECE];
    let mut is_open = true;
    loop {
        let message = tokio::select! {
            read = stdin.read(&mut piece), if is_open => match read {
                Ok(length @ 1..) => ShellInput::Bytes(ByteString(piece[..length].to_vec())),
                _ => {
                    is_open = false;
                    ShellInput::End
                }
            },
            _ = resized.recv(), if has_terminal => match terminal::size() {
                Some((columns, rows)) => ShellInput::Size { columns, rows },
                None => ShellInput::Beat,
            },
            _ = beat.tick() => ShellInput::Beat,
        };
        let mut frame = Vec::new();
        encode(&message, &mut frame).map_err(|error| CommandError::new("could not speak to the shell").caused_by(error))?;
        let told = async {
            program.write_all(&frame).await?;
            program.flush().await
        };
        if told.await.is_err() {
            // What it said last is still to come.
            std::future::pending::<()>().await;
        }
    }
}

fn note(subject: &Subject<'_>, command: &[String]) -> Result<()> {
    let chosen = &subject.found.chosen;
    journal::note(json!({
        "did": "shell",
        "context": subject.found.cluster.context,
        "namespace": subject.found.cluster.namespace,
        "pod": chosen.pod,
        "container": chosen.container,
        "via": subject.place.way.name(),
        "command": command,
    }))
}
