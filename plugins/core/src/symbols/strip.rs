//! A program without its symbols.
//!
//! What is loaded stays byte for byte where it is; behind it lies all that is only
//! read by debuggers, of which the symbols are left out (elf(5)). It takes no tool
//! and no more than one copy within the kernel, which matters where a program is
//! built with each save.

use object::LittleEndian;
use object::elf::{
    ET_DYN, ET_EXEC, FileHeader64, SHF_ALLOC, SHN_LORESERVE, SHT_GROUP, SHT_NOBITS, SHT_REL, SHT_RELA, SHT_STRTAB, SHT_SYMTAB,
    SHT_SYMTAB_SHNDX, SectionHeader64,
};
use object::endian::{U16, U32, U64};
use object::pod::bytes_of;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

const ENDIAN: LittleEndian = LittleEndian;
type Header = FileHeader64<LittleEndian>;
type Section = SectionHeader64<LittleEndian>;
/// Section headers consist of numbers of up to eight bytes.
const ALIGNMENT: u64 = 8;

/// What became of the symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stripped {
    /// They are not in the copy.
    TakenOut,
    /// The program has none.
    HasNone,
    /// They would be in the copy, if there are any: it is no 64-bit little-endian
    /// ELF program.
    Unknown,
}

/// Writes a copy of a program without its symbols to an empty file; the same bytes
/// for the same program, whatever machine does it.
///
/// # Errors
/// When the program can't be read or the copy can't be written.
pub fn strip(program: &File, to: &mut File) -> io::Result<Stripped> {
    let data = ReadCache::new(program);
    let Some(plan) = Plan::of(&data) else { return copied(program, to, Stripped::Unknown) };
    if !plan.has_symbols {
        return copied(program, to, Stripped::HasNone);
    }
    copy(program, 0..plan.loaded, to)?;
    let mut end = plan.loaded;
    let mut sections = plan.sections;
    for (section, from) in sections.iter_mut().zip(plan.moved) {
        let Some(from) = from else { continue };
        pad(to, &mut end, section.sh_addralign(ENDIAN).clamp(1, 4096))?;
        section.sh_offset = U64::new(ENDIAN, end);
        end += from.end - from.start;
        copy(program, from, to)?;
    }
    let (none, nothing) = (U32::new(ENDIAN, 0), U64::new(ENDIAN, 0));
    sections.push(Section {
        sh_name: U32::new(ENDIAN, plan.own_name),
        sh_type: U32::new(ENDIAN, SHT_STRTAB),
        sh_flags: nothing,
        sh_addr: nothing,
        sh_offset: U64::new(ENDIAN, end),
        sh_size: U64::new(ENDIAN, plan.names.len() as u64),
        sh_link: none,
        sh_info: none,
        sh_addralign: U64::new(ENDIAN, 1),
        sh_entsize: nothing,
    });
    to.write_all(&plan.names)?;
    end += plan.names.len() as u64;
    pad(to, &mut end, ALIGNMENT)?;
    for section in &sections {
        to.write_all(bytes_of(section))?;
    }
    let count = u16::try_from(sections.len()).map_err(io::Error::other)?;
    let mut header = plan.header;
    header.e_shoff = U64::new(ENDIAN, end);
    header.e_shnum = U16::new(ENDIAN, count);
    header.e_shstrndx = U16::new(ENDIAN, count - 1);
    to.seek(SeekFrom::Start(0))?;
    to.write_all(bytes_of(&header))?;
    Ok(Stripped::TakenOut)
}

/// What the copy is made of.
struct Plan {
    header: Header,
    /// So much is taken as it is: all that is loaded.
    loaded: u64,
    /// The headers that stay, without that of their names.
    sections: Vec<Section>,
    /// Where the content of each lies that is not loaded.
    moved: Vec<Option<Range<u64>>>,
    names: Vec<u8>,
    /// Where the name of the section of names is.
    own_name: u32,
    has_symbols: bool,
}

