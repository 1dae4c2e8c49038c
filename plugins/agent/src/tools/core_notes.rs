//! The notes of a core file: processes, threads, files (core(5), `<linux/elfcore.h>`).
//! Pure.

use super::mappings::Mapping;

const PRSTATUS: u32 = 1;
const PRPSINFO: u32 = 3;
const AUXV: u32 = 6;
/// `NT_FILE`.
const FILE: u32 = 0x4649_4c45;
/// The length of `struct elf_prstatus` before and after the registers.
const STATUS_HEAD: usize = 112;
const STATUS_TAIL: usize = 8;

/// A process, as its core file describes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Described {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Its name, and its arguments with spaces between them.
    pub(super) name: Vec<u8>,
    pub(super) arguments: Vec<u8>,
    /// `/proc/PID/auxv`.
    pub(super) auxiliary: Vec<u8>,
    /// The first one first.
    pub(super) threads: Vec<Thread>,
}

/// One of its threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Thread {
    pub(super) id: u32,
    pub(super) general: Vec<u8>,
    /// `NT_PRFPREG`, and further sets by their numbers.
    pub(super) floating_point: Option<Vec<u8>>,
    pub(super) extra: Vec<(u32, Vec<u8>)>,
}

/// All notes of a process.
pub(super) fn notes(process: &Described, mappings: &[Mapping], page: u64) -> Vec<u8> {
    let mut notes = Vec::new();
    for (index, thread) in process.threads.iter().enumerate() {
        // What follows a thread's status is about that thread.
        add(&mut notes, "CORE", PRSTATUS, &status(process, thread));
        if index == 0 {
            add(&mut notes, "CORE", PRPSINFO, &information(process));
            add(&mut notes, "CORE", AUXV, &process.auxiliary);
            add(&mut notes, "CORE", FILE, &files(mappings, page));
        }
        if let Some(registers) = &thread.floating_point {
            add(&mut notes, "CORE", super::registers::FLOATING_POINT, registers);
        }
        for (kind, registers) in &thread.extra {
            add(&mut notes, "LINUX", *kind, registers);
        }
    }
    notes
}

fn add(notes: &mut Vec<u8>, name: &str, kind: u32, content: &[u8]) {
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes();
    notes.extend(number(name.len() + 1));
    notes.extend(number(content.len()));
    notes.extend(kind.to_ne_bytes());
    for part in [name.as_bytes(), b"\0"].concat().chunks(4).chain(content.chunks(4)) {
        notes.extend_from_slice(part);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
}

/// `struct elf_prstatus`: numbers of the process and the registers; times stay zero.
fn status(process: &Described, thread: &Thread) -> Vec<u8> {
    let mut bytes = vec![0; STATUS_HEAD];
    for (place, number) in [(32, thread.id), (36, process.parent), (40, process.pid), (44, process.pid)] {
        bytes[place..place + 4].copy_from_slice(&number.to_ne_bytes());
    }
    bytes.extend_from_slice(&thread.general);
    let mut tail = [0; STATUS_TAIL];
    tail[..4].copy_from_slice(&u32::from(thread.floating_point.is_some()).to_ne_bytes());
    bytes.extend_from_slice(&tail);
    bytes
}

/// `struct elf_prpsinfo`.
fn information(process: &Described) -> Vec<u8> {
    let mut bytes = vec![0; 136];
    bytes[1] = b'R';
    let numbers = [process.uid, process.gid, process.pid, process.parent, process.pid, process.pid];
    for (index, number) in numbers.into_iter().enumerate() {
        bytes[16 + index * 4..20 + index * 4].copy_from_slice(&number.to_ne_bytes());
    }
    let mut put = |place: usize, room: usize, text: &[u8]| {
        // The last byte stays zero, which ends it.
        let length = text.len().min(room - 1);
        bytes[place..place + length].copy_from_slice(&text[..length]);
    };
    put(40, 16, &process.name);
    put(56, 80, &process.arguments);
    bytes
}

/// Which files are mapped where: a count and the page size; starts, ends and offsets in
/// pages; names.
fn files(mappings: &[Mapping], page: u64) -> Vec<u8> {
    let files: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.inode != 0 && mapping.name.starts_with('/')).collect();
    let mut words = vec![files.len() as u64, page];
    words.extend(files.iter().flat_map(|file| [file.start, file.end, file.offset / page]));
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
    for file in files {
        bytes.extend_from_slice(file.name.as_bytes());
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_those_that_a_reader_finds() {
        let thread = |id| Thread { id, general: vec![1; 216], floating_point: Some(vec![2; 512]), extra: vec![(0x202, vec![3; 5])] };
        let process = Described { pid: 7, threads: vec![thread(7), thread(8)], auxiliary: vec![4; 32], ..Described::default() };
        let mapping = Mapping { start: 0x1000, end: 0x2000, offset: 0x3000, inode: 1, name: "/app".to_owned(), ..Mapping::default() };
        let bytes = notes(&process, &[mapping], 4096);
        let mut found = Vec::new();
        let reader =
            object::read::elf::NoteIterator::<object::elf::FileHeader64<object::Endianness>>::new(object::Endianness::default(), 4, &bytes);
        let mut reader = reader.unwrap();
        while let Some(note) = reader.next().unwrap() {
            found.push((
                String::from_utf8_lossy(note.name()).into_owned(),
                note.n_type(object::Endianness::default()),
                note.desc().to_vec(),
            ));
        }
        let kinds: Vec<u32> = found.iter().map(|(_, kind, _)| *kind).collect();
        assert_eq!(kinds, [PRSTATUS, PRPSINFO, AUXV, FILE, 2, 0x202, PRSTATUS, 2, 0x202]);
        assert_eq!((found[0].0.as_str(), found[5].0.as_str(), found[5].2.as_slice()), ("CORE", "LINUX", [3; 5].as_slice()));
        assert_eq!((found[0].2.len(), found[1].2.len()), (336, 136));
        assert_eq!(found[6].2[32], 8);
        assert!(found[3].2.ends_with(b"/app\0"));
    }
}
