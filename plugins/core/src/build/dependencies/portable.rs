//! Whether what was installed on this machine runs on another processor: scripts do,
//! what a package has compiled does where it is compiled for that one, too.

use crate::error::{CommandError, ErrorContext, Result};
use crate::image;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Checks a folder of packages for an architecture, as Go names it.
///
/// # Errors
/// When a package holds compiled parts for others alone.
pub(super) fn check(folder: &Path, wanted: &str) -> Result<()> {
    if wanted == image::local_architecture() {
        return Ok(());
    }
    let mut compiled: BTreeMap<PathBuf, Vec<(PathBuf, String)>> = BTreeMap::new();
    let found = programs(folder).with_context(|| format!("could not read {}", folder.display()))?;
    for path in found {
        let relative = path.strip_prefix(folder).unwrap_or(&path).to_owned();
        let package = relative.components().next().map(|first| PathBuf::from(first.as_os_str())).unwrap_or_default();
        if let Some(architecture) = image::architecture_of_program(&path) {
            compiled.entry(package).or_default().push((relative, architecture));
        }
    }
    // Some bring the same part for several processors.
    let wrong = compiled.into_values().find(|parts| parts.iter().all(|(_, architecture)| architecture != wanted));
    match wrong.and_then(|mut parts| parts.pop()) {
        None => Ok(()),
        Some((path, found)) => Err(CommandError::usage(format!("{} is compiled for {found}, the image is for {wanted}", path.display()))
            .with_hint("packages are installed by this machine's tools, for its own processor; build such an image of a Dockerfile")),
    }
}

/// The files that begin as compiled programs and libraries do.
fn programs(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    use std::io::Read;
    let (mut found, mut next) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = next.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                next.push(path);
            } else if kind.is_file() {
                let mut magic = Vec::new();
                std::fs::File::open(&path)?.take(4).read_to_end(&mut magic)?;
                if magic == *b"\x7fELF" {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program's header, as far as it is looked at (`elf(5)`).
    fn program(machine: u16) -> Vec<u8> {
        let mut header = vec![0; 64];
        header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        header[16] = 3;
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header[20] = 1;
        header[52] = 64;
        header
    }

    #[test]
    fn scripts_run_anywhere_and_compiled_parts_where_they_are_compiled_for() {
        const RISCV: u16 = 243;
        let here: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &[u8]| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("plain/index.js", b"x");
        check(folder.path(), "riscv64").unwrap();
        write("both/build/here.node", &program(here));
        write("both/build/there.node", &program(RISCV));
        check(folder.path(), "riscv64").unwrap();
        write("fast/build/fast.node", &program(here));
        check(folder.path(), image::local_architecture()).unwrap();
        let error = check(folder.path(), "riscv64").unwrap_err().to_string();
        assert!(error.starts_with("fast/build/fast.node is compiled for ") && error.ends_with("the image is for riscv64"), "{error}");
    }
}
