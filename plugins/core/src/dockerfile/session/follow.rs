//! Paths that a build copies, with what links on the way lead to: BuildKit asks for
//! these alone, and a link without its target would be of no use to it.

use super::super::ignore::clean;
use std::collections::BTreeSet;
use std::path::Path;

/// The patterns of what is wanted, relative to the context; `None` when that is
/// everything.
pub(super) fn follow(root: &Path, paths: &[String]) -> Option<Vec<String>> {
    let mut found = BTreeSet::new();
    paths.iter().for_each(|path| add(root, path, &mut found));
    if found.contains(".") { None } else { Some(found.into_iter().collect()) }
}

fn add(root: &Path, path: &str, found: &mut BTreeSet<String>) {
    let path = inside(path);
    let mut current = String::new();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        if !current.is_empty() {
            current.push('/');
        }
        current.push_str(part);
        let targets = targets(root, &current, part);
        let is_last = parts.peek().is_none();
        if (is_last || targets.is_some()) && !found.insert(current.clone()) {
            // It was looked at before: links may go round in circles.
            return;
        }
        if let Some(targets) = targets {
            let rest: Vec<&str> = parts.collect();
            for target in targets {
                add(root, &format!("{target}/{}", rest.join("/")), found);
            }
            return;
        }
    }
}

/// As seen from the root, above which nothing leads.
fn inside(path: &str) -> String {
    let path = clean(&format!("/{path}"));
    if path == "/" { ".".to_owned() } else { path.trim_start_matches('/').to_owned() }
}

/// Where the links lead that a path, maybe with wildcards in its last part, names.
fn targets(root: &Path, path: &str, name: &str) -> Option<Vec<String>> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    if !has_wildcards(name) {
        return target(root, folder, name).map(|target| vec![target]);
    }
    let pattern = super::super::ignore::Matcher::new([name]).ok()?;
    let names = std::fs::read_dir(root.join(folder)).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let targets: Vec<String> = names.filter(|name| pattern.fits(name)).filter_map(|name| target(root, folder, &name)).collect();
    // A pattern may fit what is no link, too: it stays one of those wanted.
    (!targets.is_empty()).then_some(targets)
}

fn target(root: &Path, folder: &str, name: &str) -> Option<String> {
    let link = std::fs::read_link(root.join(folder).join(name)).ok()?;
    let link = link.to_str()?;
    Some(if link.starts_with('/') { inside(link) } else { inside(&format!("{folder}/{link}")) })
}

fn has_wildcards(name: &str) -> bool {
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_bring_what_they_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("real/deep")).unwrap();
        for (target, link) in [("real", "link"), ("/real/deep", "absolute"), ("circle-b", "circle-a"), ("circle-a", "circle-b")] {
            symlink(target, root.join(link)).unwrap();
        }
        symlink("../../outside", root.join("real/out")).unwrap();
        let followed = |paths: &[&str]| follow(root, &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
        let of = |paths: &[&str]| followed(paths).unwrap();
        assert_eq!(of(&["plain/x", "/rooted"]), ["plain/x", "rooted"]);
        assert_eq!(of(&["link/x"]), ["link", "real/x"]);
        assert_eq!(of(&["absolute"]), ["absolute", "real/deep"]);
        assert_eq!(of(&["circle-a"]), ["circle-a", "circle-b"]);
        assert_eq!(of(&["real/out"]), ["outside", "real/out"]);
        assert_eq!(of(&["li*"]), ["li*", "real"]);
        assert_eq!(of(&["real/*.txt"]), ["real/*.txt"]);
        assert_eq!(followed(&["a", "/"]), None);
        assert_eq!(followed(&["a", "../.."]), None);
    }
}
