//! A core file of a process that runs on.
//!
//! The process stands still while its registers are read and its memory is copied into
//! that of the agent; the copy is sent afterwards. Where there is not the memory for
//! that, the process stands still until all was sent. Nothing is written to a disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::time::Duration;

use super::core_image::{Image, Segment, image};
use super::core_notes::{Described, Thread, notes};
use super::freeze::{Frozen, threads};
use super::mappings::{self, Content, Mapping, content};
use super::output::Output;
use super::registers;
use super::target_memory::TargetMemory;
use super::{CoreAnswer, Piece, Refusal, arch};
use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, MAX_CHUNK, ProcessId};

/// Where memory is short, no more of it than so much is used.
const SPARING: u64 = 32 << 20;
/// A process goes on to grow between the plan and the copy.
const GROWTH: u64 = 4 << 20;

/// What a client may ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(super) process: ProcessId,
    /// Whether the agent's memory is limited together with that of the app.
    pub(super) is_sparing: bool,
}

pub(super) fn core(proc: &Proc, order: Order, mut input: File, output: File) -> io::Result<()> {
    let mut output = Output::new(output)?;
    let failed = |failure: Failure| CoreAnswer::Failed(failure.into());
    let (content, threads) = match plan(proc, order.process) {
        Ok(planned) => planned,
        Err(failure) => return output.tell(&failed(failure)),
    };
    let is_slow = content > room(order.is_sparing);
    output.tell(&CoreAnswer::Planned { content, threads, is_slow })?;
    // The client looks whether there is the space for it.
    if !matches!(input.read(&mut [0]), Ok(1)) {
        return Ok(());
    }
    let taken = if is_slow { Vec::new() } else { with_room(content + GROWTH) };
    match take(proc, order.process) {
        Ok(whole) => whole.send(taken, is_slow, &mut output),
        Err(failure) => output.tell(&failed(failure)),
    }
}

impl From<Failure> for Refusal {
    fn from(Failure { kind, message }: Failure) -> Self {
        Self { kind, message }
    }
}

/// What it would hold, in bytes, and the number of threads.
fn plan(proc: &Proc, process: ProcessId) -> Result<(u64, u32), Failure> {
    proc.check(process)?;
    let page = page_size();
    let of_mapping = |mapping: &Mapping| match content(mapping) {
        Content::Nothing => 0,
        Content::FirstPage => page,
        Content::UsedPages => mapping.resident,
        Content::Everything => mapping.length(),
    };
    let threads = u32::try_from(threads(proc, process.pid)?.len()).unwrap_or(u32::MAX);
    Ok((mappings_of(proc, process.pid)?.iter().map(of_mapping).sum(), threads))
}

/// How much may be copied.
fn room(is_sparing: bool) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let half = available.unwrap_or(0) * 1024 / 2;
    if is_sparing { half.min(SPARING) } else { half }
}

/// Memory that is there already: the kernel takes longer to find pages than to fill them.
fn with_room(length: u64) -> Vec<u8> {
    let mut room = vec![1; usize::try_from(length).unwrap_or(0)];
    room.clear();
    room
}

/// A part of the file, and where it is in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    address: u64,
    offset: u64,
    length: u64,
}

/// A process that stands still, and what is to be said of it.
struct Taken {
    frozen: Frozen,
    memory: TargetMemory,
    image: Image,
    runs: Vec<Run>,
}

fn take(proc: &Proc, process: ProcessId) -> Result<Taken, Failure> {
    let page = page_size();
    let memory = TargetMemory::open(proc, process.pid)?;
    let mut described = describe(proc, process.pid)?;
    let frozen = Frozen::stop(proc, process)?;
    described.threads = frozen.threads().iter().filter_map(|thread| read_thread(proc, process.pid, *thread)).collect();
    let mappings = mappings_of(proc, process.pid)?;
    let (mut segments, mut used) = (Vec::new(), Vec::new());
    for mapping in &mappings {
        let (start, end) = (mapping.start, mapping.end);
        let parts = match content(mapping) {
            Content::Nothing => Vec::new(),
            Content::FirstPage if is_program(&memory, start) => vec![(start, start + page)],
            Content::FirstPage => Vec::new(),
            Content::UsedPages => memory.used(start, end, page).map_err(Failure::io("see which pages it uses"))?,
            Content::Everything => vec![(start, end)],
        };
        let length = match (content(mapping), parts.is_empty()) {
            (_, true) => 0,
            (Content::FirstPage, false) => page,
            _ => end - start,
        };
        used.push(parts);
        segments.push(Segment { mapping: mapping.clone(), length });
    }
    let image = image(&notes(&described, &mappings, page), &segments, page).ok_or_else(|| {
        Failure::new(ErrorKind::Unsupported, format!("process {} has {} mappings, too many for a core file", process.pid, segments.len()))
    })?;
    let mut runs = Vec::new();
    for ((segment, parts), offset) in segments.iter().zip(used).zip(&image.offsets) {
        let start = segment.mapping.start;
        runs.extend(parts.into_iter().map(|(from, to)| Run { address: from, offset: offset + (from - start), length: to - from }));
    }
    Ok(Taken { frozen, memory, image, runs })
}

