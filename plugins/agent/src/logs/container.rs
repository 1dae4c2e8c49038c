//! The log of one container: its files in the order in which they were written,
//! read as one.
//!
//! A file stays open until it is read to its end and its name can't be mistaken
//! any more: what the kubelet deletes meanwhile is still read, and a file is known
//! by its inode for as long as it has the name that its successor will have.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::assemble::{Assembler, Line};
use super::begin::{Wanted, choose, tail};
use super::cri::parse;
use super::file::LogFile;
use super::names::{FileName, Packing, Part, order};
use crate::protocol::logs::{Instances, Loss, OpenLog, Position, Since};

/// The runtime may still write to a file that was renamed, until it has opened the
/// next for both streams.
const LINGER: Duration = Duration::from_secs(3);

/// A log that is read.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) folder: PathBuf,
    files: Vec<LogFile>,
    /// Those before had no more when they were asked last.
    reading: usize,
    /// Rotated files that were opened, or aren't wanted.
    known: BTreeSet<FileName>,
    /// The first run that is read, and the last.
    least: u32,
    most: u32,
    /// The run that is expected next, and the one being read.
    expected: Option<u32>,
    current: Option<u32>,
    since: Option<i64>,
    until: Option<i64>,
    /// So many lines are still wanted.
    left: Option<u64>,
    /// So many lines to be passed over: they were read before.
    skip: u32,
    assembler: Assembler,
    ready: VecDeque<Item>,
}

/// What comes next of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// With where to read on behind it; none for the end of a run that no newline ended.
    Line(Line, Option<Position>),
    Gap(Loss),
}

