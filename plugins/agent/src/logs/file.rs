//! One log file, read in blocks, line by line, in bounded memory.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use flate2::bufread::MultiGzDecoder;

use super::names::{FileName, Packing};
use crate::protocol::logs::LINE_LIMIT;
use crate::protocol::time::parse_time;

/// What the runtime writes before a line.
const PREFIX_LIMIT: usize = 128;
/// Enough of a file for the time of its first line.
const TIME_LIMIT: usize = 64;

/// A log file that is read.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) name: FileName,
    /// Of a plain file, for as long as it is open.
    pub(super) inode: Option<u64>,
    /// The time of its first line, once it has one.
    pub(super) first: Option<i64>,
    /// When a later file was seen.
    pub(super) superseded: Option<Instant>,
    input: Input,
    buffer: Vec<u8>,
    /// Where the next line begins in the buffer.
    start: usize,
    /// No newline is before.
    searched: usize,
    /// Where the buffer begins in the file.
    base: u64,
    /// So many bytes of a very long line were dropped.
    dropped: u64,
    /// Whether there was no whole line more, when one was asked for.
    is_at_end: bool,
    /// Compressed, and damaged from here on.
    is_broken: bool,
}

#[derive(Debug)]
enum Input {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

/// A whole line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawLine {
    /// Of the buffer, without the newline.
    pub(super) range: Range<usize>,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Where the next one does.
    pub(super) end: u64,
    /// How many of its bytes were dropped.
    pub(super) cut: u64,
}

impl LogFile {
    pub(super) fn open(path: &Path, name: FileName, packing: Packing) -> io::Result<Self> {
        let file = File::open(path)?;
        let (input, inode) = match packing {
            Packing::Plain => {
                let inode = file.metadata()?.ino();
                (Input::Plain(file), Some(inode))
            }
            Packing::Gzip => (Input::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(file)))), None),
        };
        let mut opened = Self {
            name,
            inode,
            first: None,
            superseded: None,
            input,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            base: 0,
            dropped: 0,
            is_at_end: false,
            is_broken: false,
        };
        opened.find_first()?;
        Ok(opened)
    }

    /// Finds the time of the first line, if there is one by now.
    fn find_first(&mut self) -> io::Result<()> {
        match &mut self.input {
            Input::Plain(file) => {
                let mut head = [0; TIME_LIMIT];
                let length = file.read_at(&mut head, 0)?;
                self.first = first_time(&head[..length]);
            }
            Input::Gzip(_) => {
                while self.buffer.len() < TIME_LIMIT && self.fill(TIME_LIMIT)? > 0 {}
                self.first = first_time(&self.buffer);
            }
        }
        Ok(())
    }

    /// The last time it was written to, in nanoseconds since 1970.
    pub(super) fn modified(&self) -> Option<i64> {
        let metadata = self.file().metadata().ok()?;
        metadata.mtime().checked_mul(1_000_000_000)?.checked_add(metadata.mtime_nsec())
    }

    /// Bytes that are left to be read although the file has no name any more.
    pub(super) fn held(&self) -> u64 {
        match &self.input {
            Input::Plain(file) => match file.metadata() {
                Ok(metadata) if metadata.nlink() == 0 => metadata.size().saturating_sub(self.base + self.start as u64),
                _ => 0,
            },
            Input::Gzip(_) => 0,
        }
    }

    /// Whether it has no name any more.
    pub(super) fn is_deleted(&self) -> bool {
        self.file().metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    fn file(&self) -> &File {
        match &self.input {
            Input::Plain(file) => file,
            Input::Gzip(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// Where the next line begins.
    pub(super) fn position(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Goes on at a place; in a compressed file only forward.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.input {
            Input::Plain(file) => {
                file.seek(SeekFrom::Start(offset))?;
                self.reset(offset);
            }
            Input::Gzip(_) => {
                while self.position() < offset {
                    if self.start == self.buffer.len() && self.fill(BLOCK)? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let wanted = usize::try_from(offset - self.position()).unwrap_or(usize::MAX);
                    self.start += wanted.min(self.buffer.len() - self.start);
                    self.searched = self.start;
                }
            }
        }
        Ok(())
    }

    /// Goes back to the beginning, as a file that was only looked at.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        match &mut self.input {
            Input::Plain(_) => self.seek(0),
            Input::Gzip(decoder) => {
                let mut file = decoder.get_ref().get_ref().try_clone()?;
                file.rewind()?;
                self.input = Input::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(file))));
                self.reset(0);
                Ok(())
            }
        }
    }

    fn reset(&mut self, offset: u64) {
        self.buffer.clear();
        (self.start, self.searched, self.base, self.dropped, self.is_broken) = (0, 0, offset, 0, false);
    }

    /// Whether the file is shorter than what was read of it.
    pub(super) fn is_truncated(&self) -> bool {
        let end = self.base + self.buffer.len() as u64 + self.dropped;
        matches!(&self.input, Input::Plain(file) if file.metadata().is_ok_and(|metadata| metadata.size() < end))
    }

    /// Whether all whole lines were given.
    pub(super) fn is_read(&self) -> bool {
        let end = self.base + self.buffer.len() as u64 + self.dropped;
        let is_longer = matches!(&self.input, Input::Plain(file) if file.metadata().is_ok_and(|metadata| metadata.size() > end));
        self.is_at_end && !is_longer
    }

    /// The next whole line; none at the end, for now. Blocks of `block` bytes are
    /// read when they are needed.
    pub(super) fn next_line(&mut self, block: usize) -> io::Result<Option<RawLine>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let end = self.searched + at;
                let offset = self.position();
                let range = self.start..end;
                let cut = std::mem::take(&mut self.dropped);
                self.start = end + 1;
                self.searched = self.start;
                self.base += cut;
                self.is_at_end = false;
                if offset == 0 && self.first.is_none() {
                    self.first = first_time(&self.buffer[range.clone()]);
                }
                return Ok(Some(RawLine { range, offset, end: self.position(), cut }));
            }
            self.searched = self.buffer.len();
            // What is followed grows by little.
            let block = if self.is_at_end { block.min(SMALL_BLOCK) } else { block };
            self.is_at_end = true;
            if self.fill(block)? == 0 {
                return Ok(None);
            }
        }
    }

    /// What a line that was given says; until the next one is asked for.
    pub(super) fn bytes(&self, line: &RawLine) -> &[u8] {
        &self.buffer[line.range.clone()]
    }

    fn fill(&mut self, block: usize) -> io::Result<usize> {
        if self.is_broken {
            return Ok(0);
        }
        // What was given is dropped here, once a block.
        self.buffer.drain(..self.start);
        self.base += self.start as u64;
        self.searched -= self.start;
        self.start = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + block, 0);
        let read = loop {
            let read = match &mut self.input {
                Input::Plain(file) => file.read(&mut self.buffer[kept..]),
                Input::Gzip(decoder) => decoder.read(&mut self.buffer[kept..]),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(kept + *read.as_ref().unwrap_or(&0));
        // Said once; what is behind is lost.
        self.is_broken = read.is_err() && matches!(self.input, Input::Gzip(_));
        if kept > LINE_LIMIT + PREFIX_LIMIT {
            self.drop_middle(kept);
        }
        if self.buffer.capacity() > 4 * BLOCK && self.buffer.len() < BLOCK {
            self.buffer.shrink_to(BLOCK);
        }
        read
    }

    /// Of a line that is too long, what came last is dropped up to its newline.
    fn drop_middle(&mut self, kept: usize) {
        let end = memchr::memchr(b'\n', &self.buffer[kept..]).map_or(self.buffer.len(), |at| kept + at);
        self.buffer.drain(kept..end);
        self.dropped += (end - kept) as u64;
        self.searched = kept;
    }
}

