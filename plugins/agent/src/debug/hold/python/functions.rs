//! Where functions of `CPython`'s C interface are in a process
//! (<https://docs.python.org/3/c-api/init.html>): by the dynamic symbols of the
//! interpreter's program or library (elf(5)) and the process's mappings.

use std::fs::File;
use std::path::Path;

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{Object, ObjectSymbol, ReadCache};
use object::{Endianness, read::elf::ElfFile64};
use rustix::fs::OFlags;

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::root::ContainerRoot;

/// Their addresses in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Functions {
    pub(super) add_pending_call: u64,
    pub(super) run_simple_string: u64,
    pub(super) ensure: u64,
    pub(super) release: u64,
}

const NAMES: [&str; 4] = ["Py_AddPendingCall", "PyRun_SimpleString", "PyGILState_Ensure", "PyGILState_Release"];

/// Finds them.
pub(super) fn find(proc: &Proc, process: ProcessId) -> Result<Functions, Failure> {
    let pid = process.pid;
    let maps = String::from_utf8_lossy(&proc.read_live(pid, "maps")?).into_owned();
    let root = ContainerRoot::of(proc, process)?;
    let executable = String::from_utf8_lossy(&proc.executable(pid)?.path).into_owned();
    for path in candidates(&maps, &executable) {
        let file = if path == executable {
            proc.open_executable(pid)?
        } else {
            match root.open(Path::new(path), OFlags::RDONLY) {
                Ok(file) => File::from(file),
                Err(_) => continue,
            }
        };
        if let (Some((start, offset)), Some((symbols, first))) = (first_mapping(&maps, path), read(&file)) {
            // A segment's addresses and its offsets in the file differ by the same
            // everywhere in it.
            let bias = start.wrapping_sub(offset).wrapping_add(first.0).wrapping_sub(first.1);
            let [add_pending_call, run_simple_string, ensure, release] = symbols.map(|value| bias.wrapping_add(value));
            return Ok(Functions { add_pending_call, run_simple_string, ensure, release });
        }
    }
    let message = format!("process {pid} has no C interface of Python that could be found ({})", NAMES.join(", "));
    Err(Failure::new(ErrorKind::Unsupported, message))
}

/// The program, and libraries that are Python's by their name.
fn candidates<'a>(maps: &'a str, executable: &'a str) -> Vec<&'a str> {
    let mut paths = vec![executable];
    for path in maps.lines().filter_map(path_of) {
        if path.rsplit('/').next().is_some_and(|name| name.starts_with("libpython")) && !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// The path of a line of `/proc/<pid>/maps` (proc_pid_maps(5)).
fn path_of(line: &str) -> Option<&str> {
    line.find('/').map(|start| &line[start..])
}

/// The address and the offset in the file of a file's first mapping.
fn first_mapping(maps: &str, path: &str) -> Option<(u64, u64)> {
    let line = maps.lines().find(|line| path_of(line) == Some(path))?;
    let mut fields = line.split_ascii_whitespace();
    let start = u64::from_str_radix(fields.next()?.split_once('-')?.0, 16).ok()?;
    Some((start, u64::from_str_radix(fields.nth(1)?, 16).ok()?))
}

/// The values of the symbols, if it has them all; and the offset and the address of
/// its first segment.
fn read(file: &File) -> Option<([u64; 4], (u64, u64))> {
    let data = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&data).ok()?;
    let mut values = [None; 4];
    for symbol in elf.dynamic_symbols().filter(|symbol| symbol.is_definition()) {
        if let Some(index) = symbol.name().ok().and_then(|name| NAMES.iter().position(|wanted| *wanted == name)) {
            values[index] = Some(symbol.address());
        }
    }
    let header = FileHeader64::<Endianness>::parse(&data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, &data).ok()?;
    let first = segments.iter().find(|segment| segment.p_type(endian) == elf::PT_LOAD)?;
    let [Some(one), Some(two), Some(three), Some(four)] = values else { return None };
    Some(([one, two, three, four], (first.p_offset(endian), first.p_vaddr(endian))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "55d0-55d1 r--p 00000000 08:01 7 /usr/bin/python3.11\n\
        7f00-7f10 rw-p 00000000 00:00 0 \n\
        7f10-7f20 r--p 00001000 08:01 9 /usr/lib/libpython3.11.so.1.0\n\
        7f20-7f30 r-xp 00002000 08:01 9 /usr/lib/libpython3.11.so.1.0\n";

    #[test]
    fn the_program_and_its_library_are_looked_at() {
        assert_eq!(candidates(MAPS, "/usr/bin/python3.11"), ["/usr/bin/python3.11", "/usr/lib/libpython3.11.so.1.0"]);
        assert_eq!(first_mapping(MAPS, "/usr/lib/libpython3.11.so.1.0"), Some((0x7f10, 0x1000)));
        assert_eq!(first_mapping(MAPS, "/usr/lib/libc.so.6"), None);
    }

    #[test]
    fn a_program_of_another_kind_has_none() {
        assert_eq!(read(&File::open("/proc/self/exe").unwrap()), None);
    }
}