impl Container {
    /// Opens the files that are wanted.
    ///
    /// # Errors
    /// When there are none.
    pub(super) fn open(request: &OpenLog, root: &Path, now: i64) -> io::Result<Self> {
        let folder = root.join(&request.folder).join(&request.container);
        if [&request.folder, &request.container].iter().any(|name| name.contains('/') || *name == "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let since = request.since.map(|since| match since {
            Since::At(time) => time,
            Since::Ago(nanoseconds) => now.saturating_sub(i64::try_from(nanoseconds).unwrap_or(i64::MAX)),
        });
        let mut container = Self {
            folder,
            files: Vec::new(),
            reading: 0,
            known: BTreeSet::new(),
            least: 0,
            most: u32::MAX,
            expected: (request.instances == Instances::FromFirst && request.resume.is_none()).then_some(0),
            current: None,
            since,
            until: request.until,
            left: request.head,
            skip: 0,
            assembler: Assembler::default(),
            ready: VecDeque::new(),
        };
        let names = container.list()?;
        container.known.extend(names.iter().filter(|(name, ..)| name.part != Part::Current).map(|(name, ..)| name.clone()));
        for (name, packing, file) in names {
            match LogFile::open(&container.folder.join(file), name, packing) {
                Ok(file) => container.files.push(file),
                // Just deleted, or being written.
                Err(error) => drop(error),
            }
        }
        match request.resume {
            Some(position) => container.resume(position)?,
            None => {
                let wanted = Wanted { instances: request.instances, rotated: request.rotated, tail: request.tail, since };
                choose(&mut container.files, &wanted);
                if let Some(count) = request.tail {
                    container.skip = tail(&mut container.files, count)?;
                }
            }
        }
        if container.files.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        container.least = container.files[0].name.instance;
        if let Instances::Only(number) = request.instances {
            container.most = number;
        }
        container.mark_superseded(Instant::now());
        Ok(container)
    }

    /// Goes on where it was left; says so when that is gone.
    fn resume(&mut self, position: Position) -> io::Result<()> {
        let is_same = |file: &LogFile| file.name.instance == position.instance && file.first == Some(position.first);
        if let Some(index) = self.files.iter().position(is_same) {
            self.files.drain(..index);
            self.files[0].seek(position.offset)?;
            self.skip = position.skip;
            self.current = Some(position.instance);
            return Ok(());
        }
        self.files.retain(|file| {
            let is_later = file.first.is_none_or(|first| first > position.first);
            file.name.instance > position.instance || (file.name.instance == position.instance && is_later)
        });
        let until = self.files.first().and_then(|file| file.first);
        self.ready.push_back(Item::Gap(Loss::Rotated { until }));
        self.current = self.files.first().map(|file| file.name.instance);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(FileName, Packing, String)>> {
        let names: Vec<String> =
            std::fs::read_dir(&self.folder)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        Ok(order(names.iter().map(String::as_str)))
    }

    /// Looks for new files, and gives those up that are done with.
    pub(super) fn rescan(&mut self, now: Instant) {
        self.reading = 0;
        // A folder that is gone has no new ones.
        for (name, packing, file) in self.list().unwrap_or_default() {
            let is_known = name.part != Part::Current && self.known.contains(&name);
            if is_known || name.instance < self.least || name.instance > self.most {
                continue;
            }
            let Ok(opened) = LogFile::open(&self.folder.join(file), name.clone(), packing) else { continue };
            if name.part != Part::Current {
                self.known.insert(name.clone());
            }
            match self.files.iter_mut().find(|file| file.inode.is_some() && file.inode == opened.inode) {
                Some(file) => file.name = name,
                None => self.files.push(opened),
            }
        }
        self.files.sort_by(|one, other| one.name.cmp(&other.name));
        self.mark_superseded(now);
        self.retire(now);
    }

    /// One of the files was written to, perhaps one that was renamed already.
    pub(super) fn written(&mut self) {
        self.reading = 0;
    }

    fn mark_superseded(&mut self, now: Instant) {
        let last = self.files.len().saturating_sub(1);
        for file in &mut self.files[..last] {
            file.superseded.get_or_insert(now);
        }
    }

    /// Gives up files that won't get another line, and won't be mistaken for new
    /// ones.
    fn retire(&mut self, now: Instant) {
        self.files.retain(|file| {
            let has_waited = file.superseded.is_some_and(|since| now.duration_since(since) > LINGER);
            let is_unmistakable = file.name.part != Part::Current || file.is_deleted();
            !(has_waited && is_unmistakable && file.is_read())
        });
    }

    /// Whether a file was renamed a moment ago, and may still be written to.
    pub(super) fn lingers(&self, now: Instant) -> bool {
        self.files.iter().filter_map(|file| file.superseded).any(|since| now.duration_since(since) <= LINGER)
    }

    /// Bytes that the kubelet has deleted and that are still to be read.
    pub(super) fn held(&self) -> u64 {
        self.files.iter().map(LogFile::held).sum()
    }

    /// Gives up the oldest file that the kubelet has deleted; says so.
    pub(super) fn let_go(&mut self) {
        if let Some(index) = self.files.iter().position(|file| file.held() > 0)
            && self.files.len() > 1
        {
            self.reading = 0;
            let bytes = self.files.remove(index).held();
            self.ready.push_back(Item::Gap(Loss::Dropped { bytes }));
        }
    }

    /// The next line or gap; none at the end, for now.
    pub(super) fn next(&mut self, block: usize) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if self.left == Some(0) {
                return None;
            }
            let mut line = Line::default();
            let Some(position) = self.read(block, &mut line) else { return self.ready.pop_front() };
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            let is_wanted =
                self.since.is_none_or(|since| line.timestamp >= since) && self.until.is_none_or(|until| line.timestamp <= until);
            if is_wanted {
                self.left = self.left.map(|left| left - 1);
                let item = Item::Line(line, Some(position));
                if self.ready.is_empty() {
                    return Some(item);
                }
                self.ready.push_back(item);
            }
        }
    }

    /// What has no end and, as nothing more comes, won't get one.
    pub(super) fn finish(&mut self) -> Vec<Line> {
        let lines = self.assembler.finish();
        let left = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        lines.into_iter().take(left).collect()
    }

    /// Whether as many lines were given as are wanted.
    pub(super) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Reads the next line, and answers where to read on; none at the end, for now.
    /// What is no line becomes a gap.
    fn read(&mut self, block: usize, line: &mut Line) -> Option<Position> {
        for index in self.reading..self.files.len() {
            self.reading = index;
            let mut damaged = 0;
            let found = loop {
                let file = &mut self.files[index];
                let raw = match file.next_line(block) {
                    Ok(Some(raw)) => raw,
                    Ok(None) => {
                        if file.is_truncated() {
                            self.ready.push_back(Item::Gap(Loss::Truncated));
                            if file.rewind().is_ok() {
                                file.first = None;
                                continue;
                            }
                        }
                        break None;
                    }
                    // A compressed file is damaged.
                    Err(_) => {
                        self.ready.push_back(Item::Gap(Loss::Damaged { bytes: damaged }));
                        damaged = 0;
                        break None;
                    }
                };
                let Some(fragment) = parse(file.bytes(&raw)) else {
                    damaged += raw.end - raw.offset;
                    continue;
                };
                let (instance, first) = (file.name.instance, file.first.unwrap_or(fragment.timestamp));
                if self.current != Some(instance) {
                    // The end of the run before has no newline.
                    let rest = self.assembler.finish();
                    self.ready.extend(rest.into_iter().map(|line| Item::Line(line, None)));
                    if let Some(expected) =
                        self.expected.or(self.current.map(|current| current + 1)).filter(|expected| instance > *expected)
                    {
                        self.ready.push_back(Item::Gap(Loss::Instances { count: instance - expected }));
                    }
                    self.expected = None;
                    self.current = Some(instance.max(self.current.unwrap_or(0)));
                }
                let start = Position { instance, first, offset: raw.offset, skip: 0 };
                if self.assembler.push(fragment, raw.cut, start, line) {
                    break Some(self.assembler.resume().unwrap_or(Position { offset: raw.end, ..start }));
                }
            };
            if damaged > 0 {
                self.ready.push_back(Item::Gap(Loss::Damaged { bytes: damaged }));
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }
}
