//! Which files a kustomization is made of.

use crate::deploy::{kustomization_file, kustomization_folder};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folder of a kustomization, and all files and folders that it, or one that
/// it builds upon, names. Any text in it that is a path counts as one.
pub(super) fn inputs(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut next = vec![plain(folder)];
    while let Some(folder) = next.pop() {
        if !found.insert(folder.clone()) {
            continue;
        }
        let Some(text) = kustomization_file(&folder).and_then(|file| std::fs::read_to_string(file).ok()) else { continue };
        // What is wrong with it, Kustomize will say.
        let Ok(value) = serde_yaml_ng::from_str::<serde_yaml_ng::Value>(&text) else { continue };
        for word in words(&value) {
            // `name=file`, as generators have it.
            let candidates = [word.as_str(), word.split_once('=').map_or("", |(_, file)| file)];
            for path in candidates.iter().filter(|path| !path.is_empty()).map(|path| plain(&folder.join(path))) {
                match kustomization_folder(&path) {
                    Some(base) if path.is_dir() => next.push(base),
                    _ if path.is_file() => drop(found.insert(path)),
                    _ => {}
                }
            }
        }
    }
    found
}

fn plain(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn words(value: &serde_yaml_ng::Value) -> Vec<String> {
    match value {
        serde_yaml_ng::Value::String(text) => vec![text.clone()],
        serde_yaml_ng::Value::Sequence(items) => items.iter().flat_map(words).collect(),
        serde_yaml_ng::Value::Mapping(fields) => fields.values().flat_map(words).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_and_generators_count() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for (path, text) in [
            (
                "over/kustomization.yaml",
                "resources: [../base, own.yaml, 'https://example.com/x']\nconfigMapGenerator: [{name: a, files: [key=../conf/a.txt]}]\n",
            ),
            ("over/own.yaml", ""),
            ("base/kustomization.yml", "resources: [a.yaml, ../over]\n"),
            ("base/a.yaml", ""),
            ("conf/a.txt", ""),
        ] {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), text).unwrap();
        }
        let found: Vec<PathBuf> = inputs(&root.join("over")).iter().map(|path| path.strip_prefix(&root).unwrap().to_owned()).collect();
        assert_eq!(found, ["base", "base/a.yaml", "conf/a.txt", "over", "over/own.yaml"].map(PathBuf::from));
    }
}
