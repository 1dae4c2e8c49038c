//! The loop: requests, news of files, and replies as far as the client takes them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::engine::Engine;
use super::watches::{News, Watches};
use super::writer::Writer;
use crate::protocol::logs::{LOGS_VERSION, LogReply, LogRequest};
use crate::protocol::{Decoder, encode};

/// How often all is looked at again, whatever the kernel tells.
const ROUND: Duration = Duration::from_secs(1);
/// The same where it tells nothing, or something is about to end.
const SHORT_ROUND: Duration = Duration::from_millis(200);
/// Lines that are written within this time go together.
const PAUSE: Duration = Duration::from_millis(3);

/// Serves a client over the standard streams until its end of file.
///
/// # Errors
/// When the streams can't be used, or the client breaks the rules.
pub fn serve_standard_streams() -> io::Result<()> {
    // A terminal sends these to all that runs in it; the client decides what they mean.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    signals.thread_block()?;
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    serve(input, output)
}

/// Serves a client until `input` ends or `output` is closed.
///
/// # Errors
/// When the streams can't be used, or the client breaks the rules.
pub fn serve(input: impl Read + AsFd, output: impl Write + Send + 'static) -> io::Result<()> {
    let mut server = Server {
        writer: Writer::start(output)?,
        watches: Watches::new(),
        engine: None,
        input,
        decoder: Decoder::new(),
        buffer: vec![0; 64 * 1024],
        credit: 0,
        is_over: false,
    };
    let outcome = server.run();
    let written = server.writer.finish();
    match outcome.and(written) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

struct Server<I> {
    writer: Writer,
    watches: Watches,
    engine: Option<Engine>,
    input: I,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// So many bytes of lines may still be sent; the last reply may be longer.
    credit: i64,
    is_over: bool,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    input: bool,
    news: bool,
}

impl<I: Read + AsFd> Server<I> {
    fn run(&mut self) -> io::Result<()> {
        let mut next_round = Instant::now() + ROUND;
        let mut last_news = Instant::now();
        while !self.is_over {
            self.reply()?;
            let now = Instant::now();
            let is_restless = self.watches.is_blind() || self.engine.as_ref().is_some_and(|engine| engine.is_restless(now));
            if is_restless {
                next_round = next_round.min(now + SHORT_ROUND);
            }
            let ready = self.wait(next_round.saturating_duration_since(now))?;
            if ready.input {
                self.read_requests()?;
            }
            if ready.news {
                std::thread::sleep(PAUSE.saturating_sub(last_news.elapsed()));
                last_news = Instant::now();
                self.take_news();
            }
            let now = Instant::now();
            if now >= next_round {
                next_round = now + ROUND;
                if let Some(engine) = &mut self.engine {
                    engine.rescan(now);
                }
            }
        }
        Ok(())
    }

    /// Replies as much as there is, or as the client takes.
    fn reply(&mut self) -> io::Result<()> {
        while self.writer.has_room()? {
            let Some(reply) = self.next() else { return Ok(()) };
            self.send(&reply)?;
            // What was asked, and what is about to be deleted, can't wait for the rest.
            let ready = self.wait(Duration::ZERO)?;
            if ready.input {
                self.read_requests()?;
            }
            if ready.news {
                self.take_news();
            }
            if self.is_over {
                break;
            }
        }
        Ok(())
    }

    /// What may be said next.
    fn next(&mut self) -> Option<LogReply> {
        let engine = self.engine.as_mut()?;
        if let Some(bytes) = engine.news_of_held() {
            return Some(LogReply::Held { bytes });
        }
        let reply = if self.credit > 0 { engine.next(Instant::now())? } else { return None };
        if let LogReply::Lines { bytes, .. } = &reply {
            self.credit -= i64::try_from(bytes.0.len()).unwrap_or(i64::MAX);
        }
        Some(reply)
    }

    fn send(&mut self, reply: &LogReply) -> io::Result<()> {
        let mut frame = Vec::new();
        encode(reply, &mut frame).map_err(io::Error::other)?;
        self.writer.send(frame)
    }

    fn wait(&self, timeout: Duration) -> io::Result<Ready> {
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        let news: Option<BorrowedFd<'_>> = self.watches.fd();
        let mut files = vec![PollFd::new(&self.input, PollFlags::IN), PollFd::new(self.writer.room(), PollFlags::IN)];
        files.extend(news.as_ref().map(|news| PollFd::new(news, PollFlags::IN)));
        match poll(&mut files, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |index: usize| files.get(index).is_some_and(|file| !file.revents().is_empty());
        Ok(Ready { input: is_ready(0), news: is_ready(2) })
    }

    fn read_requests(&mut self) -> io::Result<()> {
        let length = match self.input.read(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            length => length?,
        };
        self.is_over = length == 0;
        self.decoder.push(&self.buffer[..length]);
        loop {
            match self.decoder.pop::<LogRequest>() {
                Ok(Some(request)) => self.request(request)?,
                Ok(None) => return Ok(()),
                Err(error) => return self.fail(error.to_string()),
            }
        }
    }

    fn request(&mut self, request: LogRequest) -> io::Result<()> {
        let now = Instant::now();
        match (request, &mut self.engine) {
            (LogRequest::Start(settings), None) if settings.version == LOGS_VERSION => {
                self.credit = credit(settings.credit);
                match Engine::new(settings) {
                    Ok(engine) => self.engine = Some(engine),
                    Err(message) => return self.fail(message),
                }
            }
            (LogRequest::Start(settings), None) => {
                return self.fail(format!("the agent speaks version {LOGS_VERSION}, its client {}", settings.version));
            }
            (LogRequest::Open(requests), Some(engine)) => {
                for request in &requests {
                    if let Some(folder) = engine.open(request, since_epoch()) {
                        self.watches.add(request.id, &folder);
                        // What came between the two.
                        engine.renamed(request.id, now);
                    }
                }
            }
            (LogRequest::Taken { bytes }, Some(_)) => self.credit = self.credit.saturating_add(credit(bytes)),
            (LogRequest::Finish { id }, Some(engine)) => engine.finish(id, now),
            (LogRequest::Close { id }, Some(engine)) => engine.close(id),
            _ => return self.fail("a request came at the wrong time".into()),
        }
        Ok(())
    }

    /// Tells the client why it ends.
    fn fail(&mut self, message: String) -> io::Result<()> {
        self.is_over = true;
        self.send(&LogReply::Failed { message: message.clone() })?;
        Err(io::Error::other(message))
    }

    fn take_news(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let now = Instant::now();
        let mut seen = HashSet::new();
        for news in self.watches.take() {
            match news {
                News::Written(id) => engine.written(id),
                News::Renamed(id) if seen.insert(id) => engine.renamed(id, now),
                News::Renamed(_) => {}
                News::Everything => engine.rescan(now),
            }
        }
    }
}

fn credit(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn since_epoch() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
