//! Tests of `root`: a temporary directory plays the container's root.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const OWNER: Owner = Owner { uid: 1000, gid: 1001 };

struct Container {
    directory: TempDir,
    root: ContainerRoot,
}

impl Container {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = ContainerRoot::at(directory.path()).unwrap();
        Self { directory, root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    fn place(&self, path: &str, parents: Parents) -> Result<Place, Failure> {
        self.root.place(&parse(path).unwrap(), parents)
    }

    /// Where on this machine a write to `path` would go.
    fn target(&self, path: &str) -> PathBuf {
        let place = self.place(path, Parents::Create(OWNER, &Recorder::none())).unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place.parent));
        let parent = fs::read_link(link).unwrap();
        parent.strip_prefix(self.directory.path()).unwrap().join(place.name)
    }
}

fn parse(path: &str) -> Result<ContainerPath, Failure> {
    ContainerPath::parse(&ByteString::from(path))
}

#[test]
fn paths_that_are_refused() {
    for path in ["", ".", "app", "/", "//", "/./", "/..", "/a/../b", "../../etc", "/a/..", "/a\0b"] {
        assert_eq!(parse(path).unwrap_err().kind, ErrorKind::InvalidPath, "{path:?}");
    }
}

#[test]
fn paths_are_normalised() {
    assert_eq!(parse("//a/./b//c/").unwrap().bytes(), b"/a/b/c");
    assert_eq!(parse("/a/..b").unwrap().bytes(), b"/a/..b");
}

#[test]
fn an_absolute_link_leads_to_a_place_inside() {
    let container = Container::new();
    symlink("/etc", container.path("config")).unwrap();
    symlink("/etc/passwd", container.path("file")).unwrap();
    // The directory that the link means is missing in the container, so it is
    // made there; the real /etc stays out of it.
    assert_eq!(container.target("/file"), Path::new("etc/passwd"));
    assert_eq!(container.target("/config/shadow"), Path::new("etc/shadow"));
    assert!(container.path("etc").is_dir());
}

#[test]
fn a_relative_link_can_not_climb_out() {
    let container = Container::new();
    fs::create_dir_all(container.path("a/b")).unwrap();
    symlink("../../../../../../etc/passwd", container.path("a/b/link")).unwrap();
    fs::create_dir(container.path("etc")).unwrap();
    assert_eq!(container.target("/a/b/link"), Path::new("etc/passwd"));
}

#[test]
fn links_are_followed_to_their_end() {
    let container = Container::new();
    fs::create_dir_all(container.path("opt/app/v1")).unwrap();
    symlink("app/v1", container.path("opt/current")).unwrap();
    symlink("/opt/current/server", container.path("server")).unwrap();
    symlink("../../../server", container.path("opt/app/v1/again")).unwrap();
    assert_eq!(container.target("/server"), Path::new("opt/app/v1/server"));
    assert_eq!(container.target("/opt/app/v1/again"), Path::new("opt/app/v1/server"));
}

#[test]
fn circles_and_links_to_directories_are_refused() {
    let container = Container::new();
    symlink("b", container.path("a")).unwrap();
    symlink("a", container.path("b")).unwrap();
    symlink("..", container.path("up")).unwrap();
    for path in ["/a", "/a/x", "/up"] {
        let failure = container.place(path, Parents::MustExist).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidPath, "{path}: {failure}");
    }
}

#[test]
fn magic_links_are_refused() {
    // The machine's own root, because a temporary one has no procfs.
    let root = ContainerRoot::at(Path::new("/")).unwrap();
    for path in ["/proc/self/root/tmp/x", "/proc/self/cwd/x"] {
        let failure = root.place(&parse(path).unwrap(), Parents::MustExist).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidPath, "{path}: {failure}");
    }
    // The same without a magic link works, so it is the link that is refused.
    root.place(&parse("/proc/sys/x").unwrap(), Parents::MustExist).unwrap();
}

#[test]
fn parents_are_made_with_the_owner_of_the_process() {
    let container = Container::new();
    container.place("/a/b/c/file", Parents::Create(OWNER, &Recorder::none())).unwrap();
    for path in ["a", "a/b", "a/b/c"] {
        let made = fs::metadata(container.path(path)).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1000, 1001, 0o755), "{path}");
    }
    assert!(!container.path("a/b/c/file").exists());
}

#[test]
fn missing_parents_are_an_error_where_nothing_is_to_be_made() {
    let container = Container::new();
    let failure = container.place("/a/file", Parents::MustExist).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::NotFound);
    assert!(!container.path("a").exists());
    assert!(container.root.place_itself(&parse("/a/file").unwrap()).unwrap().is_none());
}

