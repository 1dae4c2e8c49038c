//! Which parts of which records are on which row of the screen. Pure.

use super::store::{Entry, Store};
use super::view::View;
use std::collections::VecDeque;
use std::ops::Range;
use unicode_width::UnicodeWidthChar;

/// A record that is wrapped takes no more rows than this before it is unfolded.
const MOST_ROWS: usize = 2000;

/// A row of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Of the record.
    pub(crate) number: u64,
    /// Whether it is the record's first.
    pub(crate) is_first: bool,
    /// The part of the record's text.
    pub(crate) range: Range<usize>,
    /// How many lines of the record are folded away behind it.
    pub(crate) more: usize,
}

/// The rows that are on the screen: the newest while it is followed, else those
/// around the record that is stayed at. Moves the view as little as that takes.
pub(crate) fn rows(view: &mut View, store: &Store, width: usize, height: usize) -> Vec<Row> {
    view.page = height;
    let Some(cursor) = view.cursor else {
        let newest = view.shown().iter().rev().copied();
        let rows = upward(newest, view, store, width, height);
        view.top = rows.first().map_or(0, |row| row.number);
        return rows;
    };
    if view.top > cursor {
        view.top = cursor;
    }
    let from_top = downward(view.top, view, store, width, height);
    // All of the record has to be in sight, or as much as there is room for.
    let wanted = of_record(cursor, view, store, width).len();
    let seen = from_top.iter().filter(|row| row.number == cursor).count();
    if seen >= wanted.min(height) {
        return from_top;
    }
    let end = view.shown().partition_point(|number| *number <= cursor);
    let before: Vec<u64> = view.shown().range(..end).copied().collect();
    let mut rows = upward(before.into_iter().rev(), view, store, width, height);
    if wanted > height {
        rows = of_record(cursor, view, store, width);
        rows.truncate(height);
    }
    view.top = rows.first().map_or(cursor, |row| row.number);
    rows
}

/// So many rows from a record on.
fn downward(top: u64, view: &View, store: &Store, width: usize, height: usize) -> Vec<Row> {
    let start = view.shown().partition_point(|number| *number < top);
    let mut rows = Vec::with_capacity(height);
    for number in view.shown().range(start..) {
        rows.extend(of_record(*number, view, store, width));
        if rows.len() >= height {
            break;
        }
    }
    rows.truncate(height);
    rows
}

/// So many rows up to a record's end; `numbers` begin with that record and go up.
fn upward(numbers: impl Iterator<Item = u64>, view: &View, store: &Store, width: usize, height: usize) -> Vec<Row> {
    let mut rows: VecDeque<Row> = VecDeque::with_capacity(height);
    for number in numbers {
        for row in of_record(number, view, store, width).into_iter().rev() {
            rows.push_front(row);
        }
        if rows.len() >= height {
            break;
        }
    }
    rows.drain(..rows.len().saturating_sub(height));
    rows.into()
}

fn of_record(number: u64, view: &View, store: &Store, width: usize) -> Vec<Row> {
    let Some(entry) = store.get(number) else { return Vec::new() };
    let is_unfolded = view.is_unfolded(number);
    let mut rows: Vec<Row> = Vec::new();
    let mut start = 0;
    for line in entry.text.split('\n') {
        let end = start + line.len();
        let parts = if view.wraps { wrapped(line, width) } else { vec![cut(line, view.shift, width)] };
        for part in parts {
            let range = start + part.start..start + part.end;
            rows.push(Row { number, is_first: rows.is_empty(), range, more: 0 });
        }
        start = end + 1;
        if !is_unfolded || rows.len() >= MOST_ROWS {
            break;
        }
    }
    if let Some(last) = rows.last_mut()
        && !is_unfolded
    {
        last.more = Entry::lines(entry) - 1;
    }
    rows
}

/// A line in parts that fit.
fn wrapped(line: &str, width: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (index, character) in line.char_indices() {
        let size = cells(character);
        if used + size > width && index > start {
            parts.push(start..index);
            (start, used) = (index, 0);
            if parts.len() >= MOST_ROWS {
                return parts;
            }
        }
        used += size;
    }
    parts.push(start..line.len());
    parts
}

/// The part of a line that is seen when it is moved sideways.
fn cut(line: &str, shift: usize, width: usize) -> Range<usize> {
    let mut column = 0;
    let (mut start, mut end) = (line.len(), line.len());
    for (index, character) in line.char_indices() {
        if column >= shift {
            start = start.min(index);
        }
        column += cells(character);
        if column > shift + width {
            end = index.max(start);
            break;
        }
    }
    start.min(end)..end
}

fn cells(character: char) -> usize {
    if character == '\t' { 4 } else { character.width().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::level::Level;
    use proptest::prelude::*;

    #[test]
    fn lines_are_wrapped_and_cut_by_what_is_seen() {
        assert_eq!(wrapped("abcdef", 4), [0..4, 4..6]);
        assert_eq!(wrapped("日本語", 4), [0..6, 6..9]);
        assert_eq!(wrapped("", 4), vec![Range::default()]);
        assert_eq!(cut("abcdef", 2, 3), 2..5);
        assert_eq!(cut("ab", 8, 3), 2..2);
    }

    fn lines(rows: &[Row], store: &Store) -> Vec<String> {
        rows.iter().map(|row| format!("{} {}+{}", row.number, &store.get(row.number).unwrap().text[row.range.clone()], row.more)).collect()
    }

    #[test]
    fn the_newest_are_at_the_foot_and_records_fold() {
        let mut store = Store::new(1 << 20);
        for text in ["a", "b\nb2\nb3", "c"] {
            store.note(Level::Info, text.into());
        }
        let mut view = View::default();
        view.catch_up(&store);
        let shown = rows(&mut view, &store, 80, 2);
        assert_eq!(lines(&shown, &store), ["1 b+2", "2 c+0"]);
        view.unfolds_all = true;
        let shown = rows(&mut view, &store, 80, 3);
        assert_eq!(lines(&shown, &store), ["1 b2+0", "1 b3+0", "2 c+0"]);
    }

    proptest! {
        /// The record that is stayed at is in sight, and the screen is full if it can be.
        #[test]
        fn what_is_stayed_at_is_in_sight(sizes in prop::collection::vec(1_usize..5, 1..40), at in 0_usize..40, top in 0_u64..40, height in 1_usize..12, unfolds in any::<bool>()) {
            let mut store = Store::new(1 << 20);
            for size in &sizes {
                store.note(Level::Info, vec!["line"; *size].join("\n"));
            }
            let mut view = View::default();
            (view.unfolds_all, view.top) = (unfolds, top);
            view.catch_up(&store);
            let cursor = (at % sizes.len()) as u64;
            view.cursor = Some(cursor);
            let shown = rows(&mut view, &store, 10, height);
            prop_assert!(shown.len() <= height);
            let lines = if unfolds { sizes[at % sizes.len()] } else { 1 };
            prop_assert_eq!(shown.iter().filter(|row| row.number == cursor).count(), lines.min(height));
        }
    }
}
