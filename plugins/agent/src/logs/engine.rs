//! All logs of a node, read as one stream: by time, or in turns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use regex::bytes::RegexSet;

use super::container::{Container, Item};
use super::file::BLOCK;
use crate::protocol::ByteString;
use crate::protocol::logs::{BATCH_BYTES, LogReply, LogSettings, OpenLog, Position, push_line};

/// So much memory is for the blocks of all files together.
const BLOCKS_BYTES: usize = 16 << 20;
const LEAST_BLOCK: usize = 16 * 1024;
/// So many lines are looked at before requests are.
const LINES_A_TURN: usize = 50_000;
/// So much of one log comes at once where they aren't ordered.
const TURN_BYTES: usize = 32 * 1024;
/// How long the files of a pod that is gone have to stay as they are.
const QUIET: Duration = Duration::from_secs(2);

/// Reads logs.
#[derive(Debug)]
pub(super) struct Engine {
    settings: LogSettings,
    include: RegexSet,
    exclude: RegexSet,
    root: PathBuf,
    logs: BTreeMap<u32, Log>,
    /// Those whose next line is known, by its time.
    heads: BinaryHeap<Reverse<(i64, u32)>>,
    /// Those that may have more.
    dirty: BTreeSet<u32>,
    /// Whose turn it is, where they aren't ordered.
    turns: VecDeque<u32>,
    replies: VecDeque<LogReply>,
    batch: Batch,
    held: u64,
    held_said: u64,
}

#[derive(Debug)]
struct Log {
    container: Container,
    head: Option<Item>,
    /// The latest time that was given: a line is never put before one that was
    /// written before it.
    latest: i64,
    /// How far it is read with what is in the batch, if it has lines there.
    moved: Option<Position>,
    is_caught_up: bool,
    finishing: Option<Instant>,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The logs that it moves on.
    moved: Vec<u32>,
}

impl Engine {
    /// # Errors
    /// When a regular expression can't be read; with the reason.
    pub(super) fn new(settings: LogSettings) -> Result<Self, String> {
        let set = |patterns: &[String]| RegexSet::new(patterns).map_err(|error| error.to_string());
        Ok(Self {
            include: set(&settings.include)?,
            exclude: set(&settings.exclude)?,
            root: settings.root.as_path().to_owned(),
            settings,
            logs: BTreeMap::new(),
            heads: BinaryHeap::new(),
            dirty: BTreeSet::new(),
            turns: VecDeque::new(),
            replies: VecDeque::new(),
            batch: Batch::default(),
            held: 0,
            held_said: 0,
        })
    }

    /// Opens a log; answers its folder. `now` in nanoseconds since 1970.
    pub(super) fn open(&mut self, request: &OpenLog, now: i64) -> Option<PathBuf> {
        match Container::open(request, &self.root, now) {
            Ok(container) => {
                let folder = container.folder.clone();
                let log = Log { container, head: None, latest: i64::MIN, moved: None, is_caught_up: false, finishing: None };
                self.logs.insert(request.id, log);
                self.dirty.insert(request.id);
                Some(folder)
            }
            Err(error) => {
                self.replies.push_back(LogReply::Missing { id: request.id, reason: error.to_string() });
                None
            }
        }
    }

    /// The pod is gone.
    pub(super) fn finish(&mut self, id: u32, now: Instant) {
        if let Some(log) = self.logs.get_mut(&id) {
            log.finishing.get_or_insert(now);
            self.dirty.insert(id);
        }
    }

    pub(super) fn close(&mut self, id: u32) {
        self.logs.remove(&id);
    }

    /// A file was written to.
    pub(super) fn written(&mut self, id: u32) {
        if let Some(log) = self.logs.get_mut(&id) {
            log.container.written();
            self.dirty.insert(id);
        }
    }

    /// Files were made, renamed or deleted. What is new is open afterwards.
    pub(super) fn renamed(&mut self, id: u32, now: Instant) {
        if let Some(log) = self.logs.get_mut(&id) {
            log.container.rescan(now);
            self.dirty.insert(id);
        }
    }

    /// Looks at everything again: news may be lost.
    pub(super) fn rescan(&mut self, now: Instant) {
        let ids: Vec<u32> = self.logs.keys().copied().collect();
        ids.into_iter().for_each(|id| self.renamed(id, now));
        self.limit_held();
    }

    /// Whether it has to be looked at soon again.
    pub(super) fn is_restless(&self, now: Instant) -> bool {
        self.logs.values().any(|log| log.finishing.is_some() || log.container.lingers(now))
    }

    /// What the kubelet has deleted stays only as long as there is room.
    fn limit_held(&mut self) {
        let mut held: u64 = self.logs.values().map(|log| log.container.held()).sum();
        while held > self.settings.held_limit {
            let Some((id, most)) = self.logs.iter().map(|(id, log)| (*id, log.container.held())).max_by_key(|(_, held)| *held) else {
                break;
            };
            if let Some(log) = self.logs.get_mut(&id) {
                log.container.let_go();
                self.dirty.insert(id);
                let left = log.container.held();
                if left >= most {
                    break;
                }
            }
            held = self.logs.values().map(|log| log.container.held()).sum();
        }
        self.held = held;
    }

