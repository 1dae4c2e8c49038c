//! Where the scripts of a program that is interpreted are on this machine: the folder
//! here and that in the container below which most of them have the same paths. Pure.

use super::{Rule, Sources};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The endings of their names.
pub(crate) const ENDINGS: [&str; 6] = ["py", "js", "mjs", "cjs", "ts", "mts"];

/// Finds out which folder is which. `local` are paths below `folder`; `modified` is a
/// file's time of change in seconds since 1970, where it is there; `started` when the
/// process was.
pub(crate) fn find(remote: &[String], local: &[String], folder: &Path, started: u64, modified: impl Fn(&Path) -> Option<u64>) -> Sources {
    let mut sources = Sources { all: remote.len(), own_all: remote.len(), ..Sources::default() };
    let Some((here, there)) = roots(remote, local) else { return sources };
    let here = if here.is_empty() { folder.to_owned() } else { folder.join(here) };
    for file in remote {
        let place = file.strip_prefix(&there).map(|rest| here.join(rest.trim_start_matches('/')));
        let time = place.as_deref().and_then(&modified);
        match (place, time) {
            (Some(place), Some(time)) => {
                sources.own_found += 1;
                if time > started {
                    sources.changed.push(place.display().to_string());
                }
            }
            _ => sources.missing.push(file.clone()),
        }
    }
    sources.found = sources.own_found;
    let there = if there.is_empty() { "/".to_owned() } else { there };
    if Path::new(&there) != here {
        sources.rules.push(Rule { local: here.display().to_string(), remote: there });
    }
    sources.module = Some(here);
    sources
}

/// The folder below `local`'s own, and the one in the container. Of equals the one that
/// is less deep.
fn roots(remote: &[String], local: &[String]) -> Option<(String, String)> {
    let mut by_name: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for file in local {
        by_name.entry(name(file)).or_default().push(parts(file));
    }
    let mut votes: BTreeMap<(String, String), usize> = BTreeMap::new();
    for file in remote {
        let there = parts(file);
        let same = |here: &Vec<&str>| here.iter().rev().zip(there.iter().rev()).take_while(|(one, other)| one == other).count();
        let candidates = by_name.get(name(file)).map(Vec::as_slice).unwrap_or_default();
        let longest = candidates.iter().map(same).max().unwrap_or(0);
        for here in candidates.iter().filter(|here| same(here) == longest) {
            let there = there[..there.len() - longest].iter().map(|part| format!("/{part}")).collect();
            *votes.entry((here[..here.len() - longest].join("/"), there)).or_default() += 1;
        }
    }
    let best = votes.into_iter().max_by_key(|((here, there), count)| (*count, std::cmp::Reverse((here.len(), there.len()))));
    best.map(|(roots, _)| roots)
}

fn name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn parts(file: &str) -> Vec<&str> {
    Path::new(file).iter().filter_map(|part| part.to_str()).filter(|part| *part != "/").collect()
}

/// The scripts below a folder, by their paths in it.
pub(crate) fn gather(folder: PathBuf) -> Vec<String> {
    super::local::files(&folder, &ENDINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(remote: &[&str], local: &[&str]) -> String {
        let owned = |files: &[&str]| files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>();
        let local = owned(local);
        let sources = find(&owned(remote), &local, Path::new("/home/dev"), 100, |path| {
            let path = path.strip_prefix("/home/dev").ok()?.to_str()?;
            local.iter().any(|file| file == path).then_some(if path.ends_with("greeting.py") { 200 } else { 50 })
        });
        let rules = sources.rules.iter().map(|rule| format!("{} = {}", rule.local, rule.remote));
        rules.chain([sources.summary()]).chain(sources.warnings()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn folders_are_found_by_what_is_the_same_in_them() {
        let remote = ["/app/src/app.py", "/app/src/greeting.py", "/app/src/gone.py"];
        let texts = [
            found(&remote, &["src/app.py", "src/greeting.py", "tests/app.py"]),
            found(&remote, &["shop/app.py", "web/src/app.py", "web/src/greeting.py"]),
            found(&["/srv/server.js"], &["server.js", "old/server.js"]),
            found(&["/home/dev/a.py"], &["a.py"]),
            found(&remote, &["main.go"]),
        ];
        insta::assert_snapshot!(texts.join("\n\n"));
    }
}
