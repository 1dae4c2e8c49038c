//! The watcher on real folders.

mod limits;
mod storms;

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

struct Folder {
    root: tempfile::TempDir,
    _watcher: Watcher,
    generation_rx: mpsc::Receiver<Generation>,
    runtime: tokio::runtime::Runtime,
}

impl Folder {
    /// A watched folder; `prepare` runs before the watch is set.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().unwrap();
        prepare(root.path());
        let (watcher, generation_rx) = Watcher::start(vec![WatchRoot::content(root.path())]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { root, _watcher: watcher, generation_rx, runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn next(&mut self, within: Duration) -> Option<Generation> {
        let receive = async { tokio::time::timeout(within, self.generation_rx.recv()).await.ok().flatten() };
        self.runtime.block_on(receive)
    }

    /// All that is reported until half a second of silence.
    fn generations(&mut self) -> Vec<Generation> {
        let mut generations = Vec::new();
        while let Some(generation) = self.next(Duration::from_millis(600)) {
            generations.push(generation);
        }
        generations
    }

    /// Every change reported until it is silent, as `+name` or `-name`.
    fn changes(&mut self) -> Vec<String> {
        let root = self.root.path().to_owned();
        let render = |change: Change| {
            let sign = if change.kind == ChangeKind::Modified { '+' } else { '-' };
            format!("{sign}{}", change.path.strip_prefix(&root).unwrap().display())
        };
        self.generations().into_iter().flat_map(|generation| generation.changes).map(render).collect()
    }
}

#[test]
fn a_single_save_is_reported_within_five_milliseconds() {
    let mut folder = Folder::new(|root| fs::write(root.join("a"), "1").unwrap());
    let mut delays = Vec::new();
    for number in 0..10 {
        fs::write(folder.path("a"), number.to_string()).unwrap();
        let saved = Instant::now();
        let generation = folder.next(Duration::from_secs(2)).unwrap();
        delays.push(generation.settled - generation.first_event);
        assert_eq!(generation.changes, [Change { path: folder.path("a"), kind: ChangeKind::Modified }]);
        assert_eq!(generation.number, number + 1);
        assert!(saved.elapsed() < Duration::from_millis(500));
        std::thread::sleep(Duration::from_millis(30));
    }
    delays.sort();
    assert!(delays[5] <= Duration::from_millis(5), "{delays:?}");
    assert!(folder.generations().is_empty());
}

#[test]
fn a_rename_over_is_one_change_of_the_real_path() {
    let mut folder = Folder::new(|root| fs::write(root.join("a.html"), "1").unwrap());
    fs::write(folder.path("sedAbC123"), "2").unwrap();
    fs::rename(folder.path("sedAbC123"), folder.path("a.html")).unwrap();
    assert_eq!(folder.changes(), ["+a.html"]);
}

#[test]
fn vim_with_a_backup_is_one_change() {
    let mut folder = Folder::new(|root| fs::write(root.join("a.html"), "1").unwrap());
    fs::write(folder.path(".a.html.swp"), "swap").unwrap();
    fs::write(folder.path("4913"), "").unwrap();
    fs::remove_file(folder.path("4913")).unwrap();
    fs::rename(folder.path("a.html"), folder.path("a.html~")).unwrap();
    fs::write(folder.path("a.html"), "2").unwrap();
    let permissions = fs::metadata(folder.path("a.html~")).unwrap().permissions();
    fs::set_permissions(folder.path("a.html"), permissions).unwrap();
    fs::remove_file(folder.path("a.html~")).unwrap();
    fs::remove_file(folder.path(".a.html.swp")).unwrap();
    assert_eq!(folder.changes(), ["+a.html"]);
}

#[test]
fn safe_writes_of_editors_are_one_change() {
    let mut folder = Folder::new(|root| {
        fs::write(root.join("a.html"), "1").unwrap();
        fs::write(root.join("b.html"), "1").unwrap();
    });
    // JetBrains: written beside, the old moved away, the new moved in.
    fs::write(folder.path("a.html___jb_tmp___"), "2").unwrap();
    fs::rename(folder.path("a.html"), folder.path("a.html___jb_old___")).unwrap();
    fs::rename(folder.path("a.html___jb_tmp___"), folder.path("a.html")).unwrap();
    fs::remove_file(folder.path("a.html___jb_old___")).unwrap();
    assert_eq!(folder.changes(), ["+a.html"]);
    // Emacs: a lock that is a dangling link, and a copy as backup.
    std::os::unix::fs::symlink("me@here.1:2", folder.path(".#a.html")).unwrap();
    fs::copy(folder.path("a.html"), folder.path("a.html~")).unwrap();
    fs::write(folder.path("a.html"), "3").unwrap();
    fs::remove_file(folder.path(".#a.html")).unwrap();
    assert_eq!(folder.changes(), ["+a.html"]);
    // VS Code writes in place: cut short, then written.
    let mut file = fs::File::create(folder.path("a.html")).unwrap();
    std::io::Write::write_all(&mut file, b"4").unwrap();
    drop(file);
    assert_eq!(folder.changes(), ["+a.html"]);
    let sed = std::process::Command::new("sed").args(["-i", "s/1/2/"]).arg(folder.path("b.html")).status().unwrap();
    assert!(sed.success());
    assert_eq!(folder.changes(), ["+b.html"]);
}

#[test]
fn a_checkout_of_another_branch_is_complete() {
    let git = |root: &Path, arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.current_dir(root).args([
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "core.hooksPath=/dev/null",
        ]);
        let output = git.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let write = |root: &Path, branch: &str, from: usize| {
        for number in from..from + 300 {
            let path = root.join(format!("d{}/f{number}", number % 7));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, branch).unwrap();
        }
    };
    let mut folder = Folder::new(|root| {
        git(root, &["init", "-q", "-b", "one"]);
        write(root, "one", 0);
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "one"]);
        git(root, &["checkout", "-qb", "two"]);
        fs::remove_dir_all(root.join("d0")).unwrap();
        write(root, "two", 150);
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "two"]);
        git(root, &["checkout", "-q", "one"]);
    });
    git(folder.root.path(), &["checkout", "-q", "two"]);
    let generations = folder.generations();
    let state: BTreeMap<PathBuf, ChangeKind> =
        generations.iter().flat_map(|generation| &generation.changes).map(|change| (change.path.clone(), change.kind)).collect();
    let (gone, there): (Vec<_>, Vec<_>) = state.iter().partition(|(_, kind)| **kind == ChangeKind::Removed);
    // Of the old, a seventh of 0..150 was in the folder that is gone.
    assert_eq!((gone.len(), there.len()), (22, 300));
    assert!(gone.iter().all(|(path, _)| !path.exists()) && there.iter().all(|(path, _)| path.exists()));
    assert!(generations.len() <= 4, "{} generations", generations.len());
}

