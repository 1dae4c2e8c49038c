//! Programs of this machine: LLDB's, and gdbserver, which goes to where the process is
//! with its dynamic linker and libraries, so that it needs nothing there.

use crate::kit::{Kit, KitFile};
use devloop_core::{CommandError, ErrorContext, Result};
use object::read::elf::{ElfFile64, FileHeader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Names a gdbserver to use.
const VARIABLE: &str = "DEVLOOP_GDBSERVER";
/// Its path among the debuggers there.
pub(super) const FILE: &str = "gdbserver/gdbserver";
/// The names that programs of LLDB have in distributions, such as `lldb-dap-19`. Older
/// ones than the first have no such adapter.
const VERSIONS: std::ops::RangeInclusive<u32> = 18..=30;

/// gdbserver as it is brought along.
///
/// # Errors
/// When it is not installed, or its libraries can't be found.
pub(in crate::runtimes) async fn kit() -> Result<Kit> {
    let program = installed(VARIABLE, "gdbserver")?;
    let file = |source: PathBuf, name: &str| KitFile { source, path: format!("gdbserver/{name}"), is_alone: false };
    let mut files = vec![KitFile { source: program.clone(), path: FILE.to_owned(), is_alone: false }];
    if let Some(linker) = interpreter(&program)? {
        for library in libraries(&linker, &program).await? {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push(file(library, &name));
        }
        files.push(file(linker, "ld.so"));
    }
    Kit::of("gdbserver", files).await
}

/// A program of this machine: the one that a variable names, else by its name, with a
/// version where there is none without, the latest first.
///
/// # Errors
/// When there is none.
pub(super) fn installed(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(variable).filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(CommandError::new(format!("{variable} names {}, which is no file", path.display())))
        };
    }
    let folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let names = std::iter::once(name.to_owned()).chain(VERSIONS.rev().map(|version| format!("{name}-{version}")));
    let found = names.flat_map(|name| folders.iter().map(move |folder| folder.join(&name))).find(|path| path.is_file());
    found.ok_or_else(|| {
        CommandError::new(format!("{name} is not installed, which Rust, C and C++ are debugged with"))
            .with_hint(format!("install it (Debian: `apt-get install lldb-19 gdbserver`), or name one with {variable}"))
    })
}

/// The dynamic linker that a program asks for.
fn interpreter(program: &Path) -> Result<Option<PathBuf>> {
    let content = std::fs::read(program).with_context(|| format!("could not read {}", program.display()))?;
    let refused =
        |error: object::Error| CommandError::new(format!("{} is no program for this machine", program.display())).caused_by(error);
    let elf = ElfFile64::<object::Endianness>::parse(content.as_slice()).map_err(refused)?;
    let endian = elf.endian();
    let header = elf.elf_header();
    let segments = header.program_headers(endian, content.as_slice()).map_err(refused)?;
    for segment in segments {
        use object::read::elf::ProgramHeader;
        if let Some(path) = segment.interpreter(endian, content.as_slice()).map_err(refused)? {
            return Ok(Some(PathBuf::from(String::from_utf8_lossy(path).into_owned())));
        }
    }
    Ok(None)
}

/// What the dynamic linker would load for a program (`ld.so --list`, ld.so(8)).
async fn libraries(linker: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new(linker).arg("--list").arg(program).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("could not run {}", linker.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || said.contains("not found") {
        return Err(CommandError::new(format!("the libraries of {} can't be found", program.display()))
            .caused_by(format!("{said}{}", String::from_utf8_lossy(&output.stderr)).trim().to_owned()));
    }
    Ok(listed(&said))
}

/// `NAME => PATH (ADDRESS)`; lines without a path are the kernel's own, or the linker.
fn listed(said: &str) -> Vec<PathBuf> {
    let path = |line: &str| Some(PathBuf::from(line.split_once(" => ")?.1.rsplit_once(" (")?.0.trim()));
    said.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f1a)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2a)\n";
        assert_eq!(listed(said), [PathBuf::from("/lib/x86_64-linux-gnu/libm.so.6")]);
    }

    #[tokio::test]
    async fn this_test_has_a_linker_and_libraries() {
        let own = std::env::current_exe().unwrap();
        let linker = interpreter(&own).unwrap().unwrap();
        let libraries = libraries(&linker, &own).await.unwrap();
        assert!(libraries.iter().all(|path| path.is_file()) && !libraries.is_empty(), "{libraries:?}");
    }
}
