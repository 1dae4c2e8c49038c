//! The functions of a program or library, by address: from its debug information with
//! lines and inlined functions, else from its symbols, else from the table that every
//! Go program has.

use super::symbolize::Frame;
use addr2line::{Context, demangle_auto};
use flate2::read::ZlibDecoder;
use gimli::{EndianRcSlice, LittleEndian, SectionId};
use object::read::CompressionFormat;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::borrow::Cow;
use std::io::Read;
use std::rc::Rc;

type Reader = EndianRcSlice<LittleEndian>;

/// They.
pub(super) struct Functions {
    debug: Option<Context<Reader>>,
    symbols: Vec<Symbol>,
}

/// One of them, without more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Symbol {
    address: u64,
    /// 0 where that is not said.
    length: u64,
    name: String,
}

impl Functions {
    /// Of an ELF file; none of what is no such file.
    pub(super) fn read(content: &[u8]) -> Self {
        let Ok(elf) = ElfFile64::<Endianness>::parse(content) else { return Self { debug: None, symbols: Vec::new() } };
        let debug = elf.section_by_name(".debug_info").is_some().then(|| debug(&elf)).flatten();
        let mut symbols: Vec<Symbol> = elf.symbols().chain(elf.dynamic_symbols()).filter_map(|symbol| function(&symbol)).collect();
        if symbols.is_empty() {
            symbols = go_functions(&elf).unwrap_or_default();
        }
        symbols.sort();
        symbols.dedup_by_key(|symbol| symbol.address);
        Self { debug, symbols }
    }

    /// The functions that the code at an address is of, the innermost first: those
    /// before the last are inlined into the one after.
    pub(super) fn at(&self, address: u64) -> Vec<Frame> {
        let mut frames = self.debug.as_ref().map(|debug| inlined(debug, address)).unwrap_or_default();
        let symbol = self.symbol(address);
        // The outermost is the one that symbols are about; what is written in assembly
        // has lines and no name.
        match (frames.last_mut(), symbol) {
            (Some(last), Some(symbol)) if last.function.is_empty() => last.function = symbol,
            (None, Some(function)) => frames.push(Frame { function, file: None, line: 0 }),
            _ => {}
        }
        frames.retain(|frame| !frame.function.is_empty());
        frames
    }

    fn symbol(&self, address: u64) -> Option<String> {
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        let symbol = self.symbols[..after].last()?;
        // One whose length is not said ends where the next one begins.
        let is_in = address < symbol.address + symbol.length || symbol.length == 0 && after < self.symbols.len();
        is_in.then(|| demangle_auto(Cow::Borrowed(&symbol.name), None).into_owned())
    }
}

fn inlined(debug: &Context<Reader>, address: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    let Ok(mut found) = debug.find_frames(address).skip_all_loads() else { return frames };
    while let Ok(Some(frame)) = found.next() {
        let function = frame.function.and_then(|name| name.demangle().ok().map(Cow::into_owned)).unwrap_or_default();
        let (file, line) = frame.location.map_or((None, None), |location| (location.file.map(str::to_owned), location.line));
        frames.push(Frame { function, file, line: line.unwrap_or(0) });
    }
    frames
}

fn debug(elf: &ElfFile64<'_, Endianness>) -> Option<Context<Reader>> {
    let section = |id: SectionId| -> Result<Reader, gimli::Error> {
        let bytes = elf.section_by_name(id.name()).and_then(|section| unpacked(&section)).unwrap_or_default();
        Ok(EndianRcSlice::new(Rc::from(bytes), LittleEndian))
    };
    Context::from_dwarf(gimli::Dwarf::load(section).ok()?).ok()
}

/// Go compresses its debug information, and so do compilers that are told to.
fn unpacked<'data>(section: &impl ObjectSection<'data>) -> Option<Vec<u8>> {
    let data = section.compressed_data().ok()?;
    match data.format {
        CompressionFormat::None => Some(data.data.to_vec()),
        CompressionFormat::Zlib => {
            let mut bytes = Vec::new();
            ZlibDecoder::new(data.data).take(data.uncompressed_size).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        }
        _ => None,
    }
}

