//! The memory of another process: where a system call can be borrowed, and how
//! the strings of execve(2) are laid out.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::arch;
use crate::failure::Failure;
use crate::process::{Proc, ended_or};
use crate::protocol::ErrorKind;

const CHUNK: usize = 1 << 20;
const POINTER: usize = size_of::<u64>();

/// `/proc/<pid>/mem`.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    pid: u32,
}

/// A line of `/proc/<pid>/maps`, see proc_pid_maps(5).
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    start: u64,
    end: u64,
    name: &'a str,
}

impl Memory {
    pub(crate) fn open(proc: &Proc, pid: u32) -> Result<Self, Failure> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(proc.live_path(pid, "mem"))
            .map_err(ended_or(pid, format_args!("open the memory of process {pid}")))?;
        Ok(Self { file, pid })
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all_at(bytes, address).map_err(Failure::io(format_args!("write to the memory of process {}", self.pid)))
    }

    /// The address of an instruction that does a system call. Not `avoid`,
    /// where the thread stands: aarch64 tells by the address whether it is to
    /// finish the system call that was interrupted.
    pub(crate) fn find_system_call(&self, proc: &Proc, avoid: u64) -> Result<u64, Failure> {
        let maps = proc.read_live(self.pid, "maps")?;
        let maps = String::from_utf8_lossy(&maps);
        let mut mappings: Vec<_> = maps.lines().filter_map(parse_mapping).collect();
        // The vDSO has one, is in (nearly) every process, and is two pages long.
        mappings.sort_by_key(|mapping| mapping.name != "[vdso]");
        mappings.iter().find_map(|mapping| self.search(mapping, avoid)).ok_or_else(|| {
            let message = format!("process {} has no system call instruction", self.pid);
            Failure::new(ErrorKind::Unsupported, message)
        })
    }

    fn search(&self, mapping: &Mapping<'_>, avoid: u64) -> Option<u64> {
        let mut buffer = vec![0; CHUNK];
        let mut at = mapping.start;
        while at < mapping.end {
            let length = usize::try_from(mapping.end - at).unwrap_or(CHUNK).min(CHUNK);
            // A page that can't be read (a truncated file): try the next mapping.
            let read = self.file.read_at(&mut buffer[..length], at).ok().filter(|read| *read > 0)?;
            let found = instructions(&buffer[..read]).map(|offset| at + offset as u64).find(|address| *address != avoid);
            if found.is_some() {
                return found;
            }
            // One that lies across two chunks is missed; there are many others.
            at += read as u64;
        }
        None
    }
}

fn instructions(code: &[u8]) -> impl Iterator<Item = usize> {
    code.windows(arch::SYSTEM_CALL.len())
        .enumerate()
        .step_by(arch::ALIGNMENT)
        .filter(|(_, window)| *window == arch::SYSTEM_CALL)
        .map(|(offset, _)| offset)
}

/// Only what can be both read and executed.
fn parse_mapping(line: &str) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    if !permissions.starts_with('r') || permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        name: fields.nth(3).unwrap_or_default().trim_start(),
    })
}

/// The path, arguments and environment of an execve(2), as offsets into one
/// block that has no address yet.
#[derive(Debug)]
pub(crate) struct ExecBlock {
    strings: Vec<u8>,
    argv: Vec<usize>,
    envp: Vec<usize>,
}

/// The same at its address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlacedBlock {
    pub(crate) bytes: Vec<u8>,
    pub(crate) path: u64,
    /// An empty string.
    pub(crate) empty: u64,
    pub(crate) argv: u64,
    pub(crate) envp: u64,
}

impl ExecBlock {
    pub(crate) fn new(path: &[u8], arguments: &[Vec<u8>], environment: &[Vec<u8>]) -> Self {
        let mut strings = Vec::new();
        let mut add = |string: &[u8]| {
            let offset = strings.len();
            strings.extend_from_slice(string);
            strings.push(0);
            offset
        };
        add(path);
        let argv = arguments.iter().map(|argument| add(argument)).collect();
        let envp = environment.iter().map(|variable| add(variable)).collect();
        strings.resize(strings.len().next_multiple_of(POINTER), 0);
        Self { strings, argv, envp }
    }

