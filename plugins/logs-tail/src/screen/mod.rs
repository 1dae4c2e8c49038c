//! `--ui`: the records on the whole screen, to be looked through while they come.
//!
//! [`store`] keeps the newest records, [`view`] is what of them is shown and what
//! keys do, [`layout`] puts it on rows, [`draw`] into cells. All of that is pure;
//! [`run`] joins it to the terminal.

mod draw;
mod filter;
mod layout;
mod store;
mod style;
mod terminal;
mod view;

use crate::lines::Record;
use crate::lines::assemble::Assembler;
use crate::lines::judge::{Judge, Sink};
use crate::lines::level::Level;
use crate::narrator::{Narrator, Note, Tone, tell_held};
use crate::render::path;
use crate::render::stamp::{Stamp, StampForm};
use crate::setup::Setup;
use devloop_core::logs::{Held, LogEvent};
use devloop_core::shutdown::Shutdown;
use devloop_core::{CommandError, ErrorContext, Result};
use draw::Looks;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{Event, KeyEventKind};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use store::Store;
use terminal::Screen;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use view::{Effect, View};

/// Records are kept up to so many bytes.
const KEPT: usize = 64 << 20;
/// Between two pictures: more than 30 a second nobody sees.
const FRAME: Duration = Duration::from_millis(33);
/// Batches of events that are taken in before keys are looked at again.
const AT_ONCE: usize = 8;
/// Terminals take no more than this from OSC 52 (tmux and xterm: about 100 KB).
const MOST_COPIED: usize = 74_000;

/// Where what comes comes from.
#[derive(Debug)]
pub(crate) struct Feeding {
    pub(crate) events_rx: mpsc::Receiver<Vec<LogEvent>>,
    pub(crate) held_rx: mpsc::UnboundedReceiver<Held>,
}

/// Shows what comes until the user has enough.
///
/// # Errors
/// When the terminal can't be taken or written.
pub(crate) fn run(setup: Setup, feeding: Feeding, shutdown: &Shutdown, handle: &Handle) -> Result<()> {
    let Feeding { mut events_rx, mut held_rx } = feeding;
    let mut screen = Screen::open().context("could not take the terminal")?;
    let mut keys = terminal::keys();
    let mut state = State::new(setup);
    let mut drawn = Instant::now();
    let mut is_stale = true;
    let mut is_open = true;
    while !state.is_over {
        if is_stale && drawn.elapsed() >= FRAME {
            state.view.catch_up(&state.feed.store);
            let State { view, feed, looks, .. } = &mut state;
            screen.terminal.draw(|frame| draw::draw(frame, view, &feed.store, looks)).context("could not draw")?;
            (drawn, is_stale) = (Instant::now(), false);
        }
        let due = [is_stale.then(|| drawn + FRAME), state.feed.assembler.next_due()].into_iter().flatten().min();
        let next = handle.block_on(async {
            tokio::select! {
                biased;
                () = shutdown.requested() => Next::End,
                key = keys.recv() => key.map_or(Next::End, Next::Key),
                events = events_rx.recv(), if is_open => events.map_or(Next::Closed, Next::Log),
                Some(held) = held_rx.recv() => Next::Held(held),
                () = sleep_until(due) => Next::Due,
            }
        });
        is_stale |= !matches!(next, Next::Due);
        match next {
            Next::End => break,
            Next::Key(event) => state.terminal_event(&event),
            Next::Closed => {
                is_open = false;
                state.feed.end();
            }
            Next::Log(events) => {
                let more = std::iter::from_fn(|| events_rx.try_recv().ok()).take(AT_ONCE);
                std::iter::once(events).chain(more).flatten().for_each(|event| state.feed.event(event));
            }
            Next::Held(held) => state.feed.note(&tell_held(&held)),
            Next::Due => {}
        }
        is_stale |= state.feed.release();
    }
    Ok(())
}

/// What happens next.
enum Next {
    Key(Event),
    Log(Vec<LogEvent>),
    Held(Held),
    /// A picture is due, or a record that is held.
    Due,
    /// There is nothing more to read; the user may still look.
    Closed,
    End,
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

struct State {
    feed: Feed,
    view: View,
    looks: Looks,
    is_over: bool,
}

impl State {
    fn new(setup: Setup) -> Self {
        let stamp = setup.look.stamp.clone();
        let mut view = View::default();
        view.stamps = stamp.is_some();
        let short = Stamp { form: StampForm::Custom("%H:%M:%S.%3f".into()), zone: TimeZone::system() };
        let looks = Looks { palette: setup.look.palette.clone(), stamp: stamp.unwrap_or(short) };
        let feed =
            Feed { assembler: Assembler::new(setup.joining), judge: setup.judge, store: Store::new(KEPT), narrator: Narrator::default() };
        Self { feed, view, looks, is_over: false }
    }