#[test]
fn a_dangling_link_on_the_way_is_an_error_not_a_loop() {
    let container = Container::new();
    symlink("nowhere", container.path("dangling")).unwrap();
    let failure = container.place("/dangling/x", Parents::Create(OWNER, &Recorder::none())).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::NotFound, "{failure}");
}

#[test]
fn a_file_is_no_parent() {
    let container = Container::new();
    fs::write(container.path("file"), "x").unwrap();
    let failure = container.place("/file/x", Parents::Create(OWNER, &Recorder::none())).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Io, "{failure}");
}

/// What a container's author can put in the way.
#[derive(Clone, Debug)]
enum Entry {
    Folder(Vec<&'static str>),
    Link(Vec<&'static str>, String),
}

fn names() -> impl Strategy<Value = Vec<&'static str>> {
    vec(prop::sample::select(vec!["a", "b", "c", "etc"]), 1..4)
}

fn link_target() -> impl Strategy<Value = String> {
    let step = prop::sample::select(vec!["a", "b", "c", "etc", "..", "..", ".", "", "proc/self/root", "proc/self/cwd", "proc/1/root"]);
    (any::<bool>(), vec(step, 1..8)).prop_map(|(absolute, steps)| {
        let path = steps.join("/");
        let path = if absolute { format!("/{path}") } else { path };
        if path.is_empty() { ".".to_owned() } else { path }
    })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = prop_oneof![names().prop_map(Entry::Folder), (names(), link_target()).prop_map(|(path, target)| Entry::Link(path, target))];
    vec(entry, 0..10)
}

/// All names below a folder, links not followed.
fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

proptest! {
    // Whatever lies in the way: a place is below the root, nothing beside the
    // root changes, and the look-up ends.
    #[test]
    fn no_tree_of_links_leads_out(entries in entries(), path in names(), create in any::<bool>()) {
        let outer = tempfile::tempdir().unwrap();
        let inside = outer.path().join("x/root");
        fs::create_dir_all(&inside).unwrap();
        for name in ["a", "b", "etc"] {
            fs::create_dir(outer.path().join(name)).unwrap();
            fs::create_dir(outer.path().join("x").join(name)).unwrap();
        }
        let beside = |outer: &Path| listing(outer).into_iter().filter(|path| !path.starts_with(&inside)).collect::<Vec<_>>();
        let root = ContainerRoot::at(&inside).unwrap();
        for entry in &entries {
            // Many can't be made, for others are in their way: so be it. They
            // are made beneath the root, as a container's own programs do.
            match entry {
                Entry::Folder(path) => {
                    let _ = root.place(&parse(&format!("/{}/_", path.join("/"))).unwrap(), Parents::Create(OWNER, &Recorder::none()));
                }
                Entry::Link(path, target) => {
                    if let Ok(Some(place)) = root.place_itself(&parse(&format!("/{}", path.join("/"))).unwrap()) {
                        let _ = rustix::fs::symlinkat(target.as_str(), &place.parent, &place.name);
                    }
                }
            }
        }
        let before = beside(outer.path());
        let path = parse(&format!("/{}", path.join("/"))).unwrap();
        let recorder = Recorder::none();
        let parents = if create { Parents::Create(OWNER, &recorder) } else { Parents::MustExist };
        let mut places: Vec<Place> = root.place(&path, parents).into_iter().collect();
        places.extend(root.place_itself(&path).unwrap_or_default());
        places.extend(root.place_for_itself(&path, parents));
        if let Ok(place) = root.place_without_links(&path) {
            prop_assert_eq!(location(&place.parent).unwrap().join(&place.name), inside.join(path.as_path().strip_prefix("/").unwrap()));
            places.push(place);
        }
        for place in places {
            let parent = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place.parent))).unwrap();
            prop_assert!(parent.starts_with(&inside), "{} is outside", parent.display());
            prop_assert!(place.name != ".." && place.name != "." && !place.name.as_bytes().contains(&b'/'));
        }
        prop_assert_eq!(beside(outer.path()), before);
    }

    // A container has a procfs, and in it links that lead out of any root.
    #[test]
    fn no_magic_link_is_followed(
        link in prop::sample::select(vec!["root", "cwd", "fd/0", "task/self/root", "ns/mnt"]),
        who in prop::sample::select(vec!["self", "thread-self", "1"]),
        rest in vec(prop::sample::select(vec!["tmp", "etc", "x"]), 1..3),
    ) {
        let root = ContainerRoot::at(Path::new("/")).unwrap();
        let path = parse(&format!("/proc/{who}/{link}/{}", rest.join("/"))).unwrap();
        prop_assert!(root.place(&path, Parents::MustExist).is_err());
        prop_assert!(root.open(path.as_path(), OFlags::PATH).is_err());
    }
}
