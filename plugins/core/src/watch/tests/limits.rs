//! The watcher at the kernel's limits, which a test can't lower but pretend.

use super::super::kernel::Limits;
use super::*;

/// Waits for a change of `path`, whatever else is reported.
fn wait_for(generation_rx: &mut mpsc::Receiver<Generation>, path: &Path, kind: ChangeKind) {
    let expected = Change { path: path.to_owned(), kind };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let patient = async {
        while let Some(generation) = generation_rx.recv().await {
            if generation.changes.contains(&expected) {
                return;
            }
        }
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), patient).await.unwrap() });
}

/// A tree with three folders, watched within limits.
fn watched(limits: Limits) -> (tempfile::TempDir, Watcher, mpsc::Receiver<Generation>) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two", "two/deep"] {
        fs::create_dir_all(folder.path().join("root").join(name)).unwrap();
    }
    let (watcher, generation_rx) = Watcher::start_within(vec![WatchRoot::content(folder.path().join("root"))], limits).unwrap();
    (folder, watcher, generation_rx)
}

fn render(folder: &Path, warnings: &[WatchWarning]) -> String {
    let lines: Vec<String> = warnings.iter().map(|warning| format!("{warning}\n{}", warning.hint())).collect();
    let mut text = lines.join("\n").replace(&folder.display().to_string(), "[folder]");
    for value in warnings.iter().filter_map(|warning| warning.value) {
        text = text.replace(&format!(" = {value}"), " = [value]");
    }
    text
}

#[test]
fn folders_beyond_the_limit_are_polled() {
    // What is above the root takes as many as the path is long.
    let above = std::env::temp_dir().ancestors().count() + 1;
    let (folder, watcher, mut generation_rx) = watched(Limits { watches: above + 1, ..Limits::default() });
    let root = folder.path().join("root");
    let warnings = watcher.take_warnings();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].limit, WatchLimit::Folders);
    assert_eq!(warnings[0].polled, [root.join("one"), root.join("two")], "the topmost alone");
    insta::assert_snapshot!(render(folder.path(), &warnings));
    for name in ["a", "one/a", "two/deep/a", "two/deep/new/a"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), "1").unwrap();
        wait_for(&mut generation_rx, &root.join(name), ChangeKind::Modified);
    }
    fs::remove_dir_all(root.join("two")).unwrap();
    wait_for(&mut generation_rx, &root.join("two/deep/a"), ChangeKind::Removed);
    assert!(watcher.take_warnings().is_empty(), "once");
}

#[test]
fn without_inotify_all_is_polled() {
    let (folder, watcher, mut generation_rx) = watched(Limits { instance: false, ..Limits::default() });
    let root = folder.path().join("root");
    insta::assert_snapshot!(render(folder.path(), &watcher.take_warnings()));
    fs::write(root.join("a"), "1").unwrap();
    wait_for(&mut generation_rx, &root.join("a"), ChangeKind::Modified);
    fs::remove_dir_all(&root).unwrap();
    wait_for(&mut generation_rx, &root.join("a"), ChangeKind::Removed);
    fs::create_dir(&root).unwrap();
    fs::write(root.join("b"), "1").unwrap();
    wait_for(&mut generation_rx, &root.join("b"), ChangeKind::Modified);
}

#[test]
fn folders_are_watched_again_when_there_is_room() {
    let above = std::env::temp_dir().ancestors().count() + 1;
    let (folder, _watcher, mut generation_rx) = watched(Limits { watches: above + 3, ..Limits::default() });
    let root = folder.path().join("root");
    // Whichever was left over gets the place of one that goes.
    fs::remove_dir_all(root.join("one")).unwrap();
    for number in 0..4 {
        let path = root.join(format!("two/deep/{number}"));
        fs::write(&path, "1").unwrap();
        wait_for(&mut generation_rx, &path, ChangeKind::Modified);
    }
}
