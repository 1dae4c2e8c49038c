//! Random things happen to real files; whoever knows only the generations must
//! end up with what is on the disk.

use super::super::kernel::Limits;
use super::*;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU64, Ordering};

/// How long the watcher may take in the end, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A generator of numbers that a seed determines (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % sides
    }

    fn path(&mut self, root: &Path) -> PathBuf {
        let depth = 1 + self.roll(4);
        (0..depth).fold(root.to_owned(), |path, _| path.join(["a", "b", "c", "d"][self.roll(4) as usize]))
    }
}

/// What a path is, with all that a consumer copies.
fn entry(path: &Path) -> Option<String> {
    let metadata = path.symlink_metadata().ok()?;
    if metadata.is_symlink() {
        return Some(format!("-> {}", fs::read_link(path).ok()?.display()));
    }
    metadata
        .is_file()
        .then(|| fs::read_to_string(path).ok())
        .flatten()
        .map(|content| format!("{:o} {content}", metadata.permissions().mode()))
}

fn tree(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        match entry(&path) {
            Some(entry) => _ = found.insert(path, entry),
            None => tree(&path, found),
        }
    }
}

/// One thing that a person, an editor or git could do. Many fail, as the path
/// is not what it would have to be: that is fine.
fn happen(dice: &mut Dice, root: &Path, counter: u64) {
    let (path, other) = (dice.path(root), dice.path(root));
    let write = |path: &Path| {
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(path, counter.to_string());
    };
    match dice.roll(20) {
        0..6 => write(&path),
        6 => (0..5).for_each(|number| write(&path.join(format!("x/y{number}/z")))),
        7..10 => _ = fs::rename(&path, &other),
        10 => _ = renameat2(AT_FDCWD, &path, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE),
        11 | 12 => _ = fs::remove_dir_all(&path),
        13 => _ = fs::remove_file(&path),
        14 => _ = symlink(&other, &path),
        15 => {
            let _ = symlink(["a", "nowhere", "../../outside"][dice.roll(3) as usize], root.join("next"));
            let _ = fs::rename(root.join("next"), &path);
        }
        16 if !path.is_symlink() && path.is_file() => {
            let mode = [0o644, 0o755, 0o600][dice.roll(3) as usize];
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        }
        17 => {
            write(&root.join("sedTmp"));
            let _ = fs::rename(root.join("sedTmp"), &path);
        }
        18 => {
            let _ = fs::rename(&path, root.parent().unwrap().join("away"));
            let _ = fs::rename(root.parent().unwrap().join("away"), &other);
            let _ = fs::remove_dir_all(root.parent().unwrap().join("away"));
            let _ = fs::remove_file(root.parent().unwrap().join("away"));
        }
        19 => match dice.roll(16) {
            0 => {
                let _ = fs::remove_dir_all(root);
                let _ = fs::create_dir_all(root);
            }
            1 => {
                let above = root.parent().unwrap();
                let moved = above.with_extension("moved");
                fs::rename(above, &moved).unwrap();
                std::thread::sleep(Duration::from_millis(dice.roll(30)));
                fs::rename(&moved, above).unwrap();
            }
            _ => {}
        },
        _ => std::thread::sleep(Duration::from_millis(dice.roll(20))),
    }
}

/// Writes to a file in each folder.
fn write_everywhere(folder: &Path) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if !path.is_symlink() && path.is_dir() {
            write_everywhere(&path);
        }
    }
    fs::write(folder.join("afterwards"), "").unwrap();
}

/// Applies generations until the copy is what is on the disk.
fn converge(copy: &mut BTreeMap<PathBuf, String>, root: &Path, generation_rx: &mut mpsc::Receiver<Generation>, context: &str) {
    let mut disk = BTreeMap::new();
    tree(root, &mut disk);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let start = Instant::now();
    while *copy != disk {
        let receive = async { tokio::time::timeout(PATIENCE, generation_rx.recv()).await.ok().flatten() };
        let generation = runtime.block_on(receive);
        let differences = || {
            let differs = |path: &&PathBuf| copy.get(*path) != disk.get(*path);
            let paths: std::collections::BTreeSet<&PathBuf> = copy.keys().chain(disk.keys()).filter(differs).collect();
            paths.into_iter().map(|path| format!("{}: {:?}, not {:?}", path.display(), copy.get(path), disk.get(path))).collect::<Vec<_>>()
        };
        assert!(start.elapsed() < PATIENCE && generation.is_some(), "{context}: {:#?}", differences());
        for Change { path, kind } in generation.map(|generation| generation.changes).unwrap_or_default() {
            match (kind, entry(&path)) {
                (ChangeKind::Modified, Some(entry)) => _ = copy.insert(path, entry),
                // It is gone again; that will be told.
                (ChangeKind::Modified, None) => {}
                (ChangeKind::Removed, _) => _ = copy.remove(&path),
            }
        }
    }
}

fn storm(seed: u64, limits: Limits) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("above/root");
    fs::create_dir_all(&root).unwrap();
    // What links lead to from the root; from deeper they lead nowhere.
    fs::create_dir(folder.path().join("outside")).unwrap();
    let mut dice = Dice(seed);
    (0..20).for_each(|counter| happen(&mut dice, &root, counter));
    let mut copy = BTreeMap::new();
    fs::create_dir_all(&root).unwrap();
    tree(&root, &mut copy);
    let (watcher, mut generation_rx) = Watcher::start_within(vec![WatchRoot::content(&root)], limits).unwrap();
    (20..120).for_each(|counter| happen(&mut dice, &root, counter));
    converge(&mut copy, &root, &mut generation_rx, &format!("seed {seed}, {limits:?}"));
    // Whatever happened, each folder that there is now is watched.
    write_everywhere(&root);
    converge(&mut copy, &root, &mut generation_rx, &format!("seed {seed}, {limits:?}, afterwards"));
    assert!(watcher.failure().is_none());
}

fn storms(seeds: std::ops::Range<u64>, limits: Limits) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    storm(seed, limits);
                }
            });
        }
    });
}

#[test]
fn nothing_is_missed() {
    storms(0..80, Limits::default());
}

#[test]
fn nothing_is_missed_when_events_are_lost() {
    storms(1_000..1_024, Limits { queue: 8, ..Limits::default() });
}

#[test]
fn nothing_is_missed_when_some_folders_are_polled() {
    storms(2_000..2_012, Limits { watches: 10, ..Limits::default() });
}

#[test]
fn nothing_is_missed_when_all_folders_are_polled() {
    storms(3_000..3_012, Limits { instance: false, ..Limits::default() });
}
