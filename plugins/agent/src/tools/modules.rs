//! The files whose code a process runs, and what they say on how to find callers.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use flate2::read::ZlibDecoder;
use framehop::ExplicitModuleSectionInfo;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::read::{CompressionFormat, ReadCache, ReadRef};
use object::{Endianness, Object, ObjectSection, elf};
use rustix::fs::OFlags;

use super::core_file::page_size;
use super::mappings::{self, Mapping};
use super::output::Output;
use super::target_memory::TargetMemory;
use super::{CodeFile, FileAnswer, Piece};
use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ByteString, ErrorKind, MAX_CHUNK, ProcessId};
use crate::root::ContainerRoot;

const VDSO: &str = "[vdso]";
/// Of a section that is compressed; more is taken for damage.
const MOST_UNPACKED: u64 = 256 << 20;

/// A file, and its sections about unwinding.
pub(super) struct Module {
    pub(super) file: CodeFile,
    pub(super) sections: ExplicitModuleSectionInfo<Vec<u8>>,
}

/// All of a process. One whose file can't be read is left out: callers in it are found
/// by frame pointers.
pub(super) fn of(proc: &Proc, process: ProcessId) -> Result<Vec<Module>, Failure> {
    let memory = TargetMemory::open(proc, process.pid)?;
    let mut modules: Vec<Module> = Vec::new();
    for mapping in code_of(proc, process)? {
        match modules.last_mut() {
            Some(last) if last.file.path.0 == mapping.name.as_bytes() => last.file.end = mapping.end,
            _ => modules.extend(module(proc, process, &memory, &mapping)),
        }
    }
    Ok(modules)
}

/// Sends the file that is mapped at an address.
pub(super) fn send_file(proc: &Proc, process: ProcessId, address: u64, output: File) -> io::Result<()> {
    let mut output = Output::new(output)?;
    let failed = |failure: Failure| FileAnswer::Failed(failure.into());
    let opened = code_of(proc, process).and_then(|mappings| {
        let mapping = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address));
        let mapping = mapping.ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("nothing is mapped at {address:#x}")))?;
        open(proc, process, mapping)
    });
    let mut file = match opened {
        Ok(file) => file,
        Err(failure) => return output.tell(&failed(failure)),
    };
    let mut buffer = vec![0; MAX_CHUNK];
    let mut offset = 0;
    loop {
        let length = match file.read(&mut buffer) {
            Ok(0) => return output.tell(&FileAnswer::Done),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return output.tell(&failed(Failure::io("read a file of the process")(error))),
        };
        output.tell(&FileAnswer::Piece(Piece::new(offset, &buffer[..length])))?;
        offset += length as u64;
    }
}

/// The mappings with code that is some file's.
fn code_of(proc: &Proc, process: ProcessId) -> Result<Vec<Mapping>, Failure> {
    let maps = proc.read_live(process.pid, "maps")?;
    proc.check(process)?;
    let mut all = mappings::parse(&String::from_utf8_lossy(&maps));
    all.retain(|mapping| mapping.may_execute && (mapping.name.starts_with('/') || mapping.name == VDSO));
    Ok(all)
}

fn module(proc: &Proc, process: ProcessId, memory: &TargetMemory, mapping: &Mapping) -> Option<Module> {
    if mapping.name == VDSO {
        let mut bytes = vec![0; usize::try_from(mapping.length()).ok()?];
        memory.read(mapping.start, &mut bytes).ok()?;
        return read(bytes.as_slice(), mapping);
    }
    let file = open(proc, process, mapping).ok()?;
    read(&ReadCache::new(&file), mapping)
}

