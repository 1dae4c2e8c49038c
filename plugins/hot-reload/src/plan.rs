//! Which change asks for what. Pure.

use crate::sources::Sources;
use devloop_core::project::SyncRule;
use devloop_core::watch::{Change, ChangeKind, WatchRoot};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a container's files and binary are made of.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// In the order of the image's layers: the last one that has a file wins.
    mappings: Vec<Mapping>,
    /// Absent when binaries are not to be built.
    pub(crate) sources: Option<Sources>,
}

#[derive(Clone, Debug)]
struct Mapping {
    from: PathBuf,
    to: String,
}

/// What is to be done about some changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// By path in the container: the local file to put there, or `None` to
    /// remove it.
    pub(crate) files: BTreeMap<String, Option<PathBuf>>,
    /// Whether the binary may be another.
    pub(crate) build: bool,
    /// Whether the set of sources may be another.
    pub(crate) reshape: bool,
}

impl Layout {
    pub(crate) fn new(root: &Path, files: &[SyncRule], sources: Option<Sources>) -> Self {
        // Joined by component: "./static" would never be the start of a path.
        let absolute = |path: &Path| -> PathBuf { root.join(path).components().collect() };
        let mappings = files.iter().map(|mapping| Mapping { from: absolute(&mapping.from), to: mapping.to.clone() }).collect();
        Self { mappings, sources }
    }

    /// What to watch.
    pub(crate) fn roots(&self) -> Vec<WatchRoot> {
        let content = self.mappings.iter().map(|mapping| WatchRoot::content(&mapping.from));
        content.chain(self.sources.iter().flat_map(Sources::roots)).collect()
    }

    /// What the changes ask for.
    pub(crate) fn plan(&self, changes: &[Change]) -> Plan {
        let mut plan = Plan::default();
        for change in changes {
            for mapping in &self.mappings {
                if let Some(to) = mapping.destination(&change.path) {
                    let source = (change.kind == ChangeKind::Modified).then(|| change.path.clone());
                    plan.files.insert(to, source);
                }
            }
            if let Some(sources) = &self.sources {
                plan.build |= sources.contains(&change.path);
                plan.reshape |= sources.shapes(&change.path);
            }
        }
        plan
    }
}

impl Mapping {
    /// Where a local path is in the container, if it is there at all.
    fn destination(&self, path: &Path) -> Option<String> {
        let relative = path.strip_prefix(&self.from).ok()?;
        let to = self.to.trim_end_matches('/');
        if relative.as_os_str().is_empty() {
            return Some(to.to_owned());
        }
        Some(format!("{to}/{}", relative.to_str()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout() -> Layout {
        let mapping = |from: &str, to: &str| SyncRule { from: from.into(), to: to.to_owned(), ignore: Vec::new() };
        Layout::new(
            Path::new("/w"),
            &[
                mapping("./static", "/srv/static/"),
                mapping("conf/app.toml", "/etc/app.toml"),
                mapping("static/robots.txt", "/srv/robots.txt"),
            ],
            None,
        )
    }

    fn change(path: &str, kind: ChangeKind) -> Change {
        Change { path: path.into(), kind }
    }

    #[test]
    fn files_go_where_the_image_has_them() {
        let plan = layout().plan(&[
            change("/w/static/css/a.css", ChangeKind::Modified),
            change("/w/static/old.js", ChangeKind::Removed),
            change("/w/conf/app.toml", ChangeKind::Modified),
            change("/w/static/robots.txt", ChangeKind::Modified),
            change("/w/statically/x", ChangeKind::Modified),
            change("/w/README.md", ChangeKind::Modified),
        ]);
        let files: Vec<String> = plan
            .files
            .iter()
            .map(|(to, from)| format!("{to} <- {}", from.as_ref().map_or("nothing".into(), |path| path.display().to_string())))
            .collect();
        insta::assert_snapshot!(files.join("\n"), @r"
        /etc/app.toml <- /w/conf/app.toml
        /srv/robots.txt <- /w/static/robots.txt
        /srv/static/css/a.css <- /w/static/css/a.css
        /srv/static/old.js <- nothing
        /srv/static/robots.txt <- /w/static/robots.txt
        ");
        assert!(!plan.build);
    }

    proptest! {
        #[test]
        fn whatever_changes_nothing_leaves_the_mapped_places(names in proptest::collection::vec("[a-z.]{1,8}", 1..5), removed: bool) {
            let path = format!("/w/{}", names.join("/"));
            let kind = if removed { ChangeKind::Removed } else { ChangeKind::Modified };
            let plan = layout().plan(&[change(&path, kind)]);
            for (to, from) in &plan.files {
                prop_assert!(to.starts_with("/srv/static/") || to == "/etc/app.toml" || to == "/srv/robots.txt");
                prop_assert_eq!(from.is_none(), removed);
            }
            prop_assert_eq!(plan.files.is_empty(), !(path.starts_with("/w/static/") || path == "/w/conf/app.toml" || path == "/w/static"));
        }
    }
}
