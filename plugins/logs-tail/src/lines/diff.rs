//! Lines of this run that the run before did not have. Pure.

use super::group::Normaliser;
use devloop_core::logs::Source;
use std::collections::{HashMap, HashSet};

/// So many different lines of one container are remembered.
const MOST: usize = 1_000_000;

/// What containers said before they were last restarted, numbers aside.
#[derive(Debug)]
pub(crate) struct Before {
    normaliser: Normaliser,
    lines: HashMap<Source, HashSet<u64>>,
}

impl Before {
    pub(crate) fn new() -> Self {
        Self { normaliser: Normaliser::new(), lines: HashMap::new() }
    }

    /// Remembers a line of the run before.
    pub(crate) fn learn(&mut self, source: &Source, line: &[u8]) {
        let key = self.key(line);
        if let Some(lines) = self.lines.get_mut(source) {
            if lines.len() < MOST {
                lines.insert(key);
            }
        } else {
            self.lines.insert(source.clone(), HashSet::from([key]));
        }
    }

    /// Whether the run before had no such line. All is new where there was none.
    pub(crate) fn is_new(&self, source: &Source, line: &[u8]) -> bool {
        self.lines.get(source).is_none_or(|lines| !lines.contains(&self.key(line)))
    }

    fn key(&self, line: &[u8]) -> u64 {
        let hash = blake3::hash(&self.normaliser.line(line));
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_said_before_is_new() {
        let source = |pod: &str| Source {
            namespace: "shop".into(),
            pod: pod.into(),
            container: "app".into(),
            has_siblings: false,
            ..Source::default()
        };
        let mut before = Before::new();
        before.learn(&source("a"), b"12:00:01 listening on 8080");
        assert!(!before.is_new(&source("a"), b"12:34:56 listening on 8080"));
        assert!(before.is_new(&source("a"), b"12:34:56 can't listen on 8080"));
        assert!(before.is_new(&source("b"), b"12:00:01 listening on 8080"));
    }
}
