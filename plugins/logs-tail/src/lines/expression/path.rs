//! Fields of fields: `a.b[0]`, found in one pass over a line. Pure.

use crate::lines::format::{Format, Kind, Slot, json, unescape};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Name(Vec<u8>),
    Index(usize),
}

/// A way to a field. The first segment is a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) segments: Vec<Segment>,
    /// `a.b` written as one name, as logfmt and some JSON loggers do.
    pub(super) flat: Option<Vec<u8>>,
}

impl Path {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        let mut flat = Vec::new();
        for segment in &segments {
            match segment {
                Segment::Name(name) if !flat.is_empty() => flat.extend([b".", name.as_slice()].concat()),
                Segment::Name(name) => flat.extend_from_slice(name),
                Segment::Index(_) => return Self { segments, flat: None },
            }
        }
        Self { flat: (segments.len() > 1).then_some(flat), segments }
    }
}

/// Where the fields are in a line; `slots` is made as long as `paths`.
pub(super) fn find(paths: &[Path], format: Format, line: &[u8], slots: &mut Vec<Option<Slot>>) {
    slots.clear();
    slots.resize(paths.len(), None);
    let mut left = paths.len();
    if left == 0 {
        return;
    }
    format.walk(line, &mut |key, slot| {
        for (path, found) in paths.iter().zip(slots.iter_mut()) {
            if found.is_some() {
                continue;
            }
            let Some(Segment::Name(first)) = path.segments.first() else { continue };
            if same(key, first) {
                *found = descend(&path.segments[1..], line, slot);
            } else if path.flat.as_deref().is_some_and(|flat| same(key, flat)) {
                *found = Some(slot);
            }
            left -= usize::from(found.is_some());
        }
        left > 0
    });
}

fn same(key: &[u8], name: &[u8]) -> bool {
    key == name || (key.contains(&b'\\') && unescape(key).as_ref() == name)
}

fn descend(segments: &[Segment], line: &[u8], slot: Slot) -> Option<Slot> {
    let Some((first, rest)) = segments.split_first() else { return Some(slot) };
    if slot.kind != Kind::Nested {
        return None;
    }
    let mut found = None;
    match first {
        Segment::Index(number) => found = json::element(line, slot.start, *number),
        Segment::Name(name) => {
            json::walk_object(line, slot.start, &mut |key, slot| {
                if same(key, name) {
                    found = Some(slot);
                }
                found.is_none()
            });
        }
    }
    descend(rest, line, found?)
}
