//! Breakpoints that a killed debugger left in a process's code are taken out:
//! the bytes of its program and its libraries are written where the memory has a trap
//! instead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::ProcessId;
use crate::root::ContainerRoot;

/// So much is compared at once; a multiple of the longest trap.
const PIECE: usize = 1 << 20;
/// `int3`: Intel SDM volume 2.
const X86_TRAP: &[u8] = &[0xcc];
/// `brk #0`: Arm ARM C6.2.47, as Delve and the kernel's headers have it.
const ARM_TRAP: &[u8] = &[0x00, 0x00, 0x20, 0xd4];

/// Takes out what is left; answers how many.
pub(crate) fn repair(proc: &Proc, process: ProcessId) -> Result<u32, Failure> {
    let maps = String::from_utf8_lossy(&proc.read_live(process.pid, "maps")?).into_owned();
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(proc.live_path(process.pid, "mem"))
        .map_err(Failure::io(format_args!("open the memory of process {}", process.pid)))?;
    proc.check(process)?;
    let trap = if cfg!(target_arch = "aarch64") { ARM_TRAP } else { X86_TRAP };
    let root = ContainerRoot::of(proc, process)?;
    let mut repaired = 0;
    for part in code(&maps) {
        // One that was deleted or replaced since can't be compared with.
        let Some(file) = open(proc, process.pid, &root, &part) else { continue };
        repaired += repair_part(&file, &memory, &part, trap).map_err(Failure::io("compare the code of the process"))?;
    }
    Ok(repaired)
}

/// A piece of a file that is code in a process (proc_pid_maps(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    address: u64,
    length: u64,
    offset: u64,
    inode: u64,
    path: String,
}

fn code(maps: &str) -> Vec<Part> {
    let part = |line: &str| {
        let mut fields = line.splitn(6, ' ');
        let (range, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let inode: u64 = fields.nth(1)?.parse().ok()?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let offset = u64::from_str_radix(offset, 16).ok()?;
        let path = fields.next().unwrap_or_default().trim_start().to_owned();
        let is_code = inode != 0 && permissions.contains('x');
        is_code.then_some(Part { address: start, length: end - start, offset, inode, path })
    };
    maps.lines().filter_map(part).collect()
}

/// The file of a part: the program itself, which may have been deleted, or one that is
/// still under its name.
fn open(proc: &Proc, pid: u32, root: &ContainerRoot, part: &Part) -> Option<File> {
    let is_it = |file: &File| file.metadata().is_ok_and(|metadata| metadata.ino() == part.inode);
    let program = proc.open_executable(pid).ok().filter(is_it);
    program.or_else(|| root.open(Path::new(&part.path), OFlags::RDONLY).ok().map(File::from).filter(is_it))
}

fn repair_part(program: &File, memory: &File, part: &Part, trap: &[u8]) -> io::Result<u32> {
    // The last page may reach beyond the end of the file.
    let length = part.length.min(program.metadata()?.len().saturating_sub(part.offset));
    let (mut wanted, mut found) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut done, mut repaired) = (0, 0);
    while done < length {
        let length = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
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
    fn code_is_what_is_executable_and_from_a_file() {
        let maps = "00400000-00401000 r--p 00000000 08:01 77 /app\n00401000-00403000 r-xp 00001000 08:01 77      /my app\n7f00-7fff r-xp 0 00:00 0 [vdso]\n";
        let wanted = Part { address: 0x40_1000, length: 0x2000, offset: 0x1000, inode: 77, path: "/my app".to_owned() };
        assert_eq!(code(maps), [wanted]);
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
        // Until it has become `sleep`, whose name is there before its code.
        let part = loop {
            let maps = std::fs::read_to_string(proc.path(pid, "maps")).unwrap();
            if let Some(part) = code(&maps).into_iter().find(|part| part.path.ends_with("/sleep")) {
                break part;
            }
            std::thread::yield_now();
        };
        let process = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
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
