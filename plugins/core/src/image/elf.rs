//! What a program's ELF header says about where it can run.

use super::ImageError;
use object::read::ReadCache;
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Architecture, FileKind, Object, elf};
use std::fs::File;
use std::path::Path;

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// As Go names it.
    pub(super) architecture: String,
    /// The dynamic loader that it asks for; none when static.
    pub(super) interpreter: Option<String>,
}

/// Reads a program's header; not the whole file.
pub(super) fn inspect(path: &Path) -> Result<Program, ImageError> {
    let failed = |source| ImageError::Io { doing: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(ImageError::Binary { path: path.to_owned(), reason: "it is not a file".into() });
    }
    let data = ReadCache::new(file);
    let program = match FileKind::parse(&data) {
        Ok(FileKind::Elf64) => read::<elf::FileHeader64<object::Endianness>>(&data),
        Ok(FileKind::Elf32) => read::<elf::FileHeader32<object::Endianness>>(&data),
        Ok(_) | Err(_) => Err("it is not an ELF program".to_owned()),
    };
    program.map_err(|reason| ImageError::Binary { path: path.to_owned(), reason })
}

fn read<Header: FileHeader<Endian = object::Endianness>>(data: &ReadCache<File>) -> Result<Program, String> {
    let file = ElfFile::<Header, _>::parse(data).map_err(|error| format!("its ELF header is damaged: {error}"))?;
    let endian = file.endian();
    let architecture = go_architecture(file.architecture()).ok_or_else(|| format!("unknown architecture {:?}", file.architecture()))?;
    let mut interpreter = None;
    for segment in file.elf_program_headers() {
        let found = segment.interpreter(endian, data).map_err(|error| format!("its ELF header is damaged: {error}"))?;
        interpreter = interpreter.or(found.map(|name| String::from_utf8_lossy(name).into_owned()));
    }
    Ok(Program { architecture: architecture.to_owned(), interpreter })
}

/// The names that image configurations use (`GOARCH`).
fn go_architecture(architecture: Architecture) -> Option<&'static str> {
    Some(match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::I386 => "386",
        Architecture::Aarch64 => "arm64",
        Architecture::Arm => "arm",
        Architecture::Riscv64 => "riscv64",
        Architecture::PowerPc64 => "ppc64le",
        Architecture::S390x => "s390x",
        Architecture::LoongArch64 => "loong64",
        _ => return None,
    })
}
