//! Many changes at once: whatever happens on the way, in the end the container
//! has what the folder has, byte by byte.

use super::apps::{APPS, App};
use super::stage::{Stage, Way, with};
use crate::Named;
use crate::clusters::Cluster;
use devloop_tests::eventually;
use devloop_tests::program::Program;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// How long a storm may go on after its last change.
const CALM: Duration = Duration::from_secs(120);
const FILES: usize = 10_000;

type Storm = (&'static str, fn(&mut Stage));

const STORMS: [Storm; 4] = [
    ("ten_thousand_files_deleted_and_made_anew", ten_thousand),
    ("git_checkout_between_branches", checkout),
    ("editors_ways_to_save", editors),
    ("folders_that_change_places", folders),
];

/// One of the files that a branch has.
type Branch = fn(usize) -> Option<String>;

pub(crate) fn cases(cluster: Cluster, ways: &'static [Way]) -> Vec<Named> {
    let app: &'static App = APPS.iter().find(|app| app.name == "static-site").expect("it is in the list");
    let storm = move |way: Way| {
        STORMS.into_iter().map(move |(name, storm)| {
            let name = format!("hot_reload::storms_by_{}::{name}", way.name());
            Named::new(name, move || with(cluster, app, way, storm))
        })
    };
    ways.iter().copied().flat_map(storm).collect()
}

/// Waits until nothing is different, and says what is when that takes too long.
fn calm(stage: &mut Stage, expected: usize) {
    let pod = stage.example.pod();
    eventually("the storm is over", CALM, || {
        let local = stage.local_pages().files();
        assert!(local.len() >= expected, "the storm left {} files", local.len());
        let differences = local.differences(&stage.pages(&pod).files());
        // Reading ten thousand files is work, too.
        std::thread::sleep(Duration::from_millis(100));
        if differences.is_empty() { Ok(()) } else { Err(format!("local / pod: {differences:#?}")) }
    });
}

fn clean(stage: &mut Stage) {
    stage.example.restore();
    calm(stage, 2);
}

fn ten_thousand(stage: &mut Stage) {
    stage.session();
    let folder = stage.example.folder.join(stage.page("storm"));
    let fill = |round: &str| {
        for number in 0..FILES {
            let part = folder.join(format!("{:02}", number % 100));
            if number < 100 {
                std::fs::create_dir_all(&part).unwrap();
            }
            std::fs::write(part.join(format!("{number}.txt")), format!("{round}: file {number}")).unwrap();
        }
    };
    fill("first");
    calm(stage, FILES);
    devloop_core::files::remove_all(&folder).unwrap();
    fill("second");
    // Not all of them come back, and some come back as something else.
    for number in (0..FILES).step_by(7) {
        std::fs::remove_file(folder.join(format!("{:02}/{number}.txt", number % 100))).unwrap();
    }
    for number in (0..FILES).step_by(700) {
        std::fs::create_dir(folder.join(format!("{:02}/{number}.txt", number % 100))).unwrap();
        std::fs::write(folder.join(format!("{:02}/{number}.txt/inside", number % 100)), "a file in what was a file").unwrap();
    }
    calm(stage, FILES / 2);
    clean(stage);
}

fn git<S: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = S>) {
    let identity = ["-c", "user.name=storm", "-c", "user.email=storm@localhost", "-c", "commit.gpgsign=false"];
    Program::new("git").args(identity).args(arguments).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").run().ok();
}

fn checkout(stage: &mut Stage) {
    // Each branch changes some files, lacks some, and has some of its own.
    const BRANCHES: [(&str, Branch); 2] = [
        ("one", |number| (number % 3 != 0).then(|| format!("one: {number}"))),
        ("two", |number| (number % 3 != 1).then(|| if number % 2 == 0 { format!("two: {number}") } else { format!("one: {number}") })),
    ];
    let folder = stage.example.folder.clone();
    git(&folder, ["init", "--quiet", "--initial-branch=base"]);
    git(&folder, ["add", "--all"]);
    git(&folder, ["commit", "--quiet", "--message=base"]);
    let pages = folder.join(stage.page("branch"));
    for (branch, content) in BRANCHES {
        git(&folder, ["checkout", "--quiet", "-b", branch, "base"]);
        for number in 0..900 {
            if let Some(content) = content(number) {
                let part = pages.join(format!("{}", number % 9));
                std::fs::create_dir_all(&part).unwrap();
                std::fs::write(part.join(format!("{number}.txt")), content).unwrap();
            }
        }
        git(&folder, ["add", "--all"]);
        git(&folder, ["commit", "--quiet", "--message", branch]);
    }
    stage.session();
    calm(stage, 600);
    git(&folder, ["checkout", "--quiet", "one"]);
    calm(stage, 600);
    // Faster than they can be followed.
    for branch in ["two", "one", "two", "base", "two", "one"] {
        git(&folder, ["checkout", "--quiet", branch]);
    }
    calm(stage, 600);
    git(&folder, ["checkout", "--quiet", "base"]);
    calm(stage, 2);
    devloop_core::files::remove_all(&folder.join(".git")).unwrap();
    clean(stage);
}