    /// In bytes.
    pub(crate) fn length(&self) -> usize {
        // Each list ends with a null pointer.
        self.strings.len() + (self.argv.len() + 1 + self.envp.len() + 1) * POINTER
    }

    pub(crate) fn at(&self, address: u64) -> PlacedBlock {
        let mut bytes = self.strings.clone();
        let mut list = |offsets: &[usize]| {
            let start = address + bytes.len() as u64;
            for offset in offsets {
                bytes.extend_from_slice(&(address + *offset as u64).to_ne_bytes());
            }
            bytes.extend_from_slice(&[0; POINTER]);
            start
        };
        let argv = list(&self.argv);
        let envp = list(&self.envp);
        // The path comes first, and NUL ends it.
        let path_length = self.strings.iter().position(|byte| *byte == 0).unwrap_or(0);
        PlacedBlock { bytes, path: address, empty: address + path_length as u64, argv, envp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would read from the block.
    fn string(block: &PlacedBlock, base: u64, address: u64) -> Vec<u8> {
        let start = (address - base) as usize;
        block.bytes[start..].iter().copied().take_while(|byte| *byte != 0).collect()
    }

    fn list(block: &PlacedBlock, base: u64, address: u64) -> Vec<Vec<u8>> {
        let start = (address - base) as usize;
        block.bytes[start..]
            .chunks_exact(8)
            .map(|chunk| u64::from_ne_bytes(chunk.try_into().unwrap()))
            .take_while(|pointer| *pointer != 0)
            .map(|pointer| string(block, base, pointer))
            .collect()
    }

    #[test]
    fn a_block_reads_back() {
        let argv = [b"server".to_vec(), Vec::new(), b"--x".to_vec()];
        let envp = [b"A=1".to_vec(), b"B=".to_vec()];
        let block = ExecBlock::new(b"/app/server", &argv, &envp);
        let base = 0x7f00_0000_1000;
        let placed = block.at(base);
        assert_eq!(placed.bytes.len(), block.length());
        assert_eq!(placed.argv % 8, 0);
        assert_eq!(string(&placed, base, placed.path), b"/app/server");
        assert_eq!(string(&placed, base, placed.empty), b"");
        assert_eq!(list(&placed, base, placed.argv), argv);
        assert_eq!(list(&placed, base, placed.envp), envp);
    }

    #[test]
    fn mappings_that_can_be_executed() {
        let line = "7ffd1000-7ffd3000 r-xp 00000000 00:00 0                          [vdso]";
        assert_eq!(parse_mapping(line), Some(Mapping { start: 0x7ffd_1000, end: 0x7ffd_3000, name: "[vdso]" }));
        let anonymous = "7f00-7f10 rwxp 00000000 00:00 0 ";
        assert_eq!(parse_mapping(anonymous).map(|mapping| mapping.name), Some(""));
        assert_eq!(parse_mapping("7f00-7f10 rw-p 00000000 00:00 0"), None);
        assert_eq!(parse_mapping("ffffffffff600000-ffffffffff601000 --xp 0 00:00 0 [vsyscall]"), None);
        assert_eq!(parse_mapping("nonsense"), None);
    }

    #[test]
    fn this_process_has_an_instruction_and_it_can_be_avoided() {
        let proc = Proc::system();
        let memory = Memory::open(&proc, std::process::id()).unwrap();
        let first = memory.find_system_call(&proc, 0).unwrap();
        let mut code = vec![0; arch::SYSTEM_CALL.len()];
        memory.file.read_exact_at(&mut code, first).unwrap();
        assert_eq!(code, arch::SYSTEM_CALL);
        assert_ne!(memory.find_system_call(&proc, first).unwrap(), first);
    }
}
