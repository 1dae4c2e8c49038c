//! What of the store is on the screen, and what keys do to it. Pure.

use super::filter::Filter;
use super::store::{Entry, Store};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::{BTreeSet, VecDeque};

/// How far the text moves sideways at once.
const SHIFT: usize = 8;

/// What a key asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Quit,
    /// To the clipboard.
    Copy(String),
    /// To a file: all records that are shown.
    Save,
}

/// What takes the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Focus {
    #[default]
    Records,
    Filter,
    /// The list of containers, and the row in it.
    Sources(usize),
    Help,
}

/// What is shown of the store.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) focus: Focus,
    pub(crate) filter: Filter,
    /// The filter before it was edited.
    before: Filter,
    /// Containers that are not shown.
    pub(crate) hidden: BTreeSet<usize>,
    /// The numbers of the records that are shown, from the oldest.
    shown: VecDeque<u64>,
    /// Up to where the store was looked through.
    seen: u64,
    /// The record that is stayed at; none while the newest is followed.
    pub(crate) cursor: Option<u64>,
    /// The uppermost record on the screen, while one is stayed at.
    pub(crate) top: u64,
    /// Where the store ended when it was paused.
    paused_at: u64,
    unfolded: BTreeSet<u64>,
    pub(crate) unfolds_all: bool,
    pub(crate) wraps: bool,
    pub(crate) stamps: bool,
    pub(crate) shift: usize,
    /// What the last key did, where that can't be seen otherwise.
    pub(crate) message: Option<String>,
    /// Records that fit on a page, about.
    pub(crate) page: usize,
}

impl View {
    /// Takes in what is new in the store, and forgets what is gone from it.
    pub(crate) fn catch_up(&mut self, store: &Store) {
        while self.shown.front().is_some_and(|number| *number < store.first()) {
            self.shown.pop_front();
        }
        for number in self.seen.max(store.first())..store.end() {
            if store.get(number).is_some_and(|entry| self.wants(entry)) {
                self.shown.push_back(number);
            }
        }
        self.seen = store.end();
        if let Some(cursor) = self.cursor {
            self.cursor = self.nearest(cursor);
        }
        if !self.unfolded.is_empty() {
            self.unfolded = self.unfolded.split_off(&store.first());
        }
    }

    fn wants(&self, entry: &Entry) -> bool {
        match entry.source {
            // What is said about the logs is about what is shown, too.
            None => true,
            Some(source) => !self.hidden.contains(&source) && self.filter.accepts(&entry.text),
        }
    }

    /// Looks through all of the store again.
    fn choose(&mut self, store: &Store) {
        self.shown.clear();
        self.seen = 0;
        self.catch_up(store);
    }

    /// The numbers of the records that are shown, from the oldest.
    pub(crate) fn shown(&self) -> &VecDeque<u64> {
        &self.shown
    }

    /// How many records came since it was paused.
    pub(crate) fn news(&self, store: &Store) -> Option<u64> {
        self.cursor.map(|_| store.end() - self.paused_at.min(store.end()))
    }

    /// Whether all lines of a record are shown.
    pub(crate) fn is_unfolded(&self, number: u64) -> bool {
        self.unfolds_all != self.unfolded.contains(&number)
    }

