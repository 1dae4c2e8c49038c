//! The registers of a stopped thread (ptrace(2), `PTRACE_GETREGSET`).

use std::io;

use nix::libc;
use rustix::io::Errno;

use super::arch::{self, Point};

/// `NT_PRSTATUS`: the general registers.
pub(super) const GENERAL: u32 = 1;
/// `NT_PRFPREG`: those for floating point.
pub(super) const FLOATING_POINT: u32 = 2;
/// No set is longer: 8 KiB of it are the tiles of AMX.
const MOST: usize = 32 * 1024;

/// A set of registers as the kernel has it in a core file.
pub(super) fn read(thread: i32, set: u32) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; MOST];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let kind = std::ptr::null_mut::<libc::c_void>().wrapping_byte_add(set as usize);
    // SAFETY: the kernel writes at most `iov_len` bytes to `iov_base`, which are
    // there, and the length that it wrote to `vector`.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, thread, kind, &raw mut vector) };
    if result == -1 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    bytes.truncate(vector.iov_len);
    Ok(bytes)
}

/// Where a stopped thread is.
pub(super) fn point(thread: i32) -> Result<Point, Errno> {
    let bytes = read(thread, GENERAL)?;
    let word = |index: usize| bytes.get(index * 8..index * 8 + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes);
    Ok(arch::general(word))
}
