//! A profile in the form of pprof
//! (<https://github.com/google/pprof/blob/main/proto/profile.proto>). Pure.

use super::symbolize::Names;
use devloop_core::agent::tools::{CodeFile, Stack};
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

/// What is profiled.
#[derive(Clone, Debug)]
pub(super) struct Measured<'a> {
    pub(super) stacks: &'a [Stack],
    pub(super) files: &'a [CodeFile],
    pub(super) names: &'a Names,
    /// Of a sample.
    pub(super) period: Duration,
    pub(super) duration: Duration,
    /// When it began, in nanoseconds since 1970.
    pub(super) started: i64,
}

/// The compressed profile.
pub(super) fn encode(measured: &Measured<'_>) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&profile(measured).encode_to_vec())?;
    encoder.finish()
}

fn profile(measured: &Measured<'_>) -> Profile {
    let mut profile = Profile::default();
    let mut strings = Strings::default();
    let nanoseconds = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let period = nanoseconds(measured.period);
    let cpu = ValueType { kind: strings.add("cpu"), unit: strings.add("nanoseconds") };
    profile.sample_type = vec![ValueType { kind: strings.add("samples"), unit: strings.add("count") }, cpu];
    (profile.period_type, profile.period) = (Some(cpu), period);
    (profile.time_nanos, profile.duration_nanos) = (measured.started, nanoseconds(measured.duration));
    for (file, id) in measured.files.iter().zip(1..) {
        profile.mapping.push(Mapping {
            id,
            memory_start: file.start,
            memory_limit: file.end,
            file_offset: file.offset,
            filename: strings.add(&String::from_utf8_lossy(&file.path.0)),
            build_id: strings.add(file.build_id.as_deref().unwrap_or_default()),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
    }
    let mut locations: BTreeMap<u64, u64> = BTreeMap::new();
    let mut functions: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
    let thread_key = strings.add("thread");
    for stack in measured.stacks {
        let mut ids = Vec::new();
        for address in &stack.addresses {
            let next = locations.len() as u64 + 1;
            let id = *locations.entry(*address).or_insert(next);
            ids.push(id);
            if id != next {
                continue;
            }
            let mut line = Vec::new();
            for frame in measured.names.at(*address) {
                let next = functions.len() as u64 + 1;
                let function_id = *functions.entry((frame.function.clone(), frame.file.clone())).or_insert(next);
                if function_id == next {
                    let name = strings.add(&frame.function);
                    let filename = strings.add(frame.file.as_deref().unwrap_or_default());
                    profile.function.push(Function { id: next, name, system_name: name, filename, start_line: 0 });
                }
                line.push(Line { function_id, line: i64::from(frame.line) });
            }
            let file = measured.files.iter().position(|file| (file.start..file.end).contains(address));
            let mapping_id = file.map_or(0, |index| index as u64 + 1);
            profile.location.push(Location { id, mapping_id, address: *address, line });
        }
        let count = i64::from(stack.count);
        let label = vec![Label { key: thread_key, text: strings.add(&stack.name) }];
        profile.sample.push(Sample { location_id: ids, value: vec![count, count.saturating_mul(period)], label });
    }
    profile.string_table = strings.all;
    profile
}

/// Each once; the first one is empty.
#[derive(Debug)]
struct Strings {
    all: Vec<String>,
    places: BTreeMap<String, i64>,
}

impl Default for Strings {
    fn default() -> Self {
        Self { all: vec![String::new()], places: [(String::new(), 0)].into() }
    }
}

impl Strings {
    fn add(&mut self, text: &str) -> i64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = i64::try_from(self.all.len()).unwrap_or(i64::MAX);
        self.all.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
    #[prost(int64, tag = "5")]
    start_line: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::flame::tests::{names, stacks};
    use std::process::Command;

    /// The one that reads such profiles.
    #[test]
    fn pprof_reads_it() {
        let files = [CodeFile { start: 0, end: 100, offset: 0, bias: 0, path: "/app/web".into(), build_id: Some("ab01".to_owned()) }];
        let (stacks, names) = (stacks(), names());
        let measured = Measured {
            stacks: &stacks,
            files: &files,
            names: &names,
            period: Duration::from_millis(10),
            duration: Duration::from_secs(1),
            started: 0,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.pb.gz");
        std::fs::write(&path, encode(&measured).unwrap()).unwrap();
        let output = Command::new("go").args(["tool", "pprof", "-top"]).arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Ten samples: seven in `read`, three in `parse`, which `main` calls, inlined
        // into `handle`.
        assert!(text.contains("Type: cpu") && text.contains("100ms total") || text.contains("of 100ms total"), "{text}");
        let row = |name: &str| text.lines().find(|line| line.split_whitespace().nth(5) == Some(name)).unwrap_or_default().to_owned();
        assert!(row("read").contains("70ms") && row("handle").contains("30ms") && row("main").contains("100ms"), "{text}");
    }
}
