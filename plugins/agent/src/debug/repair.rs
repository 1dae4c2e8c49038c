//! Breakpoints that a killed debugger left in a process's code are taken out:
//! the bytes of its program are written where the memory has a trap instead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};

/// So much is compared at once; a multiple of the longest trap.
const PIECE: usize = 1 << 20;
/// `int3`: Intel SDM volume 2.
const X86_TRAP: &[u8] = &[0xcc];
/// `brk #0`: Arm ARM C6.2.47, as Delve and the kernel's headers have it.
const ARM_TRAP: &[u8] = &[0x00, 0x00, 0x20, 0xd4];

/// Takes out what is left; answers how many.
pub(crate) fn repair(proc: &Proc, process: ProcessId) -> Result<u32, Failure> {
    let program = proc.open_executable(process.pid)?;
    let parts = executable_parts(proc, process.pid, &program)?;
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(proc.live_path(process.pid, "mem"))
        .map_err(Failure::io(format_args!("open the memory of process {}", process.pid)))?;
    proc.check(process)?;
    let trap = if cfg!(target_arch = "aarch64") { ARM_TRAP } else { X86_TRAP };
    let mut repaired = 0;
    for part in parts {
        repaired += repair_part(&program, &memory, &part, trap).map_err(Failure::io("compare the code of the process"))?;
    }
    Ok(repaired)
}

/// Code of the program, and where it is in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    offset: u64,
    address: u64,
    length: u64,
}

fn repair_part(program: &File, memory: &File, part: &Part, trap: &[u8]) -> io::Result<u32> {
    let (mut wanted, mut found) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut done, mut repaired) = (0, 0);
    while done < part.length {
        let length = usize::try_from(part.length - done).unwrap_or(PIECE).min(PIECE);
        program.read_exact_at(&mut wanted[..length], part.offset + done)?;
        memory.read_exact_at(&mut found[..length], part.address + done)?;
        for place in left_traps(&wanted[..length], &found[..length], trap) {
            memory.write_all_at(&wanted[place..place + trap.len()], part.address + done + place as u64)?;
            repaired += 1;
        }
        done += length as u64;
    }
    Ok(repaired)
}

/// Where memory has a trap that the file does not have.
fn left_traps(wanted: &[u8], found: &[u8], trap: &[u8]) -> Vec<usize> {
    if wanted == found {
        return Vec::new();
    }
    let pairs = wanted.chunks_exact(trap.len()).zip(found.chunks_exact(trap.len()));
    let left = pairs.enumerate().filter(|(_, (wanted, found))| wanted != found && *found == trap);
    left.map(|(index, _)| index * trap.len()).collect()
}

fn executable_parts(proc: &Proc, pid: u32, program: &File) -> Result<Vec<Part>, Failure> {
    let unreadable = |error: object::Error| Failure::new(ErrorKind::Io, format!("cannot read the program of process {pid}: {error}"));
    let data = ReadCache::new(program);
    let header = FileHeader64::<Endianness>::parse(&data).map_err(unreadable)?;
    let endian = header.endian().map_err(unreadable)?;
    let inode = program.metadata().map_err(Failure::io("look at the program"))?.ino();
    let maps = String::from_utf8_lossy(&proc.read_live(pid, "maps")?).into_owned();
    let segments = header.program_headers(endian, &data).map_err(unreadable)?;
    let code = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD && segment.p_flags(endian) & elf::PF_X != 0);
    Ok(code
        .filter_map(|segment| {
            let (offset, length) = (segment.p_offset(endian), segment.p_filesz(endian));
            let (start, from) = mapping(&maps, inode, offset)?;
            Some(Part { offset, address: start + (offset - from), length })
        })
        .collect())
}

/// The address and offset of the executable mapping of a file that has what is at
/// `offset` in it (proc_pid_maps(5)).
fn mapping(maps: &str, inode: u64, offset: u64) -> Option<(u64, u64)> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, permissions, from) = (fields.next()?, fields.next()?, fields.next()?);
        let found: u64 = fields.nth(1)?.parse().ok()?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let from = u64::from_str_radix(from, 16).ok()?;
        let holds = found == inode && permissions.contains('x') && (from..from + (end - start)).contains(&offset);
        holds.then_some((start, from))
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_traps_that_the_file_does_not_have_are_taken_out() {
        let wanted = [0x90, 0xcc, 0x55, 0x48];
        assert_eq!(left_traps(&wanted, &[0x90, 0xcc, 0xcc, 0x48], X86_TRAP), [2]);
        // What the program itself patched stays.
        assert!(left_traps(&wanted, &[0x90, 0xcc, 0x55, 0x00], X86_TRAP).is_empty());
        let arm = [ARM_TRAP, &[1, 2, 3, 4]].concat();
        assert_eq!(left_traps(&[[0; 4], [1, 2, 3, 4]].concat(), &arm, ARM_TRAP), [0]);
    }

    #[test]
    fn mappings_are_found_by_inode_and_offset() {
        let maps =
            "00400000-00401000 r--p 00000000 08:01 77 /app\n00401000-00403000 r-xp 00001000 08:01 77 /app\n7f00-7fff r-xp 0 08:01 9 /lib\n";
        assert_eq!(mapping(maps, 77, 0x1800), Some((0x40_1000, 0x1000)));
        assert_eq!(mapping(maps, 77, 0x3000), None);
    }

    /// `sleep` of this machine, with a trap written into code that it is past.
    #[test]
    fn a_trap_in_a_process_is_taken_out() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let proc = Proc::system();
        let pid = child.id();
        // Until it has become `sleep`.
        while !proc.executable(pid).is_ok_and(|executable| executable.path.ends_with(b"/sleep")) {
            std::thread::yield_now();
        }
        let process = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
        let program = proc.open_executable(pid).unwrap();
        let part = executable_parts(&proc, pid, &program).unwrap()[0];
        let memory = OpenOptions::new().read(true).write(true).open(proc.path(pid, "mem")).unwrap();
        let place = part.address + part.length - 64;
        let mut before = [0; 8];
        memory.read_exact_at(&mut before, place).unwrap();
        let (at, trap) = if cfg!(target_arch = "aarch64") { (0, ARM_TRAP) } else { (1, X86_TRAP) };
        memory.write_all_at(trap, place + at).unwrap();
        let changed = !before[at as usize..].starts_with(trap);
        assert_eq!(repair(&proc, process).unwrap(), u32::from(changed));
        let mut after = [0; 8];
        memory.read_exact_at(&mut after, place).unwrap();
        assert_eq!(before, after);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
