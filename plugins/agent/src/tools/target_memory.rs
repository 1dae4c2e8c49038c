//! The memory of another process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::failure::Failure;
use crate::process::{Proc, ended_or};

/// Bits of an entry of proc_pid_pagemap(5): in memory, swapped out.
const IS_THERE: u64 = 1 << 63 | 1 << 62;
/// So many entries of it are read at once.
const ENTRIES: usize = 8 * 1024;

/// It, for reading.
#[derive(Debug)]
pub(super) struct TargetMemory {
    pid: Pid,
    memory: File,
    pages: File,
}

impl TargetMemory {
    pub(super) fn open(proc: &Proc, pid: u32) -> Result<Self, Failure> {
        let open = |file: &str| File::open(proc.live_path(pid, file)).map_err(ended_or(pid, format_args!("open its {file}")));
        Ok(Self { pid: Pid::from_raw(pid.cast_signed()), memory: open("mem")?, pages: open("pagemap")? })
    }

    /// Fills a buffer from an address on.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = buffer.len();
        let from = usize::try_from(address).map_err(io::Error::other)?;
        let read = process_vm_readv(self.pid, &mut [io::IoSliceMut::new(buffer)], &[RemoteIoVec { base: from, len: length }]);
        if read == Ok(length) {
            return Ok(());
        }
        // That one is fast; this one reads what the process itself may not, too.
        self.memory.read_exact_at(buffer, address)
    }

    /// The parts of a range that have pages, as starts and ends.
    pub(super) fn used(&self, start: u64, end: u64, page: u64) -> io::Result<Vec<(u64, u64)>> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut entries = vec![0; ENTRIES * 8];
        let mut at = start;
        while at < end {
            let wanted = usize::try_from((end - at) / page).unwrap_or(ENTRIES).clamp(1, ENTRIES);
            self.pages.read_exact_at(&mut entries[..wanted * 8], at / page * 8)?;
            for entry in entries[..wanted * 8].as_chunks::<8>().0 {
                if u64::from_ne_bytes(*entry) & IS_THERE != 0 {
                    match runs.last_mut() {
                        Some((_, last)) if *last == at => *last = at + page,
                        _ => runs.push((at, at + page)),
                    }
                }
                at += page;
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_reads_itself() {
        let memory = TargetMemory::open(&Proc::system(), std::process::id()).unwrap();
        let own = b"some bytes of this process".to_vec();
        let mut read = vec![0; own.len()];
        memory.read(own.as_ptr() as u64, &mut read).unwrap();
        assert_eq!(read, own);
        assert!(memory.read(8, &mut read).is_err());
        let page = rustix::param::page_size() as u64;
        let first = own.as_ptr() as u64 / page * page;
        assert_eq!(memory.used(first, first + page, page).unwrap(), [(first, first + page)]);
    }
}
