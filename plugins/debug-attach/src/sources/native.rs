//! Where the files of a Rust, C or C++ program are on this machine. `gather` and
//! `files` read what there is; `find` is pure.
//!
//! Compilers write the paths of the machine that they ran on; those of a Rust library
//! begin with `/rustc/` and the commit of the compiler, those of crates with the folder
//! of cargo's registry there.

use super::{Rule, Sources, is_below, local_path};
use gimli::{AttributeValue, DwarfSections, EndianSlice, RunTimeEndian, SectionId};
use object::{Object, ObjectSection};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Of a project so many files are enough to tell where it was.
const MOST_FILES: usize = 20_000;
/// What ends the names of sources.
const ENDINGS: [&str; 12] = ["rs", "c", "cc", "cpp", "cxx", "h", "hh", "hpp", "hxx", "inc", "inl", "ipp"];
/// Folders of a project that have no sources of its own.
const OTHERS: [&str; 2] = ["target", "node_modules"];
/// In the path of cargo's crates.
const REGISTRY: &str = "/registry/src/";

/// What there is on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Local {
    /// Folders of the project, each with its files, relative to it; the first that has
    /// any of the program counts.
    pub(crate) projects: Vec<(PathBuf, Vec<String>)>,
    /// The folder of cargo with `registry` in it.
    pub(crate) cargo: Option<PathBuf>,
    /// The registry's folders in it, such as `index.crates.io-0123456789abcdef`.
    pub(crate) registries: Vec<String>,
    /// The sources of Rust's library.
    pub(crate) rust: Option<PathBuf>,
}

/// Looks through a folder, then through the repository that it is in.
pub(crate) fn gather(folder: &Path, rust: Option<PathBuf>) -> Local {
    let repository = folder.ancestors().find(|folder| folder.join(".git").exists()).filter(|root| *root != folder);
    let projects = [Some(folder), repository].into_iter().flatten().map(|folder| (folder.to_owned(), sources(folder))).collect();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home).filter(|cargo| cargo.is_dir());
    let entries = cargo.iter().filter_map(|cargo| std::fs::read_dir(cargo.join("registry/src")).ok()).flatten().flatten();
    let registries = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    Local { projects, cargo, registries, rust }
}

fn sources(root: &Path) -> Vec<String> {
    let (mut files, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !name.starts_with('.') && !OTHERS.contains(&name.as_ref()) {
                    left.push(path);
                }
            } else if path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
                && let Some(relative) = path.strip_prefix(root).ok().and_then(Path::to_str)
            {
                files.push(relative.to_owned());
            }
        }
        if files.len() > MOST_FILES {
            break;
        }
    }
    files
}

/// The paths of the files that a program is compiled from (DWARF 5, section 6.2.4);
/// none where they can't be read.
pub(crate) fn files(program: &Path) -> Vec<String> {
    let read = std::fs::read(program).ok().and_then(|content| files_of(&content));
    read.unwrap_or_default()
}

fn files_of(content: &[u8]) -> Option<Vec<String>> {
    let elf = object::File::parse(content).ok()?;
    let endian = if elf.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let load = |id: SectionId| -> Result<Cow<'_, [u8]>, gimli::Error> {
        let section = elf.section_by_name(id.name()).and_then(|section| section.uncompressed_data().ok());
        Ok(section.unwrap_or_default())
    };
    let sections = DwarfSections::load(load).ok()?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, endian));
    let mut files = BTreeSet::new();
    let mut units = dwarf.units();
    // Of damaged information, what comes before the damage.
    while let Ok(Some(header)) = units.next() {
        let Ok(unit) = dwarf.unit(header) else { continue };
        let text = |value: AttributeValue<_>| Some(dwarf.attr_string(&unit, value).ok()?.to_string_lossy().into_owned());
        let folder = unit.comp_dir.map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(program) = &unit.line_program else { continue };
        for file in program.header().file_names() {
            let below = file.directory(program.header()).and_then(text).unwrap_or_default();
            let Some(name) = text(file.path_name()) else { continue };
            let path = Path::new(&folder).join(below).join(name);
            files.insert(plain(&path));
        }
    }
    Some(files.into_iter().collect())
}

/// Without steps that lead nowhere.
fn plain(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain.display().to_string()
}

/// Finds out which folder is which; see [`super::find`].
pub(crate) fn find(files: &[String], local: &Local, started: u64, modified: impl Fn(&Path) -> Option<u64>) -> Sources {
    let files: Vec<&str> = files.iter().map(String::as_str).filter(|file| file.starts_with('/') && !file.ends_with('>')).collect();
    let own = local.projects.iter().find_map(|(folder, names)| Some((folder, own_folders(&files, folder, names)?)));
    let mut rules = Vec::new();
    let mut add = |local: String, remote: String| {
        if local != remote && !remote.is_empty() {
            rules.push(Rule { local, remote });
        }
    };
    if let Some((_, (remote, here))) = &own {
        add(here.clone(), remote.clone());
    }
    if let (Some(rust), Some(root)) = (&local.rust, files.iter().find_map(|file| rust_root(file))) {
        add(rust.display().to_string(), root);
    }
    let registries: BTreeSet<&str> = files.iter().filter_map(|file| registry(file)).collect();
    if let Some(cargo) = &local.cargo {
        for root in registries {
            let name = root.rsplit('/').next().unwrap_or_default();
            // The index has its name on all machines; what follows may differ.
            let kind = |name: &str| name.rsplit_once('-').map(|(kind, _)| kind.to_owned());
            let same = local.registries.iter().find(|found| found.as_str() == name);
            if let Some(found) = same.or_else(|| local.registries.iter().find(|found| kind(found) == kind(name))) {
                add(cargo.join("registry/src").join(found).display().to_string(), root.to_owned());
            }
        }
    }
    let mut sources = Sources { all: files.len(), module: own.as_ref().map(|(folder, _)| (*folder).clone()), ..Sources::default() };
    let own_root = own.map(|(folder, (remote, _))| if remote.is_empty() { folder.display().to_string() } else { remote });
    for file in files {
        let place = local_path(&rules, file);
        let time = modified(&place);
        sources.found += usize::from(time.is_some());
        if is_library(file) || !own_root.as_ref().is_some_and(|root| is_below(file, root)) {
            continue;
        }
        sources.own_all += 1;
        match time {
            None => sources.missing.push(file.to_owned()),
            Some(time) => {
                sources.own_found += 1;
                if time > started {
                    sources.changed.push(place.display().to_string());
                }
            }
        }
    }
    sources.rules = rules;
    sources
}

