//! What the Go linker leaves in a program. Pure.
//!
//! Formats: package `debug/buildinfo` (Go 1.18 and later, with the strings inline)
//! and `runtime/symtab.go`, type `pcHeader` (Go 1.18 and later), which is there
//! even in a program without debug information.

use super::GoProgram;

const BUILD_INFO_MAGIC: &[u8] = b"\xff Go buildinf:";
/// The strings follow the header, not pointers to them.
const INLINE_STRINGS: u8 = 2;
/// Before and after the text about modules, so that it can be found in memory.
const MODULE_MARK: usize = 16;
/// `pcHeader.magic` of Go 1.18 and of Go 1.20.
const LINE_TABLE_MAGICS: [u32; 2] = [0xffff_fff0, 0xffff_fff1];

/// Reads the section `.go.buildinfo`.
pub(crate) fn build_info(section: &[u8]) -> Option<GoProgram> {
    let start = section.windows(BUILD_INFO_MAGIC.len()).position(|window| window == BUILD_INFO_MAGIC)?;
    let header = section.get(start..)?;
    if header.get(15)? & INLINE_STRINGS == 0 {
        return None;
    }
    let (version, rest) = string(header.get(32..)?)?;
    let modules = string(rest).map(|(modules, _)| modules).unwrap_or_default();
    let text = modules.get(MODULE_MARK..modules.len().saturating_sub(MODULE_MARK)).unwrap_or_default();
    let mut program = GoProgram { version: String::from_utf8_lossy(version).into_owned(), ..GoProgram::default() };
    for line in String::from_utf8_lossy(text).lines() {
        let words: Vec<&str> = line.split('\t').collect();
        match words.as_slice() {
            ["path", package] => program.package = (*package).to_owned(),
            ["mod", module, ..] => program.module = (*module).to_owned(),
            ["dep", module, version, ..] => program.dependencies.push(((*module).to_owned(), (*version).to_owned())),
            ["=>", module, version, ..] => {
                program.dependencies.pop();
                program.dependencies.push(((*module).to_owned(), (*version).to_owned()));
            }
            ["build", setting] => {
                if let Some((name, value)) = setting.split_once('=') {
                    program.settings.push((name.to_owned(), value.trim_matches('"').to_owned()));
                }
            }
            _ => {}
        }
    }
    Some(program)
}

/// The paths of all source files, from the section `.gopclntab`.
pub(crate) fn files(section: &[u8]) -> Option<Vec<String>> {
    let magic = u32::from_le_bytes(section.get(..4)?.try_into().ok()?);
    if !LINE_TABLE_MAGICS.contains(&magic) || section.get(7) != Some(&8) {
        return None;
    }
    // nfunc, nfiles, textStart, funcnameOffset, cuOffset, filetabOffset, pctabOffset.
    let word = |index: usize| -> Option<usize> {
        let bytes = section.get(8 + index * 8..16 + index * 8)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let table = section.get(word(5)?..word(6)?)?;
    let names = table.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Some(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// A string with its length before it, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    // Base 128, the lowest digit first (package `encoding/binary`).
    for (index, byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let rest = bytes.get(index + 1..)?;
            return (rest.len() >= length).then(|| rest.split_at(length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_length(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut left = text.len();
        while left >= 0x80 {
            out.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
        out.extend_from_slice(text);
        out
    }

    fn section(version: &str, modules: &str) -> Vec<u8> {
        let mut section = b"padding.".to_vec();
        section.extend_from_slice(BUILD_INFO_MAGIC);
        section.extend_from_slice(&[8, INLINE_STRINGS]);
        section.extend_from_slice(&[0; 16]);
        section.extend(with_length(version.as_bytes()));
        section.extend(with_length(format!("{}{modules}{}", "<".repeat(16), ">".repeat(16)).as_bytes()));
        section
    }

    #[test]
    fn build_information_is_read() {
        let modules = "path\texample.com/shop/cmd/web\nmod\texample.com/shop\t(devel)\t\ndep\tgithub.com/a/b\tv1.2.0\th1:x=\n\
            dep\tgithub.com/c/d\tv1.0.0\n=>\tgithub.com/e/f\tv2.0.0\th1:y=\nbuild\t-trimpath=true\nbuild\tvcs.revision=abc\n";
        let program = build_info(&section("go1.26.8", modules)).unwrap();
        assert_eq!((program.version.as_str(), program.package.as_str()), ("go1.26.8", "example.com/shop/cmd/web"));
        assert_eq!(program.module, "example.com/shop");
        let dependencies = [("github.com/a/b", "v1.2.0"), ("github.com/e/f", "v2.0.0")];
        assert_eq!(program.dependencies, dependencies.map(|(path, version)| (path.to_owned(), version.to_owned())));
        assert_eq!((program.setting("-trimpath"), program.setting("vcs.revision")), (Some("true"), Some("abc")));
    }

    #[test]
    fn source_files_are_listed() {
        let names = b"\0runtime/proc.go\0example.com/shop/main.go\0\0";
        let mut section = 0xffff_fff1_u32.to_le_bytes().to_vec();
        section.extend_from_slice(&[0, 0, 1, 8]);
        let end = 72 + names.len() as u64;
        for word in [1, 2, 0, 72, 72, 72, end, end] {
            section.extend_from_slice(&word.to_le_bytes());
        }
        section.extend_from_slice(names);
        assert_eq!(files(&section).unwrap(), ["runtime/proc.go", "example.com/shop/main.go"]);
        section[0] = 0;
        assert_eq!(files(&section), None);
    }

    proptest! {
        #[test]
        fn damaged_sections_are_none_or_something_but_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..120) {
            let mut whole = section("go1.26", "path\tx\n");
            whole.truncate(cut);
            let _ = build_info(&whole);
            whole.extend_from_slice(&bytes);
            let _ = build_info(&whole);
            let mut table = LINE_TABLE_MAGICS[1].to_le_bytes().to_vec();
            table.extend_from_slice(&[0, 0, 1, 8]);
            table.extend_from_slice(&bytes);
            let _ = files(&table);
        }
    }
}