impl Taken {
    fn send(self, mut copy: Vec<u8>, is_slow: bool, output: &mut Output) -> io::Result<()> {
        let Self { frozen, memory, image, runs } = self;
        let threads = u32::try_from(frozen.threads().len()).unwrap_or(u32::MAX);
        let pieces = runs.iter().flat_map(|run| cut(*run));
        let stopped = if is_slow {
            send_head(&image, output)?;
            let mut buffer = vec![0; MAX_CHUNK];
            for piece in pieces {
                let bytes = &mut buffer[..usize::try_from(piece.length).unwrap_or(0)];
                read(&memory, piece.address, bytes);
                send(piece.offset, bytes, output)?;
            }
            frozen.release()
        } else {
            for piece in pieces.clone() {
                let at = copy.len();
                copy.resize(at + usize::try_from(piece.length).unwrap_or(0), 0);
                read(&memory, piece.address, &mut copy[at..]);
            }
            let stopped = frozen.release();
            send_head(&image, output)?;
            let mut rest = copy.as_slice();
            for piece in pieces {
                let (bytes, after) = rest.split_at(usize::try_from(piece.length).unwrap_or(0));
                send(piece.offset, bytes, output)?;
                rest = after;
            }
            stopped
        };
        output.tell(&CoreAnswer::Done { size: image.size, threads, stopped_micros: micros(stopped) })
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn send_head(image: &Image, output: &mut Output) -> io::Result<()> {
    for (index, bytes) in image.head.chunks(MAX_CHUNK).enumerate() {
        output.tell(&CoreAnswer::Piece(Piece::new((index * MAX_CHUNK) as u64, bytes)))?;
    }
    Ok(())
}

/// What is all zero is left as a hole.
fn send(offset: u64, bytes: &[u8], output: &mut Output) -> io::Result<()> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    output.tell(&CoreAnswer::Piece(Piece::new(offset, bytes)))
}

/// In pieces that a message can hold.
fn cut(run: Run) -> impl Iterator<Item = Run> + Clone {
    let starts = (0..run.length).step_by(MAX_CHUNK);
    starts.map(move |at| Run { address: run.address + at, offset: run.offset + at, length: (run.length - at).min(MAX_CHUNK as u64) })
}

/// Pages that can't be read, such as those of a file that was cut, stay zero.
fn read(memory: &TargetMemory, address: u64, bytes: &mut [u8]) {
    if memory.read(address, bytes).is_ok() {
        return;
    }
    let page = usize::try_from(page_size()).unwrap_or(4096);
    for (index, bytes) in bytes.chunks_mut(page).enumerate() {
        if memory.read(address + (index * page) as u64, bytes).is_err() {
            bytes.fill(0);
        }
    }
}

fn is_program(memory: &TargetMemory, address: u64) -> bool {
    let mut start = [0; 4];
    memory.read(address, &mut start).is_ok() && start == *b"\x7fELF"
}

fn describe(proc: &Proc, pid: u32) -> Result<Described, Failure> {
    let status = proc.status(pid)?;
    Ok(Described {
        pid: status.namespace_pids.last().copied().unwrap_or(pid),
        parent: 0,
        uid: status.uid,
        gid: status.gid,
        name: proc.read(pid, "comm")?.trim_ascii_end().to_vec(),
        arguments: proc.arguments(pid)?.join(&b' '),
        auxiliary: proc.read_live(pid, "auxv")?,
        threads: Vec::new(),
    })
}

/// None for one that was killed meanwhile.
fn read_thread(proc: &Proc, pid: u32, thread: i32) -> Option<Thread> {
    let status = proc.thread_status(pid, thread.cast_unsigned()).ok()?;
    Some(Thread {
        id: status.namespace_pids.last().copied().unwrap_or(thread.cast_unsigned()),
        general: registers::read(thread, registers::GENERAL).ok()?,
        floating_point: registers::read(thread, registers::FLOATING_POINT).ok(),
        // Not every processor has them.
        extra: arch::EXTRA_REGISTERS.iter().filter_map(|set| Some((*set, registers::read(thread, *set).ok()?))).collect(),
    })
}

fn mappings_of(proc: &Proc, pid: u32) -> Result<Vec<Mapping>, Failure> {
    Ok(mappings::parse(&String::from_utf8_lossy(&proc.read_live(pid, "smaps")?)))
}

pub(super) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}
