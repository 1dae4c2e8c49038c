//! Is this file a program that this process could become? Asked before anything
//! is touched: once the kernel has begun to replace a process, a program that
//! turns out to be cut short kills it. Format: elf(5).

use std::fs::File;
use std::os::unix::fs::FileExt;

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};

use crate::failure::Failure;
use crate::protocol::ErrorKind;

/// What a program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// `e_machine`.
    number: u16,
    wide: bool,
    little: bool,
}

impl Machine {
    pub(crate) fn name(self) -> String {
        match self.number {
            elf::EM_X86_64 => "x86_64".into(),
            elf::EM_AARCH64 => "aarch64".into(),
            elf::EM_386 => "x86".into(),
            elf::EM_ARM => "arm".into(),
            elf::EM_RISCV => "riscv64".into(),
            other => format!("elf-{other}"),
        }
    }

    /// Whether this agent, which borrows system calls of the process, was built
    /// for it. x32 has the machine of x86_64 but is not 64 bits wide.
    pub(crate) fn is_native(self) -> bool {
        self.wide && self.little && self.name() == std::env::consts::ARCH
    }
}

/// The machine that an ELF file is for, from its header alone.
pub(crate) fn machine(file: &File) -> Result<Machine, Failure> {
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0).map_err(|_| not_executable("it has no ELF header"))?;
    if header[..4] != elf::ELFMAG {
        return Err(not_executable("it has no ELF header"));
    }
    let little = header[5] == elf::ELFDATA2LSB;
    let number = [header[18], header[19]];
    Ok(Machine {
        number: if little { u16::from_le_bytes(number) } else { u16::from_be_bytes(number) },
        wide: header[4] == elf::ELFCLASS64,
        little,
    })
}

/// Fails unless `file` is a complete program for `expected`; returns the dynamic
/// loader that it names, without which it can't start.
pub(crate) fn inspect(file: &File, expected: Machine) -> Result<Option<Vec<u8>>, Failure> {
    let machine = machine(file)?;
    if machine != expected {
        let bits = |machine: Machine| if machine.wide { 64 } else { 32 };
        return Err(Failure::new(
            ErrorKind::WrongArchitecture,
            format!(
                "the program is for {} ({} bits), the process runs on {} ({} bits)",
                machine.name(),
                bits(machine),
                expected.name(),
                bits(expected)
            ),
        ));
    }
    let data = ReadCache::new(file);
    let header = FileHeader64::<Endianness>::parse(&data).map_err(object_error)?;
    let endian = header.endian().map_err(object_error)?;
    if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) || header.e_entry(endian) == 0 {
        return Err(not_executable("it is an object file or a library, with no entry point"));
    }
    let length = (&data).len().map_err(|()| not_executable("its size is unknown"))?;
    let mut loads = 0;
    let mut loader = None;
    for segment in header.program_headers(endian, &data).map_err(object_error)? {
        let (offset, size) = segment.file_range(endian);
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(not_executable("it is cut short"));
        }
        match segment.p_type(endian) {
            elf::PT_LOAD => loads += 1,
            elf::PT_INTERP => loader = segment.interpreter(endian, &data).map_err(object_error)?,
            _ => {}
        }
    }
    // The kernel needs no sections, but a linker writes their table last: a
    // program that was read before the linker was done lacks it.
    let sections = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
    if header.e_shoff(endian).checked_add(sections).is_none_or(|end| end > length) {
        return Err(not_executable("it is cut short"));
    }
    if loads == 0 {
        return Err(not_executable("nothing in it is to be loaded"));
    }
    Ok(loader.map(<[u8]>::to_vec))
}

fn object_error(error: object::read::Error) -> Failure {
    not_executable(&error.to_string())
}

fn not_executable(why: &str) -> Failure {
    Failure::new(ErrorKind::NotExecutable, format!("the file is not a program: {why}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    fn check(bytes: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let expected = machine(&File::open("/proc/self/exe").unwrap()).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        inspect(&file, expected)
    }

    fn kind(bytes: &[u8]) -> ErrorKind {
        check(bytes).unwrap_err().kind
    }

    #[test]
    fn a_complete_program_passes_and_names_its_loader() {
        let loader = check(&own()).unwrap();
        assert!(loader.is_some_and(|loader| loader.starts_with(b"/lib")));
        assert!(machine(&File::open("/proc/self/exe").unwrap()).unwrap().is_native());
    }

    #[test]
    fn a_program_cut_anywhere_is_refused() {
        let own = own();
        for length in [0, 3, 19, 20, 63, 64, 100, 4096, own.len() / 2] {
            assert_eq!(kind(&own[..length]), ErrorKind::NotExecutable, "{length}");
        }
    }

    #[test]
    fn another_machine_or_width_is_refused() {
        let mut other = own();
        other[18..20].copy_from_slice(&elf::EM_S390.to_le_bytes());
        assert_eq!(kind(&other), ErrorKind::WrongArchitecture);
        let mut narrow = own();
        narrow[4] = elf::ELFCLASS32;
        assert_eq!(kind(&narrow), ErrorKind::WrongArchitecture);
    }

    #[test]
    fn scripts_and_libraries_are_refused() {
        assert_eq!(kind(b"#!/bin/sh\necho this is long enough to be a header\n"), ErrorKind::NotExecutable);
        let mut library = own();
        library[24..32].fill(0);
        assert_eq!(kind(&library), ErrorKind::NotExecutable);
    }
}
