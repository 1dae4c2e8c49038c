//! Samples of threads by perf events (perf_event_open(2)): whenever a thread has used
//! some processor time, the kernel writes down its registers and the end of its stack.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;

use super::arch::{self, PERF_COUNT, Point};
use super::core_file::page_size;
use super::freeze::threads;
use crate::process::Proc;

/// `PERF_TYPE_SOFTWARE`, `PERF_COUNT_SW_CPU_CLOCK`.
const SOFTWARE: u32 = 1;
const CPU_CLOCK: u64 = 0;
/// `PERF_SAMPLE_TID`, `_REGS_USER`, `_STACK_USER`.
const SAMPLE: u64 = 1 << 1 | 1 << 12 | 1 << 13;
/// `exclude_kernel` and `exclude_hv` among the flags.
const WITHOUT_KERNEL: u64 = 1 << 5;
const WITHOUT_HYPERVISOR: u64 = 1 << 6;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
/// `PERF_RECORD_LOST` and `_SAMPLE`.
const LOST: u32 = 2;
const SAMPLED: u32 = 9;
/// So much of a stack; what lies further out is read from the process later.
const STACK: u32 = 16 * 1024;
/// Room for a dozen of samples: they are fetched every few milliseconds.
const PAGES: usize = 64;
/// More threads than these are not looked at.
const MOST_THREADS: usize = 512;
/// Fields of `struct perf_event_mmap_page`.
const HEAD: usize = 1024;
const TAIL: usize = 1032;
const RECORD_HEADER: usize = 8;

/// `struct perf_event_attr`, as of `PERF_ATTR_SIZE_VER5`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

/// Where a thread was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample<'a> {
    pub(super) point: Point,
    /// What lies at and above its stack pointer.
    pub(super) stack: &'a [u8],
}

/// Samples all threads of a process until it is dropped.
#[derive(Debug)]
pub(super) struct Sampler {
    pid: u32,
    attributes: Attributes,
    rings: BTreeMap<i32, Ring>,
    /// Samples that the kernel had no room for.
    pub(super) lost: u64,
}