    /// What a key does.
    pub(crate) fn key(&mut self, key: KeyEvent, store: &Store) -> Option<Effect> {
        self.message = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Effect::Quit);
        }
        match self.focus {
            Focus::Records => return self.records_key(key, store),
            Focus::Filter => self.filter_key(key, store),
            Focus::Sources(row) => self.sources_key(key, row, store),
            Focus::Help => self.focus = Focus::Records,
        }
        None
    }

    fn records_key(&mut self, key: KeyEvent, store: &Store) -> Option<Effect> {
        let page = self.page.max(2) - 1;
        match key.code {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('c' | 'y') => return self.current(store).map(|entry| Effect::Copy(entry.text.clone())),
            KeyCode::Char('s') => return Some(Effect::Save),
            KeyCode::Char('/') => {
                self.before = self.filter.clone();
                self.focus = Focus::Filter;
            }
            KeyCode::Esc if !self.filter.text().is_empty() => self.set_filter("", store),
            KeyCode::Char(' ') if self.cursor.is_some() => self.cursor = None,
            KeyCode::Char(' ') => self.stay(self.shown.back().copied(), store),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1, store),
            KeyCode::Down | KeyCode::Char('j') => self.step(1, store),
            KeyCode::PageUp | KeyCode::Char('b') => self.step(-page.cast_signed(), store),
            KeyCode::PageDown | KeyCode::Char('f') => self.step(page.cast_signed(), store),
            KeyCode::Home | KeyCode::Char('g') => self.stay(self.shown.front().copied(), store),
            KeyCode::End | KeyCode::Char('G') => self.cursor = None,
            KeyCode::Char('e') => self.error(true, store),
            KeyCode::Char('E') => self.error(false, store),
            KeyCode::Enter => self.fold(store),
            KeyCode::Char('z') => {
                self.unfolds_all = !self.unfolds_all;
                self.unfolded.clear();
            }
            KeyCode::Char('w') => {
                self.wraps = !self.wraps;
                self.shift = 0;
            }
            KeyCode::Char('t') => self.stamps = !self.stamps,
            KeyCode::Left => self.shift = self.shift.saturating_sub(SHIFT),
            KeyCode::Right if !self.wraps => self.shift += SHIFT,
            KeyCode::Char('p') => self.focus = Focus::Sources(0),
            KeyCode::Char('?' | 'h') => self.focus = Focus::Help,
            _ => {}
        }
        None
    }

    fn filter_key(&mut self, key: KeyEvent, store: &Store) {
        let mut text = self.filter.text().to_owned();
        match key.code {
            KeyCode::Enter => self.focus = Focus::Records,
            KeyCode::Esc => {
                self.focus = Focus::Records;
                self.filter = std::mem::take(&mut self.before);
                self.choose(store);
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => self.set_filter("", store),
            KeyCode::Char(character) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                text.push(character);
                self.set_filter(&text, store);
            }
            KeyCode::Backspace => match text.pop() {
                Some(_) => self.set_filter(&text, store),
                None => self.focus = Focus::Records,
            },
            _ => {}
        }
    }

    fn set_filter(&mut self, text: &str, store: &Store) {
        self.filter = Filter::new(text);
        self.choose(store);
    }

    fn sources_key(&mut self, key: KeyEvent, row: usize, store: &Store) {
        let count = store.origins().len();
        let last = count.saturating_sub(1);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.focus = Focus::Sources(row.min(last).saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.focus = Focus::Sources((row + 1).min(last)),
            KeyCode::Char(' ') | KeyCode::Enter if row < count => {
                if !self.hidden.remove(&row) {
                    self.hidden.insert(row);
                }
                self.choose(store);
            }
            KeyCode::Char('o') if row < count => {
                self.hidden = (0..count).filter(|other| *other != row).collect();
                self.choose(store);
            }
            KeyCode::Char('a') => {
                self.hidden.clear();
                self.choose(store);
            }
            KeyCode::Esc | KeyCode::Char('p' | 'q') => self.focus = Focus::Records,
            _ => {}
        }
    }

    /// The record that keys are about: the one that is stayed at, else the newest.
    fn current<'a>(&self, store: &'a Store) -> Option<&'a Entry> {
        store.get(self.cursor.or_else(|| self.shown.back().copied())?)
    }

    fn stay(&mut self, at: Option<u64>, store: &Store) {
        if self.cursor.is_none() {
            self.paused_at = store.end();
        }
        self.cursor = at;
    }

    fn step(&mut self, by: isize, store: &Store) {
        let Some(last) = self.shown.len().checked_sub(1) else { return };
        let Some(cursor) = self.cursor else {
            // Down from the newest is where it is already.
            if by < 0 {
                self.stay(self.shown.get(last.saturating_add_signed(by)).copied(), store);
            }
            return;
        };
        let at = self.shown.partition_point(|number| *number < cursor).saturating_add_signed(by).min(last);
        self.cursor = self.shown.get(at).copied();
    }

    /// To the next error below, or above.
    fn error(&mut self, is_forward: bool, store: &Store) {
        let is_error = |number: &&u64| store.get(**number).is_some_and(Entry::is_error);
        let from = self.cursor.unwrap_or(u64::MAX);
        let at = self.shown.partition_point(|number| *number < from);
        let found = if is_forward {
            self.shown.range(at..).find(|number| **number != from && is_error(number))
        } else {
            self.shown.range(..at).rev().find(is_error)
        };
        match found.copied() {
            Some(number) => self.stay(Some(number), store),
            None => self.message = Some(format!("no error {}", if is_forward { "below" } else { "above" })),
        }
    }

    fn fold(&mut self, store: &Store) {
        let Some(number) = self.cursor.or_else(|| self.shown.back().copied()) else { return };
        if !self.unfolded.remove(&number) {
            self.unfolded.insert(number);
        }
        // What is looked at should not run away.
        self.stay(Some(number), store);
    }

    /// The shown record with this number, or the next one, or the last.
    fn nearest(&self, number: u64) -> Option<u64> {
        let at = self.shown.partition_point(|other| *other < number);
        self.shown.get(at).or_else(|| self.shown.back()).copied()
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
