//! Which change asks for what. Pure, but for looks at what a link says and which
//! folders there are.

use crate::sources::Sources;
use devloop_core::patterns::Patterns;
use devloop_core::project::SyncRule;
use devloop_core::watch::{Change, ChangeKind, WatchRoot};
use devloop_core::{CommandError, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What a container's files and binary are made of.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// In the order of the image's layers: the last one that has a file wins.
    mappings: Vec<Mapping>,
    /// Absent when nothing is to be built.
    pub(crate) sources: Option<Sources>,
}

#[derive(Clone, Debug)]
struct Mapping {
    from: PathBuf,
    to: String,
    ignore: Vec<String>,
    ignored: Patterns,
}

/// What a path in the container is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The local file or link.
    pub(crate) local: PathBuf,
    /// What is mapped: the file itself, or a folder that it is below.
    pub(crate) root: PathBuf,
    /// Whether there is such a file, or is no more.
    pub(crate) is_there: bool,
}

impl Item {
    /// What the local file says, if it is a link that can be one in the container,
    /// too: one that stays below what is mapped. Others are followed.
    pub(crate) fn link(&self) -> Option<String> {
        let target = std::fs::read_link(&self.local).ok().filter(|target| target.is_relative())?;
        let mut depth = self.local.parent()?.strip_prefix(&self.root).ok()?.components().count();
        for component in target.components() {
            match component {
                Component::ParentDir => depth = depth.checked_sub(1)?,
                Component::Normal(_) => depth += 1,
                _ => {}
            }
        }
        target.into_os_string().into_string().ok()
    }

    /// How many folders between the file and what is mapped are not there any
    /// more, either. One that a link has taken the place of is not: the folder has to
    /// go before the link can come.
    pub(crate) fn missing_parents(&self) -> u32 {
        let above = self.local.ancestors().skip(1).take_while(|folder| *folder != self.root && folder.starts_with(&self.root));
        let is_folder = |folder: &Path| folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        u32::try_from(above.take_while(|folder| !is_folder(folder)).count()).unwrap_or(u32::MAX)
    }
}

/// What is to be done about some changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// By path in the container.
    pub(crate) files: BTreeMap<String, Item>,
    /// Whether what is built may be another.
    pub(crate) build: bool,
    /// Whether the set of sources may be another.
    pub(crate) reshape: bool,
}

impl Layout {
    /// # Errors
    /// When a pattern can't be read.
    pub(crate) fn new(root: &Path, rules: &[SyncRule], sources: Option<Sources>) -> Result<Self> {
        // Joined by component: "./static" would never be the start of a path.
        let absolute = |path: &Path| -> PathBuf { root.join(path).components().collect() };
        let mapping = |rule: &SyncRule| {
            let from = absolute(&rule.from);
            let ignored = Patterns::new(&from, rule.ignore.iter().map(String::as_str)).map_err(CommandError::usage)?;
            Ok(Mapping { from, to: rule.to.clone(), ignore: rule.ignore.clone(), ignored })
        };
        Ok(Self { mappings: rules.iter().map(mapping).collect::<Result<_>>()?, sources })
    }

    /// What to watch.
    pub(crate) fn roots(&self) -> Vec<WatchRoot> {
        self.content().into_iter().chain(self.sources.iter().flat_map(Sources::roots)).collect()
    }

    /// What is kept the same in the containers.
    pub(crate) fn content(&self) -> Vec<WatchRoot> {
        self.mappings.iter().map(|mapping| WatchRoot::content(&mapping.from).ignoring(mapping.ignore.clone())).collect()
    }

    /// Where local files are in the container.
    pub(crate) fn items(&self, files: impl IntoIterator<Item = PathBuf>) -> BTreeMap<String, Item> {
        let changes: Vec<Change> = files.into_iter().map(|path| Change { path, kind: ChangeKind::Modified }).collect();
        self.plan(&changes).files
    }

