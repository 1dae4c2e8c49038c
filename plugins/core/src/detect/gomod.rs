//! Go modules and their main packages, by their files: go itself need not be
//! there.

use super::local::{GoMain, Local};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How many folders with Go files are looked into.
const MOST_PACKAGES: usize = 1000;

/// The main packages below the root. `read` gives the text of a file.
pub(super) fn find(local: &Local, read: impl Fn(&Path) -> Option<String>) -> Vec<GoMain> {
    let modules: Vec<(PathBuf, String)> = local
        .texts
        .iter()
        .filter(|(path, _)| path.ends_with("go.mod"))
        .filter_map(|(path, text)| Some((path.parent()?.to_owned(), module_path(text)?)))
        .collect();
    if modules.is_empty() {
        return Vec::new();
    }
    let is_source = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".go") && !name.ends_with("_test.go") && !name.starts_with(['_', '.'])
    };
    let mut seen: BTreeSet<&Path> = BTreeSet::new();
    let mut mains = Vec::new();
    for file in local.files.iter().filter(is_source) {
        let folder = file.parent().unwrap_or(Path::new(""));
        // The go command leaves these folders out of `./...`, too.
        let hidden = |name: &str| name == "testdata" || name == "vendor" || name.starts_with(['_', '.']);
        if seen.contains(folder) || folder.iter().filter_map(|name| name.to_str()).any(hidden) || seen.len() == MOST_PACKAGES {
            continue;
        }
        let Some(package) = read(file).as_deref().and_then(package_name) else { continue };
        seen.insert(folder);
        let module = modules.iter().filter(|(own, _)| folder.starts_with(own)).max_by_key(|(own, _)| own.components().count());
        if let Some((own, module)) = module.filter(|_| package == "main") {
            let package = folder.strip_prefix(own).unwrap_or(folder).to_owned();
            mains.push(GoMain { module: module.clone(), folder: own.clone(), package });
        }
    }
    mains
}

/// The path in the `module` line of a go.mod.
fn module_path(text: &str) -> Option<String> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(line));
    let path = lines.filter_map(|line| line.trim().strip_prefix("module")).find(|rest| rest.starts_with(char::is_whitespace))?;
    Some(path.trim().trim_matches('"').to_owned()).filter(|path| !path.is_empty())
}

/// The name in a file's package clause; `None` for a file that is not built.
fn package_name(text: &str) -> Option<String> {
    let mut rest = text.trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            let line = comment.lines().next().unwrap_or_default();
            if line.strip_prefix("go:build").is_some_and(|constraint| constraint.trim() == "ignore") {
                return None;
            }
            rest = &comment[line.len()..];
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1;
        } else {
            let name = rest.strip_prefix("package")?.trim_start();
            let end = name.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(name.len());
            return Some(name[..end].to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_packages_belong_to_the_nearest_module() {
        let local = Local::of(&[
            ("go.mod", "// shop\nmodule example.com/shop // x\n\ngo 1.25\n"),
            ("main.go", "// Copyright\n\n/* package x */\npackage main // y\n"),
            ("gen.go", "package main"),
            ("cmd/web/ignored.go", "//go:build ignore\n\npackage x"),
            ("cmd/web/main.go", "\u{feff}package main;"),
            ("internal/store.go", "package store"),
            ("tools/go.mod", "module \"example.com/tools\""),
            ("tools/lint/main.go", "package main\n"),
            ("testdata/x/main.go", "package main\n"),
            ("cmd/broken/main.go", "/* no end"),
        ]);
        let mains = find(&local, |path| local.texts.get(path).cloned());
        let shown: Vec<String> =
            mains.iter().map(|main| format!("{} {} {}", main.name(), main.folder.display(), main.argument())).collect();
        assert_eq!(shown, ["web  ./cmd/web", "shop  .", "lint tools ./lint"]);
    }
}