    /// How much is kept of what the kubelet has deleted, if that isn't said yet.
    pub(super) fn news_of_held(&mut self) -> Option<u64> {
        (std::mem::replace(&mut self.held_said, self.held) != self.held).then_some(self.held)
    }

    /// What is to be said next; none until something is written.
    pub(super) fn next(&mut self, now: Instant) -> Option<LogReply> {
        if self.replies.is_empty() {
            self.look(now);
            if self.settings.ordered {
                self.merge(now)
            } else {
                self.take_turns(now)
            }
            self.flush();
        }
        self.replies.pop_front()
    }

    /// Finds the next line of those that may have one.
    fn look(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.dirty) {
            if self.logs.get(&id).is_some_and(|log| log.head.is_none()) {
                self.advance(id, now);
            }
        }
    }

    fn block(&self) -> usize {
        (BLOCKS_BYTES / self.logs.len().max(1)).clamp(LEAST_BLOCK, BLOCK)
    }

    /// Finds a log's next line, or that it is at its end.
    fn advance(&mut self, id: u32, now: Instant) {
        let block = self.block();
        let follows = self.settings.follow;
        let Some(log) = self.logs.get_mut(&id) else { return };
        log.head = log.container.next(block);
        match &log.head {
            Some(Item::Line(line, _)) => {
                log.latest = log.latest.max(line.timestamp);
                let key = log.latest;
                self.wait_in_line(id, key);
                return;
            }
            Some(Item::Gap(_)) => {
                let key = log.latest;
                self.wait_in_line(id, key);
                return;
            }
            None => {}
        }
        let is_first_time = !std::mem::replace(&mut log.is_caught_up, true);
        if is_first_time {
            self.say(LogReply::CaughtUp { id });
        }
        let Some(log) = self.logs.get_mut(&id) else { return };
        let is_over = match log.finishing {
            _ if !follows || log.container.is_full() => true,
            Some(since) => now.duration_since(since) > QUIET,
            None => false,
        };
        if is_over {
            for line in log.container.finish() {
                self.put(id, &line.message, line.timestamp, line.cut, None);
            }
            self.logs.remove(&id);
            self.say(LogReply::Ended { id });
        }
    }

    fn wait_in_line(&mut self, id: u32, key: i64) {
        if self.settings.ordered {
            self.heads.push(Reverse((key, id)));
        } else {
            self.turns.push_back(id);
        }
    }

    fn merge(&mut self, now: Instant) {
        for _ in 0..LINES_A_TURN {
            if self.batch.bytes.len() >= BATCH_BYTES {
                break;
            }
            let Some(Reverse((_, id))) = self.heads.pop() else { break };
            self.give(id);
            self.advance(id, now);
        }
    }

    fn take_turns(&mut self, now: Instant) {
        let mut lines = 0;
        while lines < LINES_A_TURN && self.batch.bytes.len() < BATCH_BYTES {
            let Some(id) = self.turns.pop_front() else { break };
            let end = (self.batch.bytes.len() + TURN_BYTES).min(BATCH_BYTES);
            loop {
                lines += 1;
                self.give(id);
                self.advance(id, now);
                // It is the last in line if it has more.
                if self.batch.bytes.len() >= end || lines >= LINES_A_TURN || self.turns.back() != Some(&id) {
                    break;
                }
                self.turns.pop_back();
            }
        }
    }

    /// Gives the line or gap that is next.
    fn give(&mut self, id: u32) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        match log.head.take() {
            Some(Item::Line(line, position)) => {
                if log.finishing.is_some() {
                    log.finishing = Some(Instant::now());
                }
                self.put(id, &line.message, line.timestamp, line.cut, position);
            }
            Some(Item::Gap(loss)) => self.say(LogReply::Gap { id, loss }),
            None => {}
        }
    }

    fn put(&mut self, id: u32, message: &[u8], timestamp: i64, cut: u64, position: Option<Position>) {
        let is_wanted = (self.include.is_empty() || self.include.is_match(message)) && !self.exclude.is_match(message);
        if !is_wanted {
            return;
        }
        let replies = &mut self.replies;
        push_line(&mut self.batch.bytes, id, timestamp, message, cut, |bytes| {
            replies.push_back(LogReply::Lines { bytes: ByteString(std::mem::take(bytes)), positions: Vec::new() });
        });
        if let (Some(position), Some(log)) = (position, self.logs.get_mut(&id))
            && log.moved.replace(position).is_none()
        {
            self.batch.moved.push(id);
        }
    }

    /// Says something behind the lines before it.
    fn say(&mut self, reply: LogReply) {
        self.flush();
        self.replies.push_back(reply);
    }

    fn flush(&mut self) {
        if self.batch.bytes.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.batch.bytes);
        let logs = &mut self.logs;
        let moved = self.batch.moved.drain(..);
        // One that is gone has ended, which is said next.
        let positions = moved.filter_map(|id| logs.get_mut(&id)?.moved.take().map(|position| (id, position))).collect();
        self.replies.push_back(LogReply::Lines { bytes: ByteString(bytes), positions });
    }
}
