//! Many files, a large file, a large tree: when is the container's copy the same?

use crate::figures::Figures;
use crate::measure::{On, ms, until_served};
use crate::session::{Bench, Copied, add_phases, end};
use crate::up::{cpu_ticks, resident_kib};
use devloop_tests::container;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const MANY: usize = 1000;
const LARGE: usize = 20 << 20;

/// Asks until it is so; answers how long that took.
fn until(what: &str, since: Instant, mut is_so: impl FnMut() -> bool) -> Duration {
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(120), "{what}: never");
        std::thread::sleep(Duration::from_micros(300));
    }
    since.elapsed()
}

/// 1,000 files of 4 KB, written at once -> each byte of them in the container.
pub(crate) fn save_many(runs: usize, on: On) -> Figures {
    let bench = Bench::start(on);
    let session = bench.shop.hot_reload(&["--via", "node"]);
    let copied = Copied::new(&bench.environment);
    let root = container::path(&bench.shop.pod().container, "/srv/static/many").unwrap();
    let local = bench.shop.folder.join("static/many");
    std::fs::create_dir_all(&local).unwrap();
    let (mut figures, mut peer) = (Figures::default(), Vec::new());
    for run in 0..=runs {
        let content = |number: usize| format!("{run} {number} ").repeat(4096).into_bytes()[..4096].to_vec();
        let contents: Vec<Vec<u8>> = (0..MANY).map(content).collect();
        let started = Instant::now();
        for (number, content) in contents.iter().enumerate() {
            std::fs::write(local.join(format!("{number}.bin")), content).unwrap();
        }
        let written = started.elapsed();
        for (number, wanted) in contents.iter().enumerate() {
            let file = root.join(format!("{number}.bin"));
            until("the same files", started, || std::fs::read(&file).is_ok_and(|bytes| bytes == *wanted));
        }
        let took = started.elapsed();
        let other = copied.bring(&local, "many");
        if run > 0 {
            figures.samples.push(ms(took));
            figures.phase("write them here", ms(written));
            peer.push(ms(other));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    figures.peer = Some(("kubectl cp", peer));
    end(session);
    figures
}

/// A file of 20 MB of which 1 KB changed -> each byte of it in the container.
pub(crate) fn save_large(runs: usize, on: On) -> Figures {
    let bench = Bench::start(on);
    let mut bytes = Vec::new();
    std::fs::File::open("/dev/urandom").unwrap().take(LARGE as u64).read_to_end(&mut bytes).unwrap();
    let local = bench.shop.folder.join("static/large.bin");
    std::fs::write(&local, &bytes).unwrap();
    let mut session = bench.shop.hot_reload(&["--via", "node"]);
    let copied = Copied::new(&bench.environment);
    let file = container::path(&bench.shop.pod().container, "/srv/static/large.bin").unwrap();
    until("the file is there", Instant::now(), || std::fs::metadata(&file).is_ok_and(|metadata| metadata.len() == LARGE as u64));
    let (mut figures, mut peer) = (Figures::default(), Vec::new());
    for run in 0..=runs {
        let offset = (run * 7_654_321) % (LARGE - 1024);
        let change = format!("{run:<1024}").into_bytes();
        bytes[offset..offset + 1024].copy_from_slice(&change);
        devloop_core::files::write_atomic(&local, &bytes, 0o644).unwrap();
        let started = Instant::now();
        // A new file takes the old one's place: with this part of it, all is there.
        let took = until("the change", started, || part(&file, offset).is_some_and(|found| found == change));
        assert!(std::fs::read(&file).unwrap() == bytes, "the copy has other bytes");
        let event = session.wait_for("synced");
        let other = copied.bring(&local, "large.bin");
        if run > 0 {
            figures.samples.push(ms(took));
            add_phases(&mut figures, &event);
            peer.push(ms(other));
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    figures.peer = Some(("kubectl cp", peer));
    end(session);
    figures
}

fn part(file: &Path, offset: usize) -> Option<Vec<u8>> {
    let mut found = vec![0; 1024];
    std::fs::File::open(file).ok()?.read_exact_at(&mut found, offset as u64).ok()?;
    Some(found)
}

/// A project of 250,000 files: the start of a session, what it costs, and a small
/// save, next to the same save in the project without them.
pub(crate) fn large_tree(runs: usize, on: On) -> Figures {
    const FOLDERS: usize = 10_000;
    let bench = Bench::start(on);
    let address = bench.shop.pod().address;
    let mut figures = Figures::default();
    let page = bench.shop.folder.join("static/bench.txt");
    let saves = |name: &str| {
        let one = |run: usize| {
            let text = format!("run {run} in the {name} tree");
            let started = Instant::now();
            std::fs::write(&page, &text).unwrap();
            let took = ms(until_served(&address, "/bench.txt", &text, started));
            std::thread::sleep(Duration::from_millis(150));
            took
        };
        (0..=runs).map(one).skip(1).collect::<Vec<f64>>()
    };
    let session = bench.shop.hot_reload(&["--via", "node"]);
    let small = saves("small");
    end(session);
    let bulk = bench.shop.folder.join("src/bulk");
    for folder in 0..FOLDERS {
        let folder = bulk.join(format!("{}/{folder}", folder % 100));
        std::fs::create_dir_all(&folder).unwrap();
        for file in 0..25 {
            std::fs::write(folder.join(format!("file-{file}.txt")), "one of many").unwrap();
        }
    }
    let started = Instant::now();
    let session = bench.shop.hot_reload(&["--via", "node"]);
    figures.more.insert("startMs", ms(started.elapsed()));
    figures.samples = saves("large");
    let pid = i32::try_from(session.running.child.id()).unwrap();
    let before = cpu_ticks(pid);
    std::thread::sleep(Duration::from_secs(10));
    // USER_HZ is 100 on every architecture that we run on (times(2)).
    figures.more.insert("idleCpuPercent", (cpu_ticks(pid) - before) as f64 / 100.0 / 10.0 * 100.0);
    figures.more.insert("rssMb", resident_kib(pid) as f64 / 1024.0);
    figures.peer = Some(("the small tree", small));
    end(session);
    devloop_core::files::remove_all(&bulk).unwrap();
    figures
}
