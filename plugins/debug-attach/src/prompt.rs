//! A command line for debuggers that have none: pdb's commands
//! (<https://docs.python.org/3/library/pdb.html#debugger-commands>), said to a debug
//! adapter. It is a program of its own, which has the terminal while the session serves
//! it as it serves an editor.

mod client;
mod command;
mod place;
mod screen;
mod signals;

use client::{Client, Gone};
use command::{Command, Step};
use devloop_core::{CommandError, ExitStatus, Result};
use place::Breakpoints;
use screen::{Frame, HELP, PROMPT, RUNS};
use serde_json::{Value, json};
use signals::{Asked, Signals};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

/// How long the debugger may take to begin.
const GREETING: Duration = Duration::from_secs(30);
/// And to end: one that still evaluates something lets the process run, too, once its
/// client is gone.
const FAREWELL: Duration = Duration::from_secs(3);

/// Serves a terminal, or a file of commands, until it ends, the user leaves or the
/// process does.
///
/// # Errors
/// When there is no debugger at this port of this machine.
pub(crate) async fn run(port: u16) -> Result<ExitStatus> {
    let attached = tokio::time::timeout(GREETING, Prompt::attach(port)).await;
    let mut prompt = attached
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| CommandError::new(format!("could not reach the debugger at port {port}")).caused_by(error))?;
    match prompt.serve().await {
        Ok(()) => prompt.leave().await,
        Err(Gone) => say("The debugger is gone."),
    }
    Ok(ExitStatus::Success)
}

struct Prompt {
    client: Client,
    folder: PathBuf,
    breakpoints: Breakpoints,
    /// Where it stands still; nothing while it runs.
    stop: Option<Stop>,
    signals: Signals,
    is_over: bool,
}

struct Stop {
    thread: u64,
    /// The newest first.
    frames: Vec<Frame>,
    selected: usize,
}

impl Prompt {
    async fn attach(port: u16) -> std::io::Result<Self> {
        let mut client = Client::connect(port).await?;
        let gone = |_| std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let about = json!({"adapterID": "devloop", "clientID": "devloop", "linesStartAt1": true, "columnsStartAt1": true});
        client.ask("initialize", about).await.map_err(gone)?.map_err(std::io::Error::other)?;
        // It is answered when all is configured.
        client.send("attach", json!({"justMyCode": false})).await.map_err(gone)?;
        client.event("initialized").await.map_err(gone)?;
        client.ask("configurationDone", json!({})).await.map_err(gone)?.map_err(std::io::Error::other)?;
        Ok(Self {
            client,
            folder: std::env::current_dir()?,
            breakpoints: Breakpoints::default(),
            stop: None,
            signals: Signals::new()?,
            is_over: false,
        })
    }

    async fn serve(&mut self) -> Result<(), Gone> {
        say("The process runs. `b FILE:LINE` sets a breakpoint, `c` waits for it, `h` tells the rest.");
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let mut last = None;
        loop {
            write(PROMPT);
            let line = loop {
                tokio::select! {
                    line = lines.next_line() => break line.ok().flatten(),
                    event = self.client.next_event() => if self.take(&event?).await? {
                        write(PROMPT);
                    },
                    asked = self.signals.next() => match asked {
                        Asked::Halt => self.pause().await?,
                        Asked::Leave => return Ok(()),
                    },
                }
            };
            let Some(line) = line else { return Ok(()) };
            // As in pdb, nothing means the same again.
            let command = if line.trim().is_empty() { last.clone() } else { Some(Command::parse(&line)) };
            let Some(command) = command else { continue };
            last = command.is_repeated().then(|| command.clone());
            match self.execute(command).await? {
                Ok(text) => say(&text),
                Err(why) => say(&format!("*** {why}")),
            }
            if self.is_over {
                return Ok(());
            }
        }
    }

    /// Takes what happened; answers whether anything was said.
    async fn take(&mut self, event: &Value) -> Result<bool, Gone> {
        match event["event"].as_str() {
            Some("stopped") => {
                let Some(thread) = event["body"]["threadId"].as_u64() else { return Ok(false) };
                let asked = self.client.ask("stackTrace", json!({"threadId": thread})).await?;
                let frames = asked.map(|body| screen::frames(&body)).unwrap_or_default();
                say(&frames.first().map(Frame::shown).unwrap_or_default());
                self.stop = Some(Stop { thread, frames, selected: 0 });
                Ok(true)
            }
            Some("continued") => {
                self.stop = None;
                Ok(false)
            }
            Some("terminated" | "exited") => Err(Gone),
            _ => Ok(false),
        }
    }