/// So much is read at once where memory allows.
pub(super) const BLOCK: usize = 256 * 1024;
/// So much of a file that was read to its end.
const SMALL_BLOCK: usize = 16 * 1024;

fn first_time(text: &[u8]) -> Option<i64> {
    parse_time(text.split(|byte| *byte == b' ').next()?)
}

#[cfg(test)]
mod tests {
    use super::super::names::FileName;
    use super::*;
    use std::io::Write;

    fn open(path: &Path) -> LogFile {
        let (name, packing) = FileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
        LogFile::open(path, name, packing).unwrap()
    }

    fn rest(file: &mut LogFile, block: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = file.next_line(block).unwrap() {
            lines.push(format!("{}..{} {}", line.offset, line.end, String::from_utf8_lossy(file.bytes(&line))));
        }
        lines
    }

    #[test]
    fn lines_are_found_whatever_the_blocks_and_later_ones_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:00Z a\n\nlong line\nbeg").unwrap();
        for block in [1, 2, 7, 4096] {
            let mut file = open(&path);
            assert_eq!(rest(&mut file, block), ["0..23 2026-01-01T00:00:00Z a", "23..24 ", "24..34 long line"], "{block}");
            assert_eq!(file.first, Some(1_767_225_600_000_000_000));
        }
        let mut file = open(&path);
        rest(&mut file, 4096);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"in\n").unwrap();
        assert_eq!(rest(&mut file, 4096), ["34..40 begin"]);
        file.seek(24).unwrap();
        assert_eq!(rest(&mut file, 3), ["24..34 long line", "34..40 begin"]);
        assert!(!file.is_truncated());
        std::fs::write(&path, "x").unwrap();
        assert!(file.is_truncated() && !file.is_deleted());
        std::fs::remove_file(&path).unwrap();
        assert!(file.is_deleted());
    }

    #[test]
    fn a_compressed_file_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log.20260101-000000.gz");
        let mut encoder = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        encoder.write_all(b"2026-01-01T00:00:00Z a\nb\nc\n").unwrap();
        encoder.finish().unwrap();
        let mut file = open(&path);
        assert_eq!(file.first, Some(1_767_225_600_000_000_000));
        file.seek(23).unwrap();
        assert_eq!(rest(&mut file, 10), ["23..25 b", "25..27 c"]);
        file.rewind().unwrap();
        assert_eq!(rest(&mut file, 10).len(), 3);
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut content = b"2026-01-01T00:00:00Z stdout F ".to_vec();
        content.resize(20 << 20, b'x');
        content.extend_from_slice(b"\nnext\n");
        std::fs::write(&path, &content).unwrap();
        let mut file = open(&path);
        let line = file.next_line(BLOCK).unwrap().unwrap();
        assert_eq!(file.bytes(&line).len() as u64 + line.cut, 20 << 20);
        assert!(file.buffer.capacity() < 4 << 20, "{}", file.buffer.capacity());
        assert_eq!((line.offset, line.end), (0, (20 << 20) + 1));
        let line = file.next_line(BLOCK).unwrap().unwrap();
        assert_eq!((file.bytes(&line), line.end), (&b"next"[..], content.len() as u64));
    }
}