impl Plan {
    /// None for what is no such program, or contradicts itself.
    fn of(data: &ReadCache<&File>) -> Option<Self> {
        let header = *Header::parse(data).ok().filter(|header| header.is_little_endian())?;
        let is_program =
            matches!(header.e_type(ENDIAN), ET_EXEC | ET_DYN) && usize::from(header.e_shnum(ENDIAN)) < usize::from(SHN_LORESERVE);
        let segments = header.program_headers(ENDIAN, data).ok().filter(|segments| is_program && !segments.is_empty())?;
        let table = header.sections(ENDIAN, data).ok()?;
        let all: Vec<(Section, Vec<u8>)> =
            table.iter().map(|section| Some((*section, table.section_name(ENDIAN, section).ok()?.to_vec()))).collect::<Option<_>>()?;
        let stays: Vec<bool> = all.iter().enumerate().map(|(index, (section, name))| index == 0 || !is_left_out(section, name)).collect();
        let mut places = Vec::with_capacity(all.len());
        let mut kept = 0;
        for stays in &stays {
            places.push(if *stays { kept } else { 0 });
            kept += u32::from(*stays);
        }
        let place = |index: u32| places.get(index as usize).copied();
        let (mut sections, mut moved, mut names) = (Vec::new(), Vec::new(), vec![0]);
        let mut loaded = header.e_phoff(ENDIAN).checked_add(size_of_val(segments) as u64)?;
        for segment in segments {
            loaded = loaded.max(segment.p_offset(ENDIAN).checked_add(segment.p_filesz(ENDIAN))?);
        }
        for (mut section, name) in all.iter().zip(&stays).filter(|(_, stays)| **stays).map(|((section, name), _)| (*section, name)) {
            let content = section.sh_offset(ENDIAN)..section.sh_offset(ENDIAN).checked_add(section.sh_size(ENDIAN))?;
            let has_content = !matches!(section.sh_type(ENDIAN), SHT_NOBITS | object::elf::SHT_NULL);
            let is_loaded = is_loaded(&section);
            if is_loaded && has_content {
                loaded = loaded.max(content.end);
            }
            moved.push((!is_loaded && has_content).then_some(content));
            section.sh_link = U32::new(ENDIAN, place(section.sh_link(ENDIAN))?);
            if matches!(section.sh_type(ENDIAN), SHT_REL | SHT_RELA) {
                section.sh_info = U32::new(ENDIAN, place(section.sh_info(ENDIAN))?);
            }
            section.sh_name = U32::new(ENDIAN, add(&mut names, name)?);
            sections.push(section);
        }
        let own_name = add(&mut names, b".shstrtab")?;
        // The names of sections are left out to be written anew.
        let has_symbols = all.iter().any(|(section, name)| is_left_out(section, name) && name != b".shstrtab");
        Some(Self { header, loaded, sections, moved, names, own_name, has_symbols })
    }
}

fn is_loaded(section: &Section) -> bool {
    section.sh_flags(ENDIAN) & u64::from(SHF_ALLOC) != 0
}

/// Symbols, their names, and what debuggers call by such names (DWARF 5, 7.3; gdb's
/// index; stabs).
fn is_left_out(section: &Section, name: &[u8]) -> bool {
    const NAMES: [&[u8]; 4] = [b".debug_", b".zdebug_", b".gdb_index", b".stab"];
    let by_type = matches!(section.sh_type(ENDIAN), SHT_SYMTAB | SHT_SYMTAB_SHNDX | SHT_STRTAB | SHT_REL | SHT_RELA | SHT_GROUP);
    !is_loaded(section) && (by_type || NAMES.iter().any(|prefix| name.starts_with(prefix)))
}

/// Adds a name to the names; answers where it is.
fn add(names: &mut Vec<u8>, name: &[u8]) -> Option<u32> {
    let at = u32::try_from(names.len()).ok()?;
    names.extend_from_slice(name);
    names.push(0);
    Some(at)
}