    /// What the changes ask for.
    pub(crate) fn plan(&self, changes: &[Change]) -> Plan {
        let mut plan = Plan::default();
        for change in changes {
            for mapping in &self.mappings {
                if let Some(to) = mapping.destination(&change.path) {
                    let is_there = change.kind == ChangeKind::Modified;
                    plan.files.insert(to, Item { local: change.path.clone(), root: mapping.from.clone(), is_there });
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
        if self.ignored.fit(path) {
            return None;
        }
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
        let mapping = |from: &str, to: &str| SyncRule { from: from.into(), to: to.to_owned(), ignore: vec!["*.tmp".to_owned()] };
        Layout::new(
            Path::new("/w"),
            &[
                mapping("./static", "/srv/static/"),
                mapping("conf/app.toml", "/etc/app.toml"),
                mapping("static/robots.txt", "/srv/robots.txt"),
            ],
            None,
        )
        .unwrap()
    }

    fn change(path: &str, kind: ChangeKind) -> Change {
        Change { path: path.into(), kind }
    }

    #[test]
    fn files_go_where_the_image_has_them() {
        let plan = layout().plan(&[
            change("/w/static/css/a.css", ChangeKind::Modified),
            change("/w/static/old.js", ChangeKind::Removed),
            change("/w/static/css/b.tmp", ChangeKind::Modified),
            change("/w/conf/app.toml", ChangeKind::Modified),
            change("/w/static/robots.txt", ChangeKind::Modified),
            change("/w/statically/x", ChangeKind::Modified),
            change("/w/README.md", ChangeKind::Modified),
        ]);
        let files: Vec<String> = plan
            .files
            .iter()
            .map(|(to, from)| format!("{to} <- {}", if from.is_there { from.local.display().to_string() } else { "nothing".to_owned() }))
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

    #[test]
    fn links_that_stay_inside_are_links_there_too() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("app");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        let link = |name: &str, target: &str| {
            let local = root.join("sub").join(name);
            std::os::unix::fs::symlink(target, &local).unwrap();
            Item { local, root: root.clone(), is_there: true }.link()
        };
        assert_eq!(link("a", "../top.txt").as_deref(), Some("../top.txt"));
        assert_eq!(link("b", "beside/deep").as_deref(), Some("beside/deep"));
        assert_eq!(link("c", "../../out.txt"), None);
        assert_eq!(link("d", "/etc/passwd"), None);
        let gone = Item { local: root.join("x/y/z.txt"), root: root.clone(), is_there: false };
        assert_eq!(gone.missing_parents(), 2);
        let replaced = Item { local: root.join("sub/b/z.txt"), root: root.clone(), is_there: false };
        std::fs::create_dir_all(root.join("sub/beside/deep")).unwrap();
        assert!(root.join("sub/b").is_dir(), "by the link");
        assert_eq!(replaced.missing_parents(), 1);
        assert_eq!(Item { local: root.join("sub/z.txt"), root, is_there: false }.missing_parents(), 0);
    }

    proptest! {
        #[test]
        fn whatever_changes_nothing_leaves_the_mapped_places(names in proptest::collection::vec("[a-z.]{1,8}", 1..5), removed: bool) {
            let path = format!("/w/{}", names.join("/"));
            let kind = if removed { ChangeKind::Removed } else { ChangeKind::Modified };
            let plan = layout().plan(&[change(&path, kind)]);
            for (to, from) in &plan.files {
                prop_assert!(to.starts_with("/srv/static/") || to == "/etc/app.toml" || to == "/srv/robots.txt");
                prop_assert_eq!(from.is_there, !removed);
            }
            prop_assert_eq!(plan.files.is_empty(), !((path.starts_with("/w/static/") || path == "/w/conf/app.toml" || path == "/w/static")
                && !names.iter().any(|name| name.ends_with(".tmp"))));
        }
    }
}
