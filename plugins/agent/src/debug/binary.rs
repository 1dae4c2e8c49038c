//! What the program of a process says of itself: its ELF sections (elf(5)).

use std::fs::File;

use object::read::elf::ElfFile64;
use object::read::{ReadCache, ReadRef};
use object::{Endianness, Object, ObjectSection};

use super::GoProgram;
use super::go;

/// The parts that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) go: Option<GoProgram>,
    /// What the compiler calls itself.
    pub(crate) compiler: Option<String>,
    pub(crate) build_id: Option<String>,
    pub(crate) has_symbols: bool,
}

/// Reads what is there; of a damaged file, less.
pub(crate) fn read(file: &File) -> Program {
    let data = ReadCache::new(file);
    let Ok(elf) = ElfFile64::<Endianness, _>::parse(&data) else { return Program::default() };
    Program {
        go: section(&elf, ".go.buildinfo").and_then(go::build_info),
        compiler: section(&elf, ".comment").and_then(compiler),
        build_id: elf.build_id().ok().flatten().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        has_symbols: [".debug_info", ".zdebug_info"].iter().any(|name| elf.section_by_name(name).is_some()),
    }
}

/// The source files of a Go program.
pub(crate) fn go_files(file: &File) -> Option<Vec<String>> {
    let data = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&data).ok()?;
    // In a program that can be loaded anywhere, it needs relocations.
    [".gopclntab", ".data.rel.ro.gopclntab"].iter().find_map(|name| section(&elf, name).and_then(go::files))
}

fn section<'data, R: ReadRef<'data>>(elf: &ElfFile64<'data, Endianness, R>, name: &str) -> Option<&'data [u8]> {
    elf.section_by_name(name)?.data().ok()
}

/// Of several compilers the one of the language: C objects are linked into
/// programs of others.
fn compiler(section: &[u8]) -> Option<String> {
    let mut names: Vec<String> =
        section.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    names.sort_by_key(|name| !name.starts_with("rustc"));
    names.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_of_rust_and_has_symbols() {
        let own = read(&File::open("/proc/self/exe").unwrap());
        assert!(own.compiler.is_some_and(|name| name.starts_with("rustc")));
        assert!(own.has_symbols && own.go.is_none());
        assert_eq!(go_files(&File::open("/proc/self/exe").unwrap()), None);
    }

    #[test]
    fn what_is_no_program_says_nothing() {
        assert_eq!(read(&File::open("/proc/self/status").unwrap()), Program::default());
    }
}