    /// Answers what there is to say, or why it can't be done.
    async fn execute(&mut self, command: Command) -> Result<Result<String, String>, Gone> {
        match command {
            Command::Help => Ok(Ok(HELP.to_owned())),
            Command::Step(step) => self.step(step).await,
            Command::Where => Ok(self.stopped().map(|stop| screen::stack(&stop.frames, stop.selected))),
            Command::List => Ok(self.stopped().and_then(|stop| {
                let frame = stop.frames.get(stop.selected).ok_or("there is no frame")?;
                frame.listing(&self.breakpoints.lines(&frame.file))
            })),
            Command::Select(by) => Ok(self.select(by)),
            Command::Evaluate(expression) => self.evaluate(&expression).await,
            Command::Break(None) => Ok(Ok(self.breakpoints.shown())),
            Command::Break(Some(place)) => {
                let current = self.stop.as_ref().and_then(|stop| stop.frames.get(stop.selected)).map(|frame| frame.file.clone());
                match self.breakpoints.add(&place, &self.folder, current.as_deref()) {
                    Ok((file, number)) => {
                        let said = self.send_breakpoints(&file).await?;
                        if said.is_err() {
                            let _ = self.breakpoints.remove(Some(number));
                        }
                        Ok(said.map(|answers| self.breakpoints.set(&file, number, &answers)))
                    }
                    Err(why) => Ok(Err(why)),
                }
            }
            Command::Clear(number) => match self.breakpoints.remove(number) {
                Ok(files) => {
                    for file in files {
                        if let Err(why) = self.send_breakpoints(&file).await? {
                            return Ok(Err(why));
                        }
                    }
                    Ok(Ok(String::new()))
                }
                Err(why) => Ok(Err(why)),
            },
            Command::Quit => {
                self.is_over = true;
                Ok(Ok(String::new()))
            }
        }
    }

    fn stopped(&self) -> Result<&Stop, String> {
        self.stop.as_ref().ok_or_else(|| "the process runs; `c` waits for a breakpoint, Ctrl-C halts it".to_owned())
    }

    async fn send_breakpoints(&mut self, file: &str) -> Result<Result<Vec<Value>, String>, Gone> {
        let arguments = json!({"source": {"path": file}, "breakpoints": self.breakpoints.of(file)});
        let answer = self.ask("setBreakpoints", arguments).await?;
        Ok(answer.map(|body| body["breakpoints"].as_array().cloned().unwrap_or_default()))
    }

    /// Sends the process on, and waits until it stands still again.
    async fn step(&mut self, step: Step) -> Result<Result<String, String>, Gone> {
        match (&self.stop, step.request()) {
            (Some(stop), request) => {
                let thread = stop.thread;
                self.stop = None;
                if let Err(why) = self.ask(request, json!({"threadId": thread})).await? {
                    return Ok(Err(why));
                }
            }
            // It runs already.
            (None, "continue") => {}
            (None, _) => return Ok(self.stopped().map(|_| String::new())),
        }
        // A step ends at once as a rule; this may take until somebody asks something of it.
        if matches!(step, Step::Continue) {
            say(RUNS);
        }
        while self.stop.is_none() && !self.is_over {
            tokio::select! {
                event = self.client.next_event() => { self.take(&event?).await?; }
                asked = self.signals.next() => match asked {
                    Asked::Halt => self.pause().await?,
                    Asked::Leave => self.is_over = true,
                },
            }
        }
        Ok(Ok(String::new()))
    }

    /// Halts the process, if it runs.
    async fn pause(&mut self) -> Result<(), Gone> {
        if self.stop.is_none() {
            let threads = self.ask("threads", json!({})).await?.unwrap_or_default();
            let first = threads["threads"][0]["id"].as_u64().unwrap_or(1);
            let _ = self.ask("pause", json!({"threadId": first})).await?;
        }
        Ok(())
    }

    fn select(&mut self, by: i8) -> Result<String, String> {
        self.stopped()?;
        let Some(stop) = &mut self.stop else { return Ok(String::new()) };
        let next = stop.selected.checked_add_signed(by.into()).filter(|next| *next < stop.frames.len());
        let next = next.ok_or(if by > 0 { "this is the oldest frame" } else { "this is the newest frame" })?;
        stop.selected = next;
        Ok(stop.frames[next].shown())
    }

    async fn evaluate(&mut self, expression: &str) -> Result<Result<String, String>, Gone> {
        let frame = match self.stopped() {
            Ok(stop) => stop.frames.get(stop.selected).map(|frame| frame.id),
            Err(why) => return Ok(Err(why)),
        };
        let arguments = json!({"expression": expression, "frameId": frame, "context": "repl"});
        let answer = self.ask("evaluate", arguments).await?;
        Ok(answer.map(|body| body["result"].as_str().unwrap_or_default().to_owned()))
    }

    /// Asks the debugger. Ctrl-C gives up waiting: it may be about to evaluate something
    /// without end.
    async fn ask(&mut self, command: &str, arguments: Value) -> Result<Result<Value, String>, Gone> {
        tokio::select! {
            answer = self.client.ask(command, arguments) => answer,
            asked = self.signals.next() => {
                self.is_over |= asked == Asked::Leave;
                Ok(Err("interrupted; the debugger goes on with it".to_owned()))
            }
        }
    }

    /// The process runs on, without breakpoints.
    async fn leave(mut self) {
        let bye = self.client.ask("disconnect", json!({"terminateDebuggee": false}));
        let _ = tokio::time::timeout(FAREWELL, bye).await;
    }
}

fn say(text: &str) {
    if !text.is_empty() {
        write(&format!("{text}\n"));
    }
}

/// A terminal that is gone is noticed when there is nothing more to read of it.
fn write(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
