//! A program with the debug information that the one in the container lacks: the
//! same build, known by its build id (`NT_GNU_BUILD_ID`, ld(1)).

use crate::place::Place;
use devloop_core::symbols::gnu_build_id;
use devloop_core::{CommandError, ErrorContext, Result};
use object::Object;
use object::read::elf::ElfFile64;
use std::path::{Path, PathBuf};

/// A file that was found to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbols {
    pub(crate) path: PathBuf,
    pub(crate) content: Vec<u8>,
}

/// Reads the file that the user named. `wanted` is the build id of the program that
/// runs, in hexadecimal digits.
///
/// # Errors
/// When it is no program, has no debug information, or is of another build.
pub(crate) async fn read(path: &Path, wanted: Option<&str>) -> Result<Symbols> {
    let content = tokio::fs::read(path).await.with_context(|| format!("could not read {}", path.display()))?;
    fits(&content, wanted).map_err(|why| {
        CommandError::new(format!("{} can't be used as symbols", path.display()))
            .caused_by(why)
            .with_hint("name the very file that the container's program was made of, before it was stripped")
    })?;
    Ok(Symbols { path: path.to_owned(), content })
}

/// Brings it to where the process is; answers its path there.
///
/// # Errors
/// When it can't be written.
pub(crate) async fn bring(place: &Place, symbols: &Symbols) -> Result<String> {
    let path = place.symbols(&blake3::hash(&symbols.content).to_hex()[..16]);
    place.runner.write_file(&path, &symbols.content).await.map_err(|error| {
        CommandError::new(format!("could not bring {} to the debugger", symbols.path.display())).caused_by(CommandError::from(error))
    })?;
    Ok(path)
}

fn fits(content: &[u8], wanted: Option<&str>) -> Result<(), String> {
    let elf = ElfFile64::<object::Endianness>::parse(content).map_err(|error| format!("it is no 64-bit ELF program ({error})"))?;
    if elf.section_by_name(".debug_info").is_none() && elf.section_by_name(".zdebug_info").is_none() {
        return Err("it has no debug information, either".to_owned());
    }
    let own = gnu_build_id(&elf);
    match (wanted, own) {
        (Some(wanted), Some(own)) if wanted == own => Ok(()),
        (Some(wanted), Some(own)) => Err(format!("its build id is {own}, that of the program that runs {wanted}")),
        (None, _) => Err("the program that runs has no build id, so nothing tells whether it is the same build".to_owned()),
        (_, None) => Err("it has no build id".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_build_fits() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = ElfFile64::<object::Endianness>::parse(own.as_slice()).unwrap();
        let id = gnu_build_id(&elf);
        if let Some(id) = &id {
            assert_eq!(fits(&own, Some(id)), Ok(()));
            assert!(fits(&own, Some("00")).unwrap_err().contains("its build id is"));
        }
        assert!(fits(&own, None).unwrap_err().contains("no build id"));
        assert!(fits(b"#!/bin/sh", Some("00")).unwrap_err().contains("ELF"));
    }
}
