//! Where everything is in a core file (elf(5), `ET_CORE`). Pure.

use super::arch::MACHINE;
use super::mappings::Mapping;

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// With so many, their number is not in the header any more (`PN_XNUM`).
const MOST: usize = 0xffff;

/// A mapping with what of it is in the file: from its start, so many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) mapping: Mapping,
    pub(super) length: u64,
}

/// A core file without its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// What it begins with.
    pub(super) head: Vec<u8>,
    /// Where the content of each segment begins.
    pub(super) offsets: Vec<u64>,
    /// Its length.
    pub(super) size: u64,
}

/// Lays out a core file; `None` when there are too many mappings.
pub(super) fn image(notes: &[u8], segments: &[Segment], page: u64) -> Option<Image> {
    let count = segments.len() + 1;
    let number = u16::try_from(count).ok().filter(|_| count < MOST)?;
    let notes_at = HEADER + PROGRAM_HEADER * count as u64;
    let mut head = header(number);
    head.extend(program_header(NOTE, 0, notes_at, (0, 0), notes.len() as u64, 4));
    let mut at = (notes_at + notes.len() as u64).next_multiple_of(page);
    let mut offsets = Vec::new();
    for Segment { mapping, length } in segments {
        let flags = u32::from(mapping.may_execute) | u32::from(mapping.may_write) << 1 | u32::from(mapping.may_read) << 2;
        head.extend(program_header(LOAD, flags, at, (mapping.start, mapping.length()), *length, page));
        offsets.push(at);
        at += length;
    }
    head.extend_from_slice(notes);
    Some(Image { head, offsets, size: at })
}

fn header(count: u16) -> Vec<u8> {
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, order, 1];
    bytes.resize(16, 0);
    let half = |bytes: &mut Vec<u8>, value: u16| bytes.extend(value.to_ne_bytes());
    // ET_CORE.
    half(&mut bytes, 4);
    half(&mut bytes, MACHINE);
    bytes.extend(1_u32.to_ne_bytes());
    for word in [0, HEADER, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(0_u32.to_ne_bytes());
    for value in [64, 56, count, 0, 0, 0] {
        half(&mut bytes, value);
    }
    bytes
}

fn program_header(kind: u32, flags: u32, offset: u64, (address, memory): (u64, u64), length: u64, align: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = [kind, flags].into_iter().flat_map(u32::to_ne_bytes).collect();
    bytes.extend([offset, address, 0, length, memory, align].into_iter().flat_map(u64::to_ne_bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use object::elf::{FileHeader64, PF_R, PF_X};
    use object::read::elf::{FileHeader, ProgramHeader};
    use object::{Endianness, elf};

    use super::*;

    #[test]
    fn a_reader_finds_what_was_laid_out() {
        let code = Mapping { start: 0x40_0000, end: 0x40_3000, may_read: true, may_execute: true, ..Mapping::default() };
        let heap = Mapping { start: 0x50_0000, end: 0x50_2000, may_read: true, may_write: true, ..Mapping::default() };
        let segments = [Segment { mapping: code, length: 0x1000 }, Segment { mapping: heap, length: 0x2000 }];
        let image = image(b"notes", &segments, 4096).unwrap();
        assert_eq!((image.offsets.as_slice(), image.size), ([0x1000, 0x2000].as_slice(), 0x4000));
        let mut file = image.head.clone();
        file.resize(0x4000, 0);
        let parsed = FileHeader64::<Endianness>::parse(file.as_slice()).unwrap();
        let endian = parsed.endian().unwrap();
        assert_eq!((parsed.e_type(endian), parsed.e_machine(endian)), (elf::ET_CORE, MACHINE));
        let headers = parsed.program_headers(endian, file.as_slice()).unwrap();
        assert_eq!(headers[0].data(endian, file.as_slice()).unwrap(), b"notes");
        assert_eq!((headers[1].p_flags(endian), headers[1].p_vaddr(endian), headers[1].p_memsz(endian)), (PF_R | PF_X, 0x40_0000, 0x3000));
        assert_eq!((headers[2].p_offset(endian), headers[2].p_filesz(endian)), (0x2000, 0x2000));
    }

    #[test]
    fn too_many_mappings_are_refused() {
        let segments = vec![Segment { mapping: Mapping::default(), length: 0 }; MOST];
        assert_eq!(image(b"", &segments, 4096), None);
    }
}