fn copied(program: &File, to: &mut File, what: Stripped) -> io::Result<Stripped> {
    copy(program, 0..program.metadata()?.len(), to)?;
    Ok(what)
}

/// Appends a part of a file; from file to file that is done by the kernel.
fn copy(from: &File, part: Range<u64>, to: &mut File) -> io::Result<()> {
    let mut from = from;
    from.seek(SeekFrom::Start(part.start))?;
    let length = part.end - part.start;
    if io::copy(&mut from.take(length), to)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn pad(to: &mut File, end: &mut u64, alignment: u64) -> io::Result<()> {
    let aligned = end.next_multiple_of(alignment);
    io::copy(&mut io::repeat(0).take(aligned - *end), to)?;
    *end = aligned;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    fn stripped(program: &Path, folder: &Path) -> (PathBuf, Stripped) {
        let path = folder.join("stripped");
        let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        let what = strip(&File::open(program).unwrap(), &mut file).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        (path, what)
    }

    fn names(program: &Path) -> Vec<String> {
        use object::{Object, ObjectSection};
        let bytes = std::fs::read(program).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        file.sections().map(|section| section.name().unwrap().to_owned()).collect()
    }

    /// This test itself, which has symbols, relocations and thread-local storage.
    #[test]
    fn what_is_left_runs_and_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let (path, what) = stripped(&own, folder.path());
        assert_eq!(what, Stripped::TakenOut);
        let (before, after) = (names(&own), names(&path));
        assert!(before.iter().any(|name| name == ".symtab") && before.iter().any(|name| name.starts_with(".debug_")));
        let gone: Vec<&String> = before.iter().filter(|name| !after.contains(name)).collect();
        assert!(gone.iter().all(|name| [".symtab", ".strtab"].contains(&name.as_str()) || name.starts_with(".debug_")), "{gone:?}");
        assert_eq!(gone.len(), before.len() - after.len());
        let listed = Command::new(&path).args(["--list", "what_is_left_runs"]).output().unwrap();
        assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("what_is_left_runs_and_can_be_read"));
        // What the two have in common they have in the same words.
        let content = |program: &Path, wanted: &str| {
            use object::{Object, ObjectSection};
            let bytes = std::fs::read(program).unwrap();
            let file = object::File::parse(&*bytes).unwrap();
            file.section_by_name(wanted).map(|section| section.data().unwrap().to_vec())
        };
        for name in &after {
            assert!(name == ".shstrtab" || content(&own, name) == content(&path, name), "{name} differs");
        }
        let other = tempfile::tempdir().unwrap();
        let (again, what) = stripped(&path, other.path());
        assert!(what == Stripped::HasNone && std::fs::read(again).unwrap() == std::fs::read(&path).unwrap());
    }

    #[test]
    fn what_is_no_program_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        for text in ["#!/bin/sh\n", "", "\x7fELF\x02\x01\x01"] {
            std::fs::write(&path, text).unwrap();
            let (copy, what) = stripped(&path, folder.path());
            assert_eq!((what, std::fs::read_to_string(copy).unwrap()), (Stripped::Unknown, text.to_owned()));
        }
    }

    /// One whose headers lie is copied as it is, or refused, and harms nothing.
    #[test]
    fn broken_programs_are_survived() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read("/bin/true").unwrap();
        let path = folder.path().join("broken");
        let mut random: u32 = 7;
        let mut next = |most: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random as usize % most
        };
        for _ in 0..300 {
            let mut bytes = whole.clone();
            let headers = bytes.len() - 2000;
            for _ in 0..4 {
                let at = if next(2) == 0 { next(64) } else { headers + next(2000) };
                bytes[at] = u8::try_from(next(256)).unwrap();
            }
            bytes.truncate(bytes.len() - next(3) * 100);
            std::fs::write(&path, bytes).unwrap();
            let mut to = tempfile::tempfile().unwrap();
            let _ = strip(&File::open(&path).unwrap(), &mut to);
            assert!(to.metadata().unwrap().len() < 10 * whole.len() as u64);
        }
    }
}