fn editors(stage: &mut Stage) {
    stage.session();
    let folder = stage.example.folder.join(stage.app.pages);
    let page = folder.join("page.txt");
    let at = |name: &str| folder.join(name);
    for round in 0..25 {
        let text = |editor: &str| format!("{editor} saved this in round {round}");
        // vim, `backup` and `writebackup`: a test file, the old one moved away.
        std::fs::write(&page, text("vim before")).unwrap();
        std::fs::write(at(".page.txt.swp"), "swap").unwrap();
        std::fs::write(at("4913"), "").unwrap();
        std::fs::remove_file(at("4913")).unwrap();
        std::fs::rename(&page, at("page.txt~")).unwrap();
        std::fs::write(&page, text("vim")).unwrap();
        std::fs::remove_file(at("page.txt~")).unwrap();
        std::fs::remove_file(at(".page.txt.swp")).unwrap();
        // Emacs: a link that dangles as a lock, an own copy in between.
        std::os::unix::fs::symlink("user@host.1:1", at(".#page.txt")).unwrap();
        std::fs::write(at("#page.txt#"), text("emacs, unsaved")).unwrap();
        std::fs::write(at("page.txt~"), text("vim")).unwrap();
        std::fs::write(&page, text("emacs")).unwrap();
        std::fs::remove_file(at("#page.txt#")).unwrap();
        std::fs::remove_file(at(".#page.txt")).unwrap();
        // JetBrains, "safe write".
        std::fs::write(at("page.txt___jb_tmp___"), text("idea")).unwrap();
        std::fs::rename(&page, at("page.txt___jb_old___")).unwrap();
        std::fs::rename(at("page.txt___jb_tmp___"), &page).unwrap();
        std::fs::remove_file(at("page.txt___jb_old___")).unwrap();
        // sed -i: a new file over the old name.
        let words = ["-i".to_owned(), format!("s/idea/sed {round}/"), page.display().to_string()];
        Program::new("sed").args(words).run().ok();
        // And one that empties the file before it fills it.
        std::fs::write(at("slow.txt"), "").unwrap();
        std::thread::sleep(Duration::from_millis(round % 5));
        std::fs::write(at("slow.txt"), text("slow")).unwrap();
    }
    std::fs::remove_file(at("page.txt~")).unwrap();
    stage.serves("/page.txt", "sed 24 saved this in round 24");
    stage.serves("/slow.txt", "slow saved this in round 24");
    calm(stage, 4);
    clean(stage);
}

fn folders(stage: &mut Stage) {
    stage.session();
    let folder = stage.example.folder.join(stage.app.pages);
    for name in ["red", "blue"] {
        std::fs::create_dir_all(folder.join(name).join("deep/er")).unwrap();
        for number in 0..100 {
            std::fs::write(folder.join(name).join(format!("deep/er/{number}.txt")), format!("{name} {number}")).unwrap();
        }
    }
    for _ in 0..20 {
        for (from, to) in [("red", "aside"), ("blue", "red"), ("aside", "blue")] {
            std::fs::rename(folder.join(from), folder.join(to)).unwrap();
        }
    }
    std::fs::rename(folder.join("red"), folder.join("blue/deep/red")).unwrap();
    // A link in the place of a folder, and a folder in the place of a file.
    std::os::unix::fs::symlink("blue/deep", folder.join("red")).unwrap();
    std::fs::remove_file(folder.join("blue/deep/er/0.txt")).unwrap();
    std::fs::create_dir(folder.join("blue/deep/er/0.txt")).unwrap();
    std::fs::write(folder.join("blue/deep/er/0.txt/inside"), "inside").unwrap();
    calm(stage, 200);
    clean(stage);
}