#[test]
fn created_and_removed_at_once_is_nothing() {
    let mut folder = Folder::new(|_| {});
    fs::write(folder.path("a"), "1").unwrap();
    fs::remove_file(folder.path("a")).unwrap();
    assert!(folder.changes().is_empty());
}

#[test]
fn files_in_new_folders_are_never_missed() {
    let mut folder = Folder::new(|_| {});
    for number in 0..20 {
        let deep = folder.path(&format!("n{number}/b/c"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "1").unwrap();
    }
    let mut changes = folder.changes();
    changes.sort();
    changes.dedup();
    assert_eq!(changes.len(), 20, "{changes:?}");
    fs::write(folder.path("n0/b/c/f"), "2").unwrap();
    assert_eq!(folder.changes(), ["+n0/b/c/f"], "new folders are watched");
}

#[test]
fn a_renamed_folder_removes_the_old_paths_and_adds_the_new() {
    let mut folder = Folder::new(|root| {
        fs::create_dir_all(root.join("old/sub")).unwrap();
        fs::write(root.join("old/a"), "1").unwrap();
        fs::write(root.join("old/sub/b"), "1").unwrap();
    });
    fs::rename(folder.path("old"), folder.path("new")).unwrap();
    let mut changes = folder.changes();
    changes.sort();
    assert_eq!(changes, ["+new/a", "+new/sub/b", "-old/a", "-old/sub/b"]);
    fs::write(folder.path("new/sub/b"), "2").unwrap();
    assert_eq!(folder.changes(), ["+new/sub/b"]);
}

#[test]
fn a_folder_is_watched_wherever_it_was_moved_to() {
    let mut folder = Folder::new(|root| {
        fs::create_dir_all(root.join("a/sub")).unwrap();
        fs::write(root.join("a/sub/f"), "1").unwrap();
    });
    let mut place = folder.path("a");
    for number in 0..20 {
        // Often it is found in the new folder before the event about the old is read.
        let new = folder.path(&format!("new{number}"));
        fs::create_dir(&new).unwrap();
        fs::rename(&place, new.join("a")).unwrap();
        fs::create_dir_all(place.join("sub")).unwrap();
        place = new.join("a");
    }
    let name = "new19/a/sub/f";
    assert!(folder.changes().contains(&format!("+{name}")));
    fs::write(folder.path(name), "2").unwrap();
    fs::write(folder.path("new3/a/sub/f"), "1").unwrap();
    let mut changes = folder.changes();
    changes.sort();
    assert_eq!(changes, [format!("+{name}"), "+new3/a/sub/f".to_owned()]);
}

#[test]
fn removal_and_permissions_are_changes_and_reading_is_none() {
    let mut folder = Folder::new(|root| {
        fs::write(root.join("a"), "1").unwrap();
        fs::write(root.join("b"), "1").unwrap();
    });
    fs::read(folder.path("a")).unwrap();
    fs::remove_file(folder.path("b")).unwrap();
    assert_eq!(folder.changes(), ["-b"]);
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.path("a"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(folder.changes(), ["+a"]);
}

#[test]
fn a_burst_is_complete_in_few_generations() {
    let mut folder = Folder::new(|_| {});
    let mut expected = BTreeMap::new();
    for number in 0..1000 {
        let path = folder.path(&format!("d{}/f{number}", number % 10));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, number.to_string()).unwrap();
        expected.insert(path, ());
    }
    let generations = folder.generations();
    let mut seen = BTreeMap::new();
    for change in generations.iter().flat_map(|generation| &generation.changes) {
        assert_eq!(change.kind, ChangeKind::Modified);
        seen.insert(change.path.clone(), ());
    }
    assert_eq!(seen, expected);
    // How many depends on how the machine schedules the writer and the watcher.
    assert!(generations.len() <= 12, "{} generations", generations.len());
}

#[test]
fn links_are_entries_of_their_own() {
    use std::os::unix::fs::symlink;
    let mut folder = Folder::new(|root| {
        fs::create_dir(root.join("real")).unwrap();
        fs::write(root.join("real/a"), "1").unwrap();
    });
    symlink("real", folder.path("to-folder")).unwrap();
    symlink("real/a", folder.path("to-file")).unwrap();
    symlink("nowhere", folder.path("to-nothing")).unwrap();
    assert_eq!(folder.changes(), ["+to-file", "+to-folder", "+to-nothing"]);
    fs::write(folder.path("real/a"), "2").unwrap();
    assert_eq!(folder.changes(), ["+real/a"], "the file, by its own name alone");
    symlink("elsewhere", folder.path("next")).unwrap();
    fs::rename(folder.path("next"), folder.path("to-file")).unwrap();
    assert_eq!(folder.changes(), ["+to-file"]);
    fs::remove_file(folder.path("to-folder")).unwrap();
    fs::remove_file(folder.path("to-nothing")).unwrap();
    assert_eq!(folder.changes(), ["-to-folder", "-to-nothing"]);
    fs::remove_file(folder.path("real/a")).unwrap();
    fs::remove_dir(folder.path("real")).unwrap();
    symlink("/proc", folder.path("real")).unwrap();
    assert_eq!(folder.changes(), ["+real", "-real/a"], "a folder that became a link");
}

#[test]
fn a_file_that_is_opened_and_left_alone_is_no_change() {
    let mut folder = Folder::new(|root| fs::write(root.join("a"), "1").unwrap());
    std::thread::sleep(Duration::from_millis(50));
    fs::write(folder.path("a"), "2").unwrap();
    assert_eq!(folder.changes(), ["+a"]);
    drop(fs::File::options().append(true).open(folder.path("a")).unwrap());
    assert!(folder.changes().len() <= 1, "in doubt once");
    drop(fs::File::options().append(true).open(folder.path("a")).unwrap());
    assert!(folder.changes().is_empty());
}

#[test]
fn what_the_user_wants_ignored_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = WatchRoot::content(folder.path()).ignoring(["*.gen".to_owned(), "!target".to_owned()]);
    let (_watcher, mut generation_rx) = Watcher::start(vec![root]).unwrap();
    fs::write(folder.path().join("a.gen"), "").unwrap();
    fs::create_dir(folder.path().join("target")).unwrap();
    fs::write(folder.path().join("target/a"), "").unwrap();
    let generation = generation_rx.blocking_recv().unwrap();
    assert_eq!(generation.changes, [Change { path: folder.path().join("target/a"), kind: ChangeKind::Modified }]);
}

