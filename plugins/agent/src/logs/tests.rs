//! Real files in a folder, read by a server over real pipes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::container::{Container, Item};
use super::serve;
use crate::protocol::logs::{
    Instances, LINE_LIMIT, LOGS_VERSION, LogReply, LogRequest, LogSettings, Loss, OpenLog, Position, Since, lines,
};
use crate::protocol::{ByteString, Decoder, encode};

/// Nanoseconds since 1970 of a line's number.
fn time(number: u64) -> i64 {
    1_767_225_600_000_000_000 + i64::try_from(number).unwrap() * 1_000_000
}

fn stamp(number: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time(number))).unwrap().to_string()
}

fn text(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{} stdout F line {number}\n", stamp(number))).collect()
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// What the kubelet does with a full file.
fn rotate(folder: &Path, time: &str) {
    std::fs::rename(folder.join("0.log"), folder.join(format!("0.log.{time}"))).unwrap();
    File::create(folder.join("0.log")).unwrap();
}

fn compress(folder: &Path, name: &str) {
    let path = folder.join(name);
    let temporary = folder.join(format!("{name}.tmp"));
    let mut encoder = flate2::write::GzEncoder::new(File::create(&temporary).unwrap(), flate2::Compression::fast());
    encoder.write_all(&std::fs::read(&path).unwrap()).unwrap();
    encoder.finish().unwrap();
    std::fs::rename(&temporary, folder.join(format!("{name}.gz"))).unwrap();
    std::fs::remove_file(&path).unwrap();
}

fn request(id: u32) -> OpenLog {
    OpenLog {
        id,
        folder: format!("ns_pod{id}_uid"),
        container: "app".into(),
        instances: Instances::All,
        rotated: true,
        tail: None,
        since: None,
        until: None,
        head: None,
        resume: None,
    }
}

struct Node {
    root: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn folder(&self, id: u32) -> PathBuf {
        let folder = self.root.path().join(format!("ns_pod{id}_uid/app"));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn settings(&self, follow: bool) -> LogSettings {
        LogSettings {
            version: LOGS_VERSION,
            root: self.root.path().into(),
            follow,
            ordered: true,
            held_limit: 1 << 30,
            credit: 1 << 30,
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }

    fn read(&self, request: &OpenLog) -> Vec<String> {
        let mut container = Container::open(request, self.root.path(), 0).unwrap();
        let mut items = Vec::new();
        while let Some(item) = container.next(4096) {
            items.push(match item {
                Item::Line(line, _) => String::from_utf8_lossy(&line.message).into_owned(),
                Item::Gap(loss) => format!("{loss:?}"),
            });
        }
        items.extend(container.finish().into_iter().map(|line| String::from_utf8_lossy(&line.message).into_owned()));
        items
    }
}

fn numbered(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("line {number}")).collect()
}

/// Waits until this process has a file open under this name.
fn until_open(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let is_open =
        || std::fs::read_dir("/proc/self/fd").unwrap().flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link == path));
    while !is_open() {
        assert!(Instant::now() < deadline, "{} was never opened", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client of a server in this process.
struct Client {
    requests: std::io::PipeWriter,
    replies: std::io::PipeReader,
    decoder: Decoder,
    server: JoinHandle<std::io::Result<()>>,
    said: Vec<(u32, String)>,
    positions: std::collections::BTreeMap<u32, Position>,
    part: Vec<u8>,
    held: Vec<u64>,
}

impl Client {
    fn start(settings: LogSettings, requests: Vec<OpenLog>) -> Self {
        let (input, requests_tx) = std::io::pipe().unwrap();
        let (replies, output) = std::io::pipe().unwrap();
        let server = std::thread::spawn(move || serve(input, output));
        let mut client = Self {
            requests: requests_tx,
            replies,
            decoder: Decoder::new(),
            server,
            said: Vec::new(),
            positions: std::collections::BTreeMap::new(),
            part: Vec::new(),
            held: Vec::new(),
        };
        client.ask(&LogRequest::Start(settings));
        client.ask(&LogRequest::Open(requests));
        client
    }

    fn ask(&mut self, request: &LogRequest) {
        let mut frame = Vec::new();
        encode(request, &mut frame).unwrap();
        self.requests.write_all(&frame).unwrap();
    }

    fn take(&mut self) -> bool {
        loop {
            if let Some(reply) = self.decoder.pop::<LogReply>().unwrap() {
                self.note(reply);
                return true;
            }
            let mut buffer = vec![0; 64 * 1024];
            match self.replies.read(&mut buffer).unwrap() {
                0 => return false,
                length => self.decoder.push(&buffer[..length]),
            }
        }
    }

    fn note(&mut self, reply: LogReply) {
        match reply {
            LogReply::Lines { bytes, positions } => {
                for piece in lines(&bytes.0) {
                    let piece = piece.unwrap();
                    self.part.extend_from_slice(piece.bytes);
                    if piece.is_last {
                        self.said.push((piece.id, String::from_utf8(std::mem::take(&mut self.part)).unwrap()));
                    }
                }
                self.positions.extend(positions);
            }
            LogReply::CaughtUp { id } => self.said.push((id, "CAUGHT UP".into())),
            LogReply::Gap { id, loss } => self.said.push((id, format!("{loss:?}"))),
            LogReply::Ended { id } => self.said.push((id, "ENDED".into())),
            LogReply::Missing { id, .. } => self.said.push((id, "MISSING".into())),
            LogReply::Held { bytes } => self.held.push(bytes),
            LogReply::Failed { message } => self.said.push((0, message)),
        }
    }

    fn until(&mut self, wanted: &str) {
        while self.said.last().is_none_or(|(_, text)| text != wanted) {
            assert!(self.take(), "{wanted} didn't come after {:?}", self.said.last());
        }
    }

    fn texts(&self) -> Vec<String> {
        self.said.iter().map(|(_, text)| text.clone()).filter(|text| text != "CAUGHT UP").collect()
    }

    fn leave(self) -> std::io::Result<()> {
        drop(self.requests);
        drop(self.replies);
        self.server.join().unwrap()
    }
}

#[test]
fn rotated_and_compressed_files_and_all_runs_are_one_log() {
    let node = Node::new();
    let folder = node.folder(1);
    for (range, time) in [(0..10, "20260101-000001"), (10..20, "20260101-000002"), (20..30, "20260101-000003")] {
        append(&folder.join("0.log"), &text(range));
        rotate(&folder, time);
    }
    compress(&folder, "0.log.20260101-000001");
    append(&folder.join("0.log"), &text(30..35));
    append(&folder.join("1.log"), &text(35..40));
    assert_eq!(node.read(&request(1)), numbered(0..40));
    // What kubectl shows, and more where it is asked for.
    let newest = OpenLog { instances: Instances::Newest, rotated: false, ..request(1) };
    assert_eq!(node.read(&newest), numbered(35..40));
    let before = OpenLog { instances: Instances::Only(0), ..newest.clone() };
    assert_eq!(node.read(&before), numbered(30..35));
    assert_eq!(node.read(&OpenLog { rotated: true, ..before.clone() }), numbered(0..35));
    for tail in [0, 1, 5, 6, 15, 16, 28, 35, 36] {
        let expected = numbered(35_u64.saturating_sub(tail)..35);
        assert_eq!(node.read(&OpenLog { tail: Some(tail), ..before.clone() }), expected, "{tail}");
    }
    let since = OpenLog { since: Some(Since::At(time(17))), until: Some(time(31)), ..request(1) };
    assert_eq!(node.read(&since), numbered(17..32));
    assert_eq!(node.read(&OpenLog { head: Some(3), ..since }), numbered(17..20));
    std::fs::remove_file(folder.join("0.log")).unwrap();
    let lost = node.read(&OpenLog { instances: Instances::FromFirst, ..request(2) }.of(&node, 2));
    assert_eq!(lost[0], format!("{:?}", Loss::Instances { count: 2 }));
}

impl OpenLog {
    /// With a folder whose first two runs are gone.
    fn of(self, node: &Node, id: u32) -> Self {
        append(&node.folder(id).join("2.log"), &text(0..1));
        self
    }
}

#[test]
fn parts_of_lines_are_joined_across_files_and_what_is_no_line_is_said() {
    let node = Node::new();
    let folder = node.folder(1);
    append(&folder.join("0.log"), &format!("{} stdout P be\n\0\0\0\n{} stderr F err\n", stamp(0), stamp(1)));
    rotate(&folder, "20260101-000001");
    append(&folder.join("0.log"), &format!("{} stdout F gin\n{} stdout P no end\n", stamp(2), stamp(3)));
    let items = node.read(&request(1));
    assert_eq!(items, ["Damaged { bytes: 4 }", "err", "begin", "no end"]);
    assert_eq!(node.read(&OpenLog { tail: Some(1), ..request(1) }).last().unwrap(), "no end");
}

#[test]
fn a_long_line_goes_through_the_pipe_whole() {
    let node = Node::new();
    let part = "x".repeat(16 * 1024);
    let mut content: String = (0..40).map(|_| format!("{} stdout P {part}\n", stamp(1))).collect();
    content += &format!("{} stdout F end\n", stamp(1));
    append(&node.folder(1).join("0.log"), &content);
    let mut client = Client::start(node.settings(false), vec![request(1)]);
    client.until("ENDED");
    assert_eq!(client.said[0].1.len(), 40 * 16 * 1024 + 3);
    assert!(client.said[0].1.len() < LINE_LIMIT);
    client.leave().unwrap();
}

#[test]
fn logs_of_many_containers_are_merged_by_time_or_in_turns() {
    let node = Node::new();
    let count = 2000;
    for id in 0..5_u32 {
        let of_one: String = (0..count).filter(|number| number % 5 == u64::from(id)).map(|number| text(number..number + 1)).collect();
        append(&node.folder(id).join("0.log"), &of_one);
    }
    let all: Vec<OpenLog> = (0..5).map(request).collect();
    let mut client = Client::start(node.settings(false), all.clone());
    while client.said.iter().filter(|(_, text)| text == "ENDED").count() < 5 {
        assert!(client.take());
    }
    let read: Vec<String> = client.texts().into_iter().filter(|text| text != "ENDED").collect();
    assert_eq!(read, numbered(0..count));
    client.leave().unwrap();
    let settings = LogSettings { ordered: false, include: vec!["[05]$".into()], exclude: vec!["^line 1".into()], ..node.settings(false) };
    let mut client = Client::start(settings, all);
    while client.said.iter().filter(|(_, text)| text == "ENDED").count() < 5 {
        assert!(client.take());
    }
    let mut read: Vec<String> = client.texts().into_iter().filter(|text| text != "ENDED").collect();
    let mut expected = numbered(0..count);
    expected.retain(|line| (line.ends_with('0') || line.ends_with('5')) && !line.starts_with("line 1"));
    read.sort();
    expected.sort();
    assert_eq!(read, expected);
    client.leave().unwrap();
}

/// Files are rotated, compressed and deleted far faster than a client that stands
/// still takes their lines.
#[test]
fn a_slow_client_loses_nothing_that_the_kubelet_deletes() {
    let node = Node::new();
    let folder = node.folder(1);
    append(&folder.join("0.log"), &text(0..10));
    let mut client = Client::start(node.settings(true), vec![request(1)]);
    client.until("CAUGHT UP");
    let (files, lines_each) = (8, 20_000);
    let mut last: Option<String> = None;
    for file in 0..files {
        let begin = 10 + file * lines_each;
        append(&folder.join("0.log"), &text(begin..begin + lines_each));
        let name = format!("0.log.20260101-0000{file:02}");
        rotate(&folder, &name["0.log.".len()..]);
        until_open(&folder.join(&name));
        until_open(&folder.join("0.log"));
        // Two at a time is less than the kubelet keeps.
        if let Some(before) = last.replace(name) {
            compress(&folder, &before);
            std::fs::remove_file(folder.join(format!("{before}.gz"))).unwrap();
        }
    }
    let end = 10 + files * lines_each;
    append(&folder.join("0.log"), &text(end..end + 1));
    client.until(&format!("line {end}"));
    assert!(client.texts() == numbered(0..end + 1), "{} lines", client.texts().len());
    client.leave().unwrap();
}

#[test]
fn what_waits_too_long_is_given_up_and_counted() {
    let node = Node::new();
    let folder = node.folder(1);
    append(&folder.join("0.log"), &text(0..10));
    let settings = LogSettings { held_limit: 0, ..node.settings(true) };
    let mut client = Client::start(settings, vec![request(1)]);
    client.until("CAUGHT UP");
    append(&folder.join("0.log"), &text(10..60_000));
    rotate(&folder, "20260101-000001");
    std::thread::sleep(Duration::from_millis(200));
    std::fs::remove_file(folder.join("0.log.20260101-000001")).unwrap();
    // Longer than a round.
    std::thread::sleep(Duration::from_millis(1500));
    append(&folder.join("0.log"), &text(60_000..60_001));
    client.until("line 60000");
    let gaps: Vec<String> = client.texts().into_iter().filter(|text| text.starts_with("Dropped")).collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    client.leave().unwrap();
}

#[test]
fn a_client_that_takes_nothing_gets_no_more_and_hears_how_much_waits() {
    let node = Node::new();
    let folder = node.folder(1);
    append(&folder.join("0.log"), &text(0..20_000));
    let mut client = Client::start(LogSettings { credit: 1, ..node.settings(true) }, vec![request(1)]);
    until_open(&folder.join("0.log"));
    rotate(&folder, "20260101-000001");
    std::fs::remove_file(folder.join("0.log.20260101-000001")).unwrap();
    while client.held.is_empty() {
        assert!(client.take());
    }
    assert!(client.held[0] > 0 && client.texts().len() < 10_000, "{:?} after {} lines", client.held, client.texts().len());
    client.ask(&LogRequest::Taken { bytes: 1 << 30 });
    client.until("line 19999");
    assert!(client.texts() == numbered(0..20_000));
    client.leave().unwrap();
}

#[test]
fn a_restart_and_the_end_of_a_pod_are_followed() {
    let node = Node::new();
    let folder = node.folder(1);
    append(&folder.join("0.log"), &text(0..3));
    let mut client = Client::start(node.settings(true), vec![request(1), request(7)]);
    client.until("CAUGHT UP");
    append(&folder.join("0.log"), &text(3..5));
    append(&folder.join("1.log"), &text(5..7));
    client.until("line 6");
    std::fs::remove_file(folder.join("0.log")).unwrap();
    append(&folder.join("1.log"), &text(7..8));
    client.ask(&LogRequest::Finish { id: 1 });
    std::fs::remove_dir_all(&folder).unwrap();
    client.until("ENDED");
    let read: Vec<String> = client.texts().into_iter().filter(|text| text.starts_with("line")).collect();
    assert_eq!(read, numbered(0..8));
    assert!(client.said.contains(&(7, "MISSING".into())));
    client.leave().unwrap();
}

#[test]
fn a_client_that_breaks_the_rules_is_told() {
    let node = Node::new();
    let mut client = Client::start(LogSettings { version: 0, ..node.settings(true) }, vec![]);
    while client.take() {}
    assert!(client.said[0].1.contains("version"), "{:?}", client.said);
    assert!(client.leave().is_err());
    let mut client = Client::start(LogSettings { include: vec!["(".into()], ..node.settings(true) }, vec![]);
    while client.take() {}
    assert!(client.said[0].1.contains("unclosed group"), "{:?}", client.said);
    let outside = OpenLog { folder: "../x".into(), ..request(1) };
    assert!(Container::open(&outside, node.root.path(), 0).is_err());
    let _ = ByteString::from("x");
}

#[test]
fn it_ends_with_its_client() {
    let node = Node::new();
    append(&node.folder(1).join("0.log"), &text(0..3));
    let mut client = Client::start(node.settings(true), vec![request(1)]);
    client.until("CAUGHT UP");
    let started = Instant::now();
    client.leave().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// However a log is rotated, and wherever reading it is broken off, going on
    /// where it was left gives every line once.
    #[test]
    fn resuming_loses_and_repeats_nothing(parts in prop::collection::vec((0..8_u64, prop::bool::ANY, prop::bool::ANY, 0..3_u8), 1..8), cuts in prop::collection::vec(0..12_usize, 0..6), block in 1..300_usize) {
        let node = Node::new();
        let folder = node.folder(1);
        let (mut number, mut cuts) = (0_u64, cuts.into_iter());
        let (mut read, mut expected): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut resume = None;
        File::create(folder.join("0.log")).unwrap();
        for (index, (count, rotates, compresses, partial)) in parts.into_iter().enumerate() {
            for _ in 0..count {
                // Parts of one stream around a line of the other.
                if partial > 0 {
                    append(&folder.join("0.log"), &format!("{} stdout P be\n{} stderr F other {number}\n", stamp(number), stamp(number)));
                    append(&folder.join("0.log"), &format!("{} stdout F gin {number}\n", stamp(number)));
                    expected.extend([format!("other {number}"), format!("begin {number}")]);
                } else {
                    append(&folder.join("0.log"), &text(number..number + 1));
                    expected.push(format!("line {number}"));
                }
                number += 1;
            }
            if rotates && count > 0 {
                let name = format!("20260101-0000{index:02}");
                rotate(&folder, &name);
                if compresses {
                    compress(&folder, &format!("0.log.{name}"));
                }
            }
            let Some(cut) = cuts.next() else { continue };
            let mut container = Container::open(&OpenLog { resume, ..request(1) }, node.root.path(), 0).unwrap();
            for _ in 0..cut {
                let Some(Item::Line(line, position)) = container.next(block) else { break };
                read.push(String::from_utf8(line.message).unwrap());
                resume = position;
            }
        }
        let mut container = Container::open(&OpenLog { resume, ..request(1) }, node.root.path(), 0).unwrap();
        while let Some(Item::Line(line, _)) = container.next(block) {
            read.push(String::from_utf8(line.message).unwrap());
        }
        prop_assert_eq!(read, expected);
    }
}
