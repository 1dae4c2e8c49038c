//! The log: records that are appended one by one, each with its length and the
//! beginning of its hash before it. What is behind a record that is not whole
//! was never acted upon.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::protocol::{ByteString, ErrorKind, ProcessId};

const HEADER: usize = 8;

/// One thing that was, before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// What lay at a path.
    Path { path: ByteString, was: Was },
    /// What a process ran.
    Program(Program),
    /// It still does: replacing it failed.
    NotReplaced { process: ProcessId },
    /// All paths are of this volume, from its folder on.
    Volume(Volume),
    /// It was changed for such a pod, or for a container that is in none.
    For { name: String },
}

/// A folder of a file system that is not the container's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Major and minor number, as `8:1`.
    pub(crate) device: String,
    /// Another one can have the device number later.
    pub(crate) file_system: u64,
    /// The folder, from the root of the file system.
    pub(crate) folder: ByteString,
}

/// The program of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) process: ProcessId,
    pub(crate) path: ByteString,
    pub(crate) arguments: Vec<ByteString>,
}

/// What lay at a path. Owners are user and group, times seconds and nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Was {
    Absent,
    File {
        /// The number of the file that holds its content.
        content: u64,
        /// Device and inode.
        identity: (u64, u64),
        size: u64,
        owner: (u32, u32),
        mode: u32,
        modified: (i64, u32),
    },
    Link {
        target: ByteString,
        owner: (u32, u32),
        modified: (i64, u32),
    },
    Directory {
        owner: (u32, u32),
        mode: u32,
        modified: (i64, u32),
    },
    /// A FIFO, socket or device.
    Special {
        mode: u32,
        device: u64,
        owner: (u32, u32),
        modified: (i64, u32),
    },
}

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens or makes the log; what is not whole at its end is cut off.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Record>), Failure> {
        let failed = |what: &'static str| Failure::io(format!("{what} {}", path.display()));
        let file = File::options().create(true).read(true).append(true).open(path).map_err(failed("open"))?;
        let log = Self { path: path.to_owned(), file };
        let bytes = log.bytes()?;
        let (records, length) = parse(&bytes);
        if length < bytes.len() {
            log.file.set_len(length as u64).map_err(failed("cut the end off"))?;
        }
        Ok((log, records))
    }

    /// What a log holds, whoever writes to it.
    pub(super) fn peek(path: &Path) -> Vec<Record> {
        std::fs::read(path).map(|bytes| parse(&bytes).0).unwrap_or_default()
    }

    pub(super) fn append(&mut self, record: &Record) -> Result<(), Failure> {
        let body = postcard::to_stdvec(record)
            .map_err(|error| Failure::new(ErrorKind::Io, format!("cannot write to {}: {error}", self.path.display())))?;
        let length = u32::try_from(body.len())
            .map_err(|_| Failure::new(ErrorKind::Unsupported, "a path or the arguments of a process are too long to be taken down"))?;
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend_from_slice(&sum(&body));
        frame.extend_from_slice(&body);
        let end = self.file.metadata().map(|metadata| metadata.len());
        // One call, so that it is there as a whole or, at a full disk, in part.
        self.file.write_all(&frame).map_err(|error| {
            if let Ok(end) = end {
                let _ = self.file.set_len(end);
            }
            Failure::io(format_args!("write to {}", self.path.display()))(error)
        })
    }

    pub(super) fn read(&self) -> Result<Vec<Record>, Failure> {
        Ok(parse(&self.bytes()?).0)
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        let mut file = &self.file;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut bytes))
            .map_err(Failure::io(format_args!("read {}", self.path.display())))?;
        Ok(bytes)
    }
}

/// The programs that were replaced: the first of each process.
pub(super) fn programs(records: &[Record]) -> Vec<Program> {
    let mut programs: Vec<Program> = Vec::new();
    for record in records {
        match record {
            Record::Program(program) => programs.push(program.clone()),
            Record::NotReplaced { process } => programs.retain(|program| program.process != *process),
            Record::Path { .. } | Record::Volume(_) | Record::For { .. } => {}
        }
    }
    programs
}

fn sum(body: &[u8]) -> [u8; 4] {
    let hash = blake3::hash(body);
    let [first, second, third, fourth, ..] = *hash.as_bytes();
    [first, second, third, fourth]
}

/// The records, and how many bytes they take.
fn parse(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, length)) = bytes.get(at..).and_then(parse_one) {
        records.push(record);
        at += length;
    }
    (records, at)
}

fn parse_one(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let body = rest.get(..length).filter(|body| sum(body) == *expected)?;
    Some((postcard::from_bytes(body).ok()?, HEADER + length))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn record(number: u32) -> Record {
        Record::Path { path: format!("/app/{number}").as_str().into(), was: Was::Absent }
    }

    proptest! {
        #[test]
        fn a_log_that_is_cut_holds_what_was_whole(count in 0_u32..6, cut in any::<prop::sample::Index>(), garbage in vec(any::<u8>(), 0..20)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let (mut log, _) = Log::open(&path).unwrap();
            let mut ends = vec![0];
            for number in 0..count {
                log.append(&record(number)).unwrap();
                ends.push(std::fs::metadata(&path).unwrap().len() as usize);
            }
            let length = cut.index(ends[count as usize] + 1);
            let written = std::fs::read(&path).unwrap();
            let mut bytes = written[..length].to_vec();
            bytes.extend(garbage);
            // Garbage may happen to be what was cut off.
            let whole = ends.iter().filter(|end| bytes.get(..**end) == Some(&written[..**end])).count() - 1;
            std::fs::write(&path, bytes).unwrap();
            let (mut log, records) = Log::open(&path).unwrap();
            prop_assert_eq!(&records[..], &(0..whole as u32).map(record).collect::<Vec<_>>()[..]);
            log.append(&record(99)).unwrap();
            let read = log.read().unwrap();
            prop_assert_eq!(read.last(), Some(&record(99)));
        }
    }

    #[test]
    fn the_first_program_of_a_process_counts_unless_it_was_not_replaced() {
        let process = ProcessId { pid: 1, start_time: 2 };
        let program = Program { process, path: "/a".into(), arguments: Vec::new() };
        let replaced = || Record::Program(program.clone());
        let not_replaced = || Record::NotReplaced { process };
        assert_eq!(programs(&[replaced()]), std::slice::from_ref(&program));
        assert!(programs(&[replaced(), not_replaced()]).is_empty());
        assert_eq!(programs(&[replaced(), not_replaced(), replaced()]), std::slice::from_ref(&program));
    }
}