#[test]
fn bad_roots_are_told_with_their_remedy() {
    let render = |root| {
        let error: CommandError = Watcher::start(vec![root]).unwrap_err().into();
        console::strip_ansi_codes(&crate::ui::render_error(&error)).into_owned()
    };
    insta::assert_snapshot!(render(WatchRoot::content("src")));
    insta::assert_snapshot!(render(WatchRoot::content("/src").ignoring(["a/{b".to_owned()])));
}

#[test]
fn rules_that_come_with_new_files_hide_none_of_them() {
    let mut folder = Folder::new(|root| fs::write(root.join(".gitignore"), "out\n").unwrap());
    // As a checkout of another branch does.
    fs::create_dir_all(folder.path("new/deep")).unwrap();
    fs::write(folder.path("new/deep/a"), "1").unwrap();
    fs::write(folder.path(".gitignore"), "other\n").unwrap();
    fs::write(folder.path("new/b"), "1").unwrap();
    let mut changes = folder.changes();
    changes.sort();
    changes.dedup();
    assert_eq!(changes, ["+.gitignore", "+new/b", "+new/deep/a"]);
}

#[test]
fn git_holds_changes_back_while_it_locks_its_index() {
    let mut folder = Folder::new(|root| {
        fs::create_dir(root.join(".git")).unwrap();
        fs::write(root.join("a"), "1").unwrap();
    });
    fs::write(folder.path(".git/index.lock"), "").unwrap();
    fs::write(folder.path("a"), "2").unwrap();
    assert!(folder.next(Duration::from_millis(300)).is_none());
    fs::remove_file(folder.path(".git/index.lock")).unwrap();
    assert_eq!(folder.changes(), ["+a"]);
}

