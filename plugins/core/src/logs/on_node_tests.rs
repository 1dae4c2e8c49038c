//! A real agent over real files; this process stands for the node.

use super::super::LogEvent;
use super::super::queue::{Item, Lanes};
use super::*;
use devloop_agent::protocol::ByteString;
use devloop_agent::protocol::logs::{Instances, LOGS_VERSION};
use jiff::Timestamp;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

fn append(path: &Path, numbers: std::ops::Range<u32>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    let text: String = numbers.map(|number| format!("{} stdout F line {number}\n", stamp(number))).collect();
    file.write_all(text.as_bytes()).unwrap();
}

fn stamp(number: u32) -> Timestamp {
    Timestamp::from_millisecond(1_760_000_000_000 + i64::from(number)).unwrap()
}

fn request(pod: &str) -> OpenLog {
    OpenLog {
        id: 0,
        folder: format!("shop_{pod}_uid"),
        container: "app".into(),
        instances: Instances::Newest,
        rotated: false,
        tail: None,
        since: None,
        until: None,
        head: None,
        resume: None,
    }
}

fn source(pod: &str) -> Arc<Source> {
    Arc::new(Source { namespace: "shop".into(), pod: pod.into(), container: "app".into(), ..Source::default() })
}

/// Processes of ours whose command line has this word.
fn agents(word: &str) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.len() >= 2 && words[0].ends_with(word.as_bytes()) && words[1] == b"logs"
    };
    numbers.filter(is_it).collect()
}

#[tokio::test]
async fn an_agent_that_is_killed_is_replaced_and_no_line_is_lost_or_repeated() {
    let node = Node::embedded("test", i32::try_from(std::process::id()).unwrap());
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: joining namespaces needs root");
        return;
    }
    let Ok(path) = crate::agent::install_on(&node).await else {
        eprintln!("skipped: no agent was built");
        return;
    };
    let name = path.rsplit('/').next().unwrap().to_owned();
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("shop_web_uid/app/0.log");
    append(&file, 0..1000);
    let settings = LogSettings {
        version: LOGS_VERSION,
        root: ByteString::from(root.path()),
        follow: true,
        ordered: true,
        held_limit: 1 << 20,
        credit: 1 << 20,
        include: Vec::new(),
        exclude: Vec::new(),
    };
    let (lanes, mut items_rx) = Lanes::new(mpsc::unbounded_channel().0);
    let mut logs = NodeLogs::new(node, settings, lanes.open(true));
    let (id, ended_rx) = logs.open(request("web"), source("web"));
    let (_, missing_rx) = logs.open(request("nobody"), source("nobody"));
    logs.begin();
    assert!(matches!(missing_rx.await.unwrap(), NodeEnd::Missing(_)));
    let (mut read, mut other) = (Vec::new(), Vec::new());
    while read.len() < 3000 {
        let item =
            tokio::time::timeout(Duration::from_secs(30), items_rx.recv()).await.unwrap_or_else(|_| panic!("after {} lines", read.len()));
        let before = read.len();
        if let Item::Events { events, .. } = item.unwrap() {
            for event in events {
                match event {
                    LogEvent::Line(line) => read.push(String::from_utf8(line.message).unwrap()),
                    event => other.push(format!("{event:?}").split(['(', ' ']).next().unwrap().to_owned()),
                }
            }
        }
        // Killed twice, while there is something to be read and while there isn't.
        let is_reached = |count: usize| (before..read.len()).contains(&(count - 1));
        let is_first = is_reached(500);
        if is_first || is_reached(2000) {
            for pid in agents(&name) {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
            }
            if is_first {
                append(&file, 1000..2000);
            } else {
                append(&file, 2000..3000);
            }
        }
    }
    assert!(read == (0..3000).map(|number| format!("line {number}")).collect::<Vec<_>>());
    assert_eq!(other.iter().filter(|event| *event == "Interrupted").count(), 2, "{other:?}");
    assert!(other.iter().all(|event| event != "Gap"), "{other:?}");
    logs.finisher(id).finish();
    std::fs::remove_dir_all(root.path().join("shop_web_uid")).unwrap();
    assert!(matches!(ended_rx.await.unwrap(), NodeEnd::Read));
}