impl Sampler {
    /// Begins with the threads that there are. `period` is in nanoseconds.
    pub(super) fn open(proc: &Proc, pid: u32, period: u64) -> io::Result<Self> {
        let attributes = Attributes {
            kind: SOFTWARE,
            size: u32::try_from(size_of::<Attributes>()).unwrap_or_default(),
            config: CPU_CLOCK,
            sample_period: period,
            sample_type: SAMPLE,
            flags: WITHOUT_HYPERVISOR,
            sample_regs_user: arch::PERF_REGISTERS,
            sample_stack_user: STACK,
            ..Attributes::default()
        };
        let mut sampler = Self { pid, attributes, rings: BTreeMap::new(), lost: 0 };
        match sampler.follow(proc) {
            // Time in the kernel is not for everybody to see (kernel.perf_event_paranoid).
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                sampler.attributes.flags |= WITHOUT_KERNEL;
                sampler.follow(proc)?;
            }
            followed => followed?,
        }
        Ok(sampler)
    }

    pub(super) fn has_kernel(&self) -> bool {
        self.attributes.flags & WITHOUT_KERNEL == 0
    }

    /// Takes up threads that are new, and gives up those that ended.
    pub(super) fn follow(&mut self, proc: &Proc) -> io::Result<()> {
        let threads = threads(proc, self.pid).map_err(|failure| io::Error::other(failure.message))?;
        self.rings.retain(|thread, _| threads.contains(thread));
        for thread in threads {
            if self.rings.len() >= MOST_THREADS {
                break;
            }
            if !self.rings.contains_key(&thread) {
                match Ring::open(&self.attributes, thread) {
                    Ok(ring) => drop(self.rings.insert(thread, ring)),
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Hands over what was sampled since, with the thread.
    pub(super) fn drain(&mut self, mut each: impl FnMut(i32, Sample<'_>)) {
        for (thread, ring) in &mut self.rings {
            ring.drain(|kind, body| match kind {
                SAMPLED => {
                    if let Some(sample) = parse(body) {
                        each(*thread, sample);
                    }
                }
                LOST => self.lost += word(body, 8).unwrap_or(0),
                _ => {}
            });
        }
    }
}

/// The records about a thread, shared with the kernel.
#[derive(Debug)]
struct Ring {
    _event: OwnedFd,
    base: NonNull<u8>,
    page: usize,
    record: Vec<u8>,
}

impl Ring {
    fn open(attributes: &Attributes, thread: i32) -> io::Result<Self> {
        // SAFETY: the kernel reads `size` bytes of the attributes, which are that long.
        let event = unsafe { libc::syscall(libc::SYS_perf_event_open, ptr::from_ref(attributes), thread, -1, -1, CLOSE_ON_EXEC) };
        if event == -1 {
            return Err(io::Error::last_os_error());
        }
        let event = i32::try_from(event).map_err(io::Error::other)?;
        // SAFETY: the call has just opened it, for us.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        let page = usize::try_from(page_size()).map_err(io::Error::other)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, where the kernel likes.
        let base = unsafe { libc::mmap(ptr::null_mut(), page * (PAGES + 1), protection, libc::MAP_SHARED, event.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("there is nothing at the start of memory"))?;
        Ok(Self { _event: event, base, page, record: Vec::new() })
    }

    /// Hands over each record: its kind, and what follows its header.
    fn drain(&mut self, mut each: impl FnMut(u32, &[u8])) {
        let (head, mut tail) = (self.counter(HEAD).load(Ordering::Acquire), self.counter(TAIL).load(Ordering::Relaxed));
        while tail < head {
            let mut header = [0; RECORD_HEADER];
            self.copy(tail, &mut header);
            // Kind, flags, length.
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let length = usize::from(u16::from_ne_bytes([header[6], header[7]]));
            if length < RECORD_HEADER {
                break;
            }
            let mut record = std::mem::take(&mut self.record);
            record.resize(length - RECORD_HEADER, 0);
            self.copy(tail + RECORD_HEADER as u64, &mut record);
            each(kind, &record);
            self.record = record;
            tail += length as u64;
        }
        self.counter(TAIL).store(head, Ordering::Release);
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the first page of the mapping has it there, aligned, and the kernel
        // changes it as one word.
        unsafe { self.base.add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// Copies from the ring, around its end.
    fn copy(&self, from: u64, to: &mut [u8]) {
        let size = self.page * PAGES;
        let place = usize::try_from(from % size as u64).unwrap_or(0);
        let (first, rest) = to.split_at_mut(to.len().min(size - place));
        for (place, part) in [(place, first), (0, rest)] {
            // SAFETY: it ends within the ring, which follows the first page; the kernel
            // doesn't write there until the tail is moved on.
            unsafe { ptr::copy_nonoverlapping(self.base.add(self.page + place).as_ptr(), part.as_mut_ptr(), part.len()) };
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping of this ring, which nobody uses any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page * (PAGES + 1)) };
    }
}

/// A `PERF_RECORD_SAMPLE` of the kind asked for: pid and tid; whether there are
/// registers, and they; the length asked for, the stack, and how much of it is filled.
fn parse(body: &[u8]) -> Option<Sample<'_>> {
    const REGISTERS: usize = 16;
    // A thread of the kernel has none.
    if word(body, 8)? == 0 {
        return None;
    }
    let mut values = [0; PERF_COUNT];
    for (index, value) in values.iter_mut().enumerate() {
        *value = word(body, REGISTERS + index * 8)?;
    }
    let at = REGISTERS + PERF_COUNT * 8;
    let length = usize::try_from(word(body, at)?).ok()?;
    let stack = body.get(at + 8..at + 8 + length)?;
    let filled = if length == 0 { 0 } else { usize::try_from(word(body, at + 8 + length)?).ok()? };
    Some(Sample { point: arch::sampled(values), stack: stack.get(..filled)? })
}

fn word(bytes: &[u8], place: usize) -> Option<u64> {
    bytes.get(place..place + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_damaged_ones_are_none() {
        let mut body: Vec<u8> = [7_u32, 8].into_iter().flat_map(u32::to_ne_bytes).collect();
        body.extend(2_u64.to_ne_bytes());
        body.extend((1..=PERF_COUNT as u64).flat_map(u64::to_ne_bytes));
        body.extend(16_u64.to_ne_bytes());
        body.extend([5; 16]);
        body.extend(8_u64.to_ne_bytes());
        let sample = parse(&body).unwrap();
        assert_eq!((sample.point.frame, sample.stack), (1, [5; 8].as_slice()));
        for length in 0..body.len() {
            assert_eq!(parse(&body[..length]), None, "{length}");
        }
        body[8] = 0;
        assert_eq!(parse(&body), None);
    }

    #[test]
    fn the_attributes_are_as_long_as_the_kernel_knows_them() {
        assert_eq!(size_of::<Attributes>(), 112);
    }
}