fn function<'data>(symbol: &impl ObjectSymbol<'data>) -> Option<Symbol> {
    // What is written in assembly need not have a type.
    let is_code = symbol.kind() == SymbolKind::Text || symbol.kind() == SymbolKind::Unknown && symbol.size() > 0;
    let name = symbol.name().ok().filter(|name| !name.is_empty())?;
    (is_code && symbol.is_definition()).then(|| Symbol { address: symbol.address(), length: symbol.size(), name: name.to_owned() })
}

/// The table of functions of a Go program (`runtime/symtab.go`, types `pcHeader` and
/// `_func`, of Go 1.18 and later), which is there even in a stripped one.
fn go_functions(elf: &ElfFile64<'_, Endianness>) -> Option<Vec<Symbol>> {
    // The second in a program that can be loaded anywhere.
    let table = elf.section_by_name(".gopclntab").or_else(|| elf.section_by_name(".data.rel.ro.gopclntab"))?;
    let bytes = table.data().ok()?;
    let word = |place: usize| -> Option<usize> {
        let bytes: [u8; 8] = bytes.get(place..place + 8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let half = |place: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(place..place + 4)?.try_into().ok()?)) };
    if !matches!(half(0)?, 0xffff_fff0 | 0xffff_fff1) || bytes.get(7) != Some(&8) {
        return None;
    }
    // nfunc, nfiles, textStart, funcnameOffset, cuOffset, filetabOffset, pctabOffset,
    // pclnOffset.
    let field = |index: usize| word(8 + index * 8);
    let (count, names, functions) = (field(0)?, field(3)?, field(7)?);
    let text = match field(2)? as u64 {
        // Since Go 1.26 it is not told there.
        0 => elf.section_by_name(".text")?.address(),
        start => start,
    };
    let mut symbols = Vec::new();
    for index in 0..count {
        // The entry of a function, its own data, the entry of the next one.
        let at = functions + index * 8;
        let (entry, data, next) = (half(at)?, half(at + 4)?, half(at + 8)?);
        let name = names + half(functions + usize::try_from(data).ok()? + 4)? as usize;
        let name = bytes.get(name..)?.split(|byte| *byte == 0).next()?;
        let name = String::from_utf8_lossy(name).into_owned();
        symbols.push(Symbol { address: text + u64::from(entry), length: u64::from(next.saturating_sub(entry)), name });
    }
    Some(symbols)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn here() -> u64 {
        here as fn() -> u64 as usize as u64
    }

    /// Where this program is in memory.
    fn bias() -> u64 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap()
    }

    #[test]
    fn a_function_of_this_program_has_its_name_and_line() {
        let functions = Functions::read(&std::fs::read("/proc/self/exe").unwrap());
        let frames = functions.at(here() - bias());
        let last = frames.last().unwrap();
        assert!(last.function.ends_with("functions::tests::here"), "{frames:?}");
        assert!(last.file.as_ref().unwrap().ends_with("tools/functions.rs") && last.line > 0, "{frames:?}");
        assert_eq!(functions.at(u64::MAX / 2), []);
    }

    #[test]
    fn what_is_no_program_has_none() {
        assert_eq!(Functions::read(b"#!/bin/sh").at(0), []);
    }

    #[test]
    fn a_stripped_go_program_still_has_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("go.mod"), "module example.com/tiny\n\ngo 1.21\n").unwrap();
        std::fs::write(
            folder.path().join("main.go"),
            "package main\n\nfunc main() { print(answer()) }\n\n//go:noinline\nfunc answer() int { return 42 }\n",
        )
        .unwrap();
        let names = |flags: &str| {
            let built = std::process::Command::new("go")
                .args(["build", "-o", "tiny", flags, "."])
                .current_dir(folder.path())
                .env("CGO_ENABLED", "0")
                .status();
            assert!(built.unwrap().success());
            let content = std::fs::read(folder.path().join("tiny")).unwrap();
            let functions = Functions::read(&content);
            let answer = functions.symbols.iter().find(|symbol| symbol.name == "main.answer").unwrap().address;
            functions.at(answer)
        };
        let whole = names("-ldflags=");
        assert_eq!((whole[0].function.as_str(), whole[0].line), ("main.answer", 6));
        let stripped = names("-ldflags=-s -w");
        assert_eq!((stripped[0].function.as_str(), stripped[0].file.as_ref()), ("main.answer", None));
    }
}