/// A folder of the program and the same one here: what most of its files have before
/// the part that they have in common with a file of the project.
fn own_folders(files: &[&str], project: &Path, names: &[String]) -> Option<(String, String)> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        by_name.entry(name.rsplit('/').next().unwrap_or(name)).or_default().push(name);
    }
    let mut votes: BTreeMap<(String, String), usize> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_library(file)) {
        let same = by_name.get(file.rsplit('/').next().unwrap_or(file));
        let here = same.into_iter().flatten().map(|name| project.join(name).display().to_string());
        let common: Vec<(usize, String)> = here.map(|path| (common_end(file, &path), path)).collect();
        let most = common.iter().map(|(length, _)| *length).max().unwrap_or(0);
        for (length, path) in common.into_iter().filter(|(length, _)| *length == most) {
            let pair = (file[..file.len() - length].to_owned(), path[..path.len() - length].to_owned());
            *votes.entry(pair).or_default() += 1;
        }
    }
    votes.into_iter().max_by_key(|((remote, _), count)| (*count, remote.len())).map(|(pair, _)| pair)
}

/// The length of the end that two paths have in common, in whole names.
fn common_end(one: &str, other: &str) -> usize {
    let names = one.rsplit('/').zip(other.rsplit('/')).take_while(|(one, other)| one == other);
    let length: usize = names.map(|(name, _)| name.len() + 1).sum();
    length.min(one.len()).min(other.len())
}

/// `/rustc/HASH` of `/rustc/HASH/library/...`.
fn rust_root(file: &str) -> Option<String> {
    let hash = file.strip_prefix("/rustc/")?.split_once("/library/")?.0;
    Some(format!("/rustc/{hash}"))
}

/// A registry's folder: `/home/x/.cargo/registry/src/index.crates.io-HASH`.
fn registry(file: &str) -> Option<&str> {
    let start = file.find(REGISTRY)? + REGISTRY.len();
    Some(&file[..start + file[start..].find('/')?])
}

fn is_library(file: &str) -> bool {
    file.starts_with("/rustc/")
        || file.starts_with("/usr/")
        || file.contains(REGISTRY)
        || file.contains("/git/checkouts/")
        || file.starts_with("/rust/deps/")
}

#[cfg(test)]
mod tests {
    use super::super::tests::shown;
    use super::*;

    fn here() -> Local {
        let names = ["services/shop/src/main.rs", "services/shop/src/store.rs", "services/other/src/main.rs"];
        Local {
            projects: vec![("/home/dev/repo".into(), names.map(str::to_owned).into())],
            cargo: Some("/home/dev/.cargo".into()),
            registries: vec!["index.crates.io-1111".to_owned()],
            rust: Some("/home/dev/.rustup/rust".into()),
        }
    }

    fn found(files: &[&str]) -> Sources {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        find(&files, &here(), 100, |path| path.starts_with("/home/dev").then_some(if path.ends_with("store.rs") { 200 } else { 50 }))
    }

    #[test]
    fn what_was_built_elsewhere_is_found_by_the_ends_of_its_paths() {
        insta::assert_snapshot!(shown(&found(&[
            "/build/shop/src/main.rs",
            "/build/shop/src/store.rs",
            "/build/shop/target/debug/build/x/out/made.rs",
            "/root/.cargo/registry/src/index.crates.io-2222/serde-1.0.0/src/lib.rs",
            "/rustc/0123abc/library/std/src/lib.rs",
            "/usr/include/stdio.h",
        ])));
    }

    #[test]
    fn what_was_built_here_needs_no_rules() {
        let sources = found(&["/home/dev/repo/services/shop/src/main.rs", "/home/dev/repo/services/shop/src/store.rs"]);
        assert_eq!((sources.rules.len(), sources.found, sources.own_found, sources.own_all), (0, 2, 2, 2), "{sources:?}");
    }

    #[test]
    fn sources_that_are_not_here_are_said() {
        let sources = found(&["/build/x/main.cpp", "/usr/include/stdio.h"]);
        assert_eq!((sources.module.as_ref(), sources.rules.len(), sources.all), (None, 0, 2));
    }

    #[test]
    fn ends_are_compared_by_whole_names() {
        assert_eq!(common_end("/build/shop/src/main.rs", "/home/workshop/src/main.rs"), "/src/main.rs".len());
        assert_eq!(common_end("/a/b.c", "/a/b.c"), "/a/b.c".len());
        assert_eq!(common_end("/a/b.c", "/a/c.c"), 0);
        assert_eq!(plain(Path::new("/a/./b/../c")), "/a/c");
    }

    #[test]
    fn this_test_is_made_of_this_file() {
        let own = files(&std::env::current_exe().unwrap());
        assert!(own.iter().any(|file| file.ends_with("/src/sources/native.rs")), "{} files", own.len());
        assert!(files(Path::new("/proc/self/status")).is_empty());
    }
}
