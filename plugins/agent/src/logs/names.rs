//! The names of a container's log files, and their order. Pure.
//!
//! The kubelet names the file of a container's run `N.log`, and renames it to
//! `N.log.TIME` when it is full; older ones become `N.log.TIME.gz`, by way of a
//! `.tmp` file (`pkg/kubelet/logs/container_log_manager.go`).

/// A log file's name. They are ordered as they were written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName {
    /// Which run of the container.
    pub(super) instance: u32,
    pub(super) part: Part,
}

/// A part of a run's log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// What was renamed at this time.
    Rotated(String),
    /// What is written to.
    Current,
}

/// How its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Packing {
    Plain,
    Gzip,
}

impl FileName {
    /// Reads a name; none for what isn't a log, such as what is being compressed.
    pub(super) fn parse(name: &str) -> Option<(Self, Packing)> {
        let (number, rest) = name.split_once(".log")?;
        let instance = number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))?;
        if rest.is_empty() {
            return Some((Self { instance, part: Part::Current }, Packing::Plain));
        }
        let time = rest.strip_prefix('.')?;
        let (time, packing) = match time.strip_suffix(".gz") {
            Some(time) => (time, Packing::Gzip),
            None => (time, Packing::Plain),
        };
        let is_time = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        is_time.then(|| (Self { instance, part: Part::Rotated(time.to_owned()) }, packing))
    }
}

/// The files among the names of a folder, in order; of one that is there twice,
/// because it is just compressed, the plain one.
pub(super) fn order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(FileName, Packing, String)> {
    let mut files: Vec<_> =
        names.filter_map(|name| FileName::parse(name).map(|(parsed, packing)| (parsed, packing, name.to_owned()))).collect();
    files.sort();
    files.dedup_by(|later, earlier| later.0 == earlier.0);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_as_they_were_written() {
        let names = [
            "10.log",
            "2.log",
            "2.log.20260102-000000",
            "2.log.20260101-235959.gz",
            "2.log.20260102-000000.gz",
            "2.log.20260102-000000.tmp",
            "notes.log",
            ".log",
            "+3.log",
            "3.log.old",
            "3.logs",
        ];
        let ordered: Vec<String> = order(names.into_iter()).into_iter().map(|(.., name)| name).collect();
        assert_eq!(ordered, ["2.log.20260101-235959.gz", "2.log.20260102-000000", "2.log", "10.log"]);
    }
}