/// The very file, where the agent may have it so; else that of the same path.
fn open(proc: &Proc, process: ProcessId, mapping: &Mapping) -> Result<File, Failure> {
    let link = proc.live_path(process.pid, &format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
    if let Ok(file) = File::open(link) {
        return Ok(file);
    }
    let program = fs::read_link(proc.live_path(process.pid, "exe")).ok();
    if program.as_deref() == Some(Path::new(&mapping.name)) {
        return proc.open_executable(process.pid);
    }
    let opened = ContainerRoot::of(proc, process)?.open(Path::new(&mapping.name), OFlags::RDONLY);
    opened.map(File::from).map_err(Failure::errno(format_args!("open {}", mapping.name)))
}

fn read<'data, R: ReadRef<'data>>(data: R, mapping: &Mapping) -> Option<Module> {
    let elf = ElfFile64::<Endianness, R>::parse(data).ok()?;
    let bias = bias(&elf, mapping)?;
    let range = |name: &str| -> Option<Range<u64>> {
        let section = elf.section_by_name(name)?;
        Some(section.address()..section.address() + section.size())
    };
    let content = |name: &str| elf.section_by_name(name)?.data().ok().map(<[u8]>::to_vec).filter(|bytes| !bytes.is_empty());
    let sections = ExplicitModuleSectionInfo {
        text_svma: range(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: content(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: content(".eh_frame_hdr"),
        debug_frame: unpacked(&elf, ".debug_frame"),
        ..ExplicitModuleSectionInfo::default()
    };
    let id = elf.build_id().ok().flatten();
    let file = CodeFile {
        start: mapping.start,
        end: mapping.end,
        offset: mapping.offset,
        bias,
        path: ByteString(mapping.name.clone().into_bytes()),
        build_id: id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
    };
    Some(Module { file, sections })
}

/// By the segment that the mapping is of.
fn bias<'data, R: ReadRef<'data>>(elf: &ElfFile64<'data, Endianness, R>, mapping: &Mapping) -> Option<u64> {
    let (endian, page) = (elf.endian(), page_size());
    let segment = elf.elf_program_headers().iter().find(|segment| {
        let (offset, length) = (segment.p_offset(endian), segment.p_filesz(endian));
        segment.p_type(endian) == elf::PT_LOAD && (offset / page * page..offset + length).contains(&mapping.offset)
    })?;
    let in_file = segment.p_vaddr(endian).wrapping_sub(segment.p_offset(endian)).wrapping_add(mapping.offset);
    Some(mapping.start.wrapping_sub(in_file))
}

/// Go compresses its debug information.
fn unpacked<'data, R: ReadRef<'data>>(elf: &ElfFile64<'data, Endianness, R>, name: &str) -> Option<Vec<u8>> {
    let data = elf.section_by_name(name)?.compressed_data().ok()?;
    match data.format {
        CompressionFormat::None => Some(data.data.to_vec()),
        CompressionFormat::Zlib => {
            let mut bytes = Vec::new();
            ZlibDecoder::new(data.data).take(MOST_UNPACKED).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::FileAnswer;

    fn own() -> ProcessId {
        let pid = std::process::id();
        ProcessId { pid, start_time: Proc::system().stat(pid).unwrap().start_time }
    }

    #[test]
    fn this_program_is_found_where_it_is() {
        let modules = of(&Proc::system(), own()).unwrap();
        let here = this_program_is_found_where_it_is as fn() as usize as u64;
        let program = modules.iter().find(|module| (module.file.start..module.file.end).contains(&here)).unwrap();
        assert!(program.sections.eh_frame.is_some() && program.sections.eh_frame_hdr.is_some());
        assert!(program.sections.text_svma.as_ref().unwrap().contains(&(here - program.file.bias)));
        assert!(modules.iter().any(|module| module.file.path.0 == b"[vdso]"));
    }

    #[test]
    fn a_file_is_sent_whole() {
        let here = this_program_is_found_where_it_is as fn() as usize as u64;
        let (mut reader, writer) = io::pipe().unwrap();
        let sender = std::thread::spawn(move || send_file(&Proc::system(), own(), here, File::from(std::os::fd::OwnedFd::from(writer))));
        let (mut decoder, mut bytes, mut said) = (crate::protocol::Decoder::new(), Vec::new(), Vec::new());
        reader.read_to_end(&mut said).unwrap();
        sender.join().unwrap().unwrap();
        decoder.push(&said);
        while let Some(answer) = decoder.pop::<FileAnswer>().unwrap() {
            match answer {
                FileAnswer::Piece(piece) => bytes.extend(piece.into_bytes().unwrap()),
                FileAnswer::Done => break,
                FileAnswer::Failed(refusal) => panic!("{refusal:?}"),
            }
        }
        assert_eq!(bytes, fs::read("/proc/self/exe").unwrap());
    }
}