#[test]
fn ignored_trees_are_silent_until_the_rules_change() {
    let mut folder = Folder::new(|root| {
        fs::create_dir(root.join(".git")).unwrap();
        fs::write(root.join(".gitignore"), "out\n").unwrap();
        fs::create_dir_all(root.join("target/debug")).unwrap();
        fs::create_dir(root.join("out")).unwrap();
    });
    fs::write(folder.path("target/debug/x"), "1").unwrap();
    fs::create_dir_all(folder.path("node_modules/y")).unwrap();
    fs::write(folder.path("node_modules/y/z"), "1").unwrap();
    fs::write(folder.path("out/a"), "1").unwrap();
    assert!(folder.changes().is_empty());
    fs::write(folder.path(".gitignore"), "").unwrap();
    assert_eq!(folder.changes(), ["+.gitignore"]);
    fs::write(folder.path("out/a"), "2").unwrap();
    assert_eq!(folder.changes(), ["+out/a"]);
}

#[test]
fn a_root_that_is_replaced_or_comes_later_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let (root, late) = (folder.path().join("static"), folder.path().join(".cargo/config.toml"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "1").unwrap();
    let roots = vec![WatchRoot::content(&root), WatchRoot::sources(&late)];
    let (_watcher, mut generation_rx) = Watcher::start(roots).unwrap();
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("b"), "1").unwrap();
    fs::create_dir(late.parent().unwrap()).unwrap();
    fs::write(&late, "").unwrap();
    fs::write(folder.path().join(".cargo/other"), "").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut state = BTreeMap::new();
    runtime.block_on(async {
        while let Ok(Some(generation)) = tokio::time::timeout(Duration::from_millis(600), generation_rx.recv()).await {
            state.extend(generation.changes.into_iter().map(|change| (change.path, change.kind)));
        }
    });
    let expected = [(late, ChangeKind::Modified), (root.join("a"), ChangeKind::Removed), (root.join("b"), ChangeKind::Modified)];
    assert_eq!(state, BTreeMap::from(expected));
}