    fn terminal_event(&mut self, event: &Event) {
        let Event::Key(key) = event else { return };
        if key.kind == KeyEventKind::Release {
            return;
        }
        self.view.catch_up(&self.feed.store);
        match self.view.key(*key, &self.feed.store) {
            None => {}
            Some(Effect::Quit) => self.is_over = true,
            Some(Effect::Copy(text)) => self.view.message = Some(copied(&text)),
            Some(Effect::Save) => self.view.message = Some(self.save()),
        }
    }

    fn save(&self) -> String {
        let now = Timestamp::now().to_zoned(TimeZone::system());
        let name = format!("logs-tail-{}.log", now.strftime("%Y%m%d-%H%M%S"));
        match save(Path::new(&name), &self.view, &self.feed.store) {
            Ok(count) => format!("{count} records saved to {name}"),
            Err(error) => format!("could not write {name}: {error}"),
        }
    }
}

fn copied(text: &str) -> String {
    if text.len() > MOST_COPIED {
        return "the record is too long for the terminal's clipboard; s saves it".into();
    }
    match Screen::copy(text) {
        Ok(()) => "copied, if the terminal allows it".into(),
        Err(error) => format!("could not copy: {error}"),
    }
}

/// Writes the records that are shown to a new file.
fn save(path: &Path, view: &View, store: &Store) -> io::Result<usize> {
    // What is there already is the user's.
    let mut file = io::BufWriter::new(std::fs::File::create_new(path)?);
    let mut count = 0;
    for entry in view.shown().iter().filter_map(|number| store.get(*number)) {
        if let Some(timestamp) = entry.timestamp {
            write!(file, "{timestamp} ")?;
        }
        if let Some(source) = entry.source {
            write!(file, "{} ", path_of(store, source))?;
        }
        writeln!(file, "{}", entry.text)?;
        count += 1;
    }
    file.flush()?;
    Ok(count)
}

fn path_of(store: &Store, source: usize) -> String {
    store.origins().get(source).map(|origin| path(&origin.source)).unwrap_or_default()
}

/// From events to records in the store.
struct Feed {
    assembler: Assembler,
    judge: Judge,
    store: Store,
    narrator: Narrator,
}

impl Feed {
    fn event(&mut self, event: LogEvent) {
        if let Some(note) = self.narrator.tell(&event) {
            return self.note(&note);
        }
        let store = &mut self.store;
        match event {
            LogEvent::Line(line) => {
                // The store takes whatever comes.
                let _ = self.assembler.line(line, Instant::now(), &mut self.judge, store);
            }
            LogEvent::Opened(source) => store.mark(&source, true),
            LogEvent::Closed(source) => {
                let _ = self.assembler.close(&source, &mut self.judge, store);
                store.mark(&source, false);
                store.note(Level::Info, format!("{} is gone", path(&source)));
            }
            LogEvent::Happened(happening) => {
                let level = if happening.is_warning { Level::Warn } else { Level::Info };
                store.note(level, format!("{}: {}", happening.pod, happening.what));
            }
            _ => {}
        }
    }

    fn note(&mut self, note: &Note) {
        self.store.note(if note.tone == Tone::News { Level::Info } else { Level::Warn }, note.text.clone());
    }

    /// Lets go of records that waited long enough; whether there were any.
    fn release(&mut self) -> bool {
        let before = self.store.end();
        if self.assembler.next_due().is_some() {
            let _ = self.assembler.release(Some(Instant::now()), &mut self.judge, &mut self.store);
        }
        self.store.end() != before
    }

    fn end(&mut self) {
        let _ = self.assembler.release(None, &mut self.judge, &mut self.store);
        self.store.note(Level::Info, "that is all there is".into());
    }
}

impl Sink for Store {
    fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        Store::record(self, record);
        Ok(())
    }

    fn separator(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error of a screen that has no terminal to be on.
pub(crate) fn needs_terminal() -> CommandError {
    CommandError::usage("--ui needs a terminal for its screen and keys")
        .with_hint("leave it out where the output goes to a file or a program")
}
