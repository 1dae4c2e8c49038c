//! Where to begin in the files that are there.

use std::collections::VecDeque;
use std::io;

use super::assemble::{Assembler, Line};
use super::cri::parse;
use super::file::{BLOCK, LogFile};
use super::names::Part;
use crate::protocol::logs::{Instances, Position};

/// What of the files that are there is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) instances: Instances,
    pub(super) rotated: bool,
    pub(super) tail: Option<u64>,
    /// In nanoseconds since 1970.
    pub(super) since: Option<i64>,
}

/// Drops the files in front that aren't wanted. Without another wish it is what
/// `kubectl logs` shows: the file that is written to, of the newest run.
pub(super) fn choose(files: &mut Vec<LogFile>, wanted: &Wanted) {
    match wanted.instances {
        Instances::All | Instances::FromFirst => {}
        Instances::Only(number) => files.retain(|file| file.name.instance == number),
        Instances::Newest => {
            let newest = files.last().map(|file| file.name.instance);
            files.retain(|file| Some(file.name.instance) == newest);
        }
    }
    let is_whole = wanted.rotated
        || wanted.tail.is_some()
        || wanted.since.is_some()
        || matches!(wanted.instances, Instances::All | Instances::FromFirst);
    if !is_whole {
        let last = files.len().saturating_sub(1);
        let mut index = 0;
        files.retain(|file| {
            index += 1;
            // Between its renaming and the next one, the last is a rotated one.
            index > last || file.name.part == Part::Current
        });
    }
    if let Some(since) = wanted.since {
        // The last is kept: it may be written to.
        let old = files.iter().take_while(|file| file.modified().is_some_and(|modified| modified < since)).count();
        files.drain(..old.min(files.len().saturating_sub(1)));
    }
}

/// Leaves `count` lines in front of the end; answers how many lines from the new
/// beginning on are not among them, as a line may begin before the one before it
/// has ended.
pub(super) fn tail(files: &mut Vec<LogFile>, count: u64) -> io::Result<u32> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut left = count;
    let mut begin = files.len();
    let mut place = Position { instance: 0, first: 0, offset: 0, skip: 0 };
    // From the last file back, until there are enough.
    for index in (0..files.len()).rev() {
        let (lines, end) = starts(&mut files[index], left)?;
        begin = index;
        place = if left == 0 { end } else { lines.front().copied().unwrap_or(Position { offset: 0, ..end }) };
        if lines.len() >= left {
            break;
        }
        left -= lines.len();
        place = Position { offset: 0, skip: 0, ..place };
    }
    for (index, file) in files.iter_mut().enumerate().skip(begin) {
        file.rewind()?;
        if index == begin {
            file.seek(place.offset)?;
        }
    }
    files.drain(..begin);
    Ok(place.skip)
}

/// Where the last `count` lines of a file begin, and where the next one will.
fn starts(file: &mut LogFile, count: usize) -> io::Result<(VecDeque<Position>, Position)> {
    let mut found = VecDeque::new();
    let mut assembler = Assembler::default();
    let mut line = Line::default();
    let mut next = Position { instance: file.name.instance, first: 0, offset: 0, skip: 0 };
    file.rewind()?;
    while let Some(raw) = file.next_line(BLOCK)? {
        let start = assembler.resume().unwrap_or(Position { offset: raw.offset, skip: 0, ..next });
        let at = Position { offset: raw.offset, skip: 0, ..next };
        let Some(fragment) = parse(file.bytes(&raw)) else { continue };
        if assembler.push(fragment, 0, at, &mut line) {
            if count > 0 {
                if found.len() == count {
                    found.pop_front();
                }
                found.push_back(start);
            }
            line.message.clear();
        }
        next.offset = raw.end;
    }
    let end = assembler.resume().unwrap_or(next);
    Ok((found, end))
}
