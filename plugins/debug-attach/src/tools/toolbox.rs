//! What a toolbox is made of: a static `busybox` of this machine.

use crate::kit::{Kit, KitFile};
use devloop_core::{CommandError, ErrorContext, Result};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, elf};
use std::ffi::OsString;
use std::path::PathBuf;

/// Names one to use in place of that on PATH.
const VARIABLE: &str = "DEVLOOP_BUSYBOX";
/// Its file where the process is.
pub(super) const FILE: &str = "busybox";

/// It, to be brought along.
///
/// # Errors
/// When there is none, or it needs libraries.
pub(super) async fn kit() -> Result<Kit> {
    let source = find(std::env::var_os(VARIABLE), std::env::var_os("PATH"))?;
    let content = tokio::fs::read(&source).await.with_context(|| format!("could not read {}", source.display()))?;
    if !is_static(&content) {
        return Err(hint(CommandError::new(format!("{} is not static, and the image need not have its libraries", source.display()))));
    }
    Kit::of("busybox", vec![KitFile { source, path: FILE.to_owned(), is_alone: true }]).await
}

fn find(named: Option<OsString>, search: Option<OsString>) -> Result<PathBuf> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        // What was named is used or complained about, never replaced silently.
        return if path.is_file() {
            Ok(path)
        } else {
            Err(CommandError::new(format!("{VARIABLE} names {}, which is no file", path.display())))
        };
    }
    let search = search.unwrap_or_default();
    let found = std::env::split_paths(&search).map(|folder| folder.join(FILE)).find(|path| path.is_file());
    found.ok_or_else(|| hint(CommandError::new("there is no busybox on this machine, which a toolbox is made of")))
}

fn hint(error: CommandError) -> CommandError {
    error.with_hint(format!("install a static one (Debian: `apt install busybox-static`), or name it with {VARIABLE}"))
}

fn is_static(content: &[u8]) -> bool {
    let Ok(file) = ElfFile64::<Endianness>::parse(content) else { return false };
    let endian = file.endian();
    file.elf_header().e_type(endian) != elf::ET_REL
        && file.elf_program_headers().iter().all(|header| header.p_type(endian) != elf::PT_INTERP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_static_program_will_do() {
        // A test program is linked dynamically.
        assert!(!is_static(&std::fs::read(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_static(b"#!/bin/sh"));
    }

    #[test]
    fn the_named_one_comes_before_that_on_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = Some(folder.path().as_os_str().to_owned());
        assert!(find(None, path.clone()).unwrap_err().hints()[0].contains("busybox-static"));
        std::fs::write(folder.path().join(FILE), "").unwrap();
        assert_eq!(find(None, path.clone()).unwrap(), folder.path().join(FILE));
        assert!(find(Some("/nowhere".into()), path).unwrap_err().to_string().contains(VARIABLE));
    }
}
