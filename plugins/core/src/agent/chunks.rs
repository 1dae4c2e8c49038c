//! What a file is made of: pieces whose borders depend on the content around
//! them, so that an insertion moves the borders behind it along and most pieces
//! of two versions are the same.
//!
//! A version that is compared with an earlier one need not be cut by content
//! again where they agree: after a piece that both have, the next one of the
//! earlier version is tried first, which costs no more than its hash.

use super::ProcessId;
use fastcdc::v2020::FastCDC;
use std::collections::HashMap;

/// Bytes of a piece: at least, about, and at most.
const SMALLEST: usize = 8 * 1024;
const USUAL: usize = 32 * 1024;
const LARGEST: usize = 64 * 1024;
/// Pieces of all files that are remembered: about two gigabytes of files, in 3 MB.
const MOST_REMEMBERED: usize = 1 << 16;

/// The pieces of a file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks(Vec<Chunk>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    length: usize,
    hash: blake3::Hash,
}

/// A piece that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) length: usize,
    /// Where the earlier version has the same bytes.
    pub(super) found: Option<u64>,
}

/// Cuts one version of a file into pieces.
#[derive(Debug, Default)]
pub(super) struct Chunker {
    base: Vec<(u64, Chunk)>,
    index: HashMap<blake3::Hash, usize>,
    /// The piece of the base that is expected next.
    expected: usize,
    made: Vec<Chunk>,
}

impl Chunker {
    pub(super) fn new(base: Option<Chunks>) -> Self {
        let mut offset = 0;
        let mut placed = Vec::new();
        let mut index = HashMap::new();
        for chunk in base.unwrap_or_default().0 {
            index.entry(chunk.hash).or_insert(placed.len());
            placed.push((offset, chunk));
            offset += chunk.length as u64;
        }
        Self { base: placed, index, expected: 0, made: Vec::new() }
    }

    /// Cuts the next piece off the front of `window`; `None` when that takes
    /// more of the file, or `is_end` and nothing is left.
    pub(super) fn next(&mut self, window: &[u8], is_end: bool) -> Option<Cut> {
        if window.is_empty() || (window.len() < LARGEST && !is_end) {
            return None;
        }
        if let Some((offset, chunk)) = self.base.get(self.expected).copied()
            && let Some(bytes) = window.get(..chunk.length)
            && blake3::hash(bytes) == chunk.hash
        {
            self.expected += 1;
            self.made.push(chunk);
            return Some(Cut { length: chunk.length, found: Some(offset) });
        }
        let length = border(window);
        let chunk = Chunk { length, hash: blake3::hash(&window[..length]) };
        self.made.push(chunk);
        let found = self.index.get(&chunk.hash).copied();
        if let Some(found) = found {
            self.expected = found + 1;
        } else if self.base.get(self.expected).is_some_and(|(_, expected)| expected.length == length) {
            // Changed in place, it seems: what follows may be as before.
            self.expected += 1;
        }
        Some(Cut { length, found: found.map(|found| self.base[found].0) })
    }

    /// All pieces that were cut.
    pub(super) fn finish(self) -> Chunks {
        Chunks(self.made)
    }
}

/// Where the first piece of `window` ends: FastCDC (Xia et al., 2020), whose
/// borders depend on the 64 bytes before them.
fn border(window: &[u8]) -> usize {
    FastCDC::new(window, SMALLEST, USUAL, LARGEST).cut(0, window.len()).1
}

/// Which file of which container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    process: ProcessId,
    path: String,
}

impl Key {
    pub(super) fn new(process: ProcessId, path: &str) -> Self {
        Self { process, path: path.to_owned() }
    }
}

/// The pieces of what was sent, within a bound.
#[derive(Debug, Default)]
pub(super) struct Cache {
    files: HashMap<Key, Sent>,
    pieces: usize,
    clock: u64,
}

#[derive(Debug)]
struct Sent {
    hash: blake3::Hash,
    chunks: Chunks,
    time: u64,
}

impl Cache {
    /// What was sent last; it is forgotten by that, until it is known to be
    /// there again.
    pub(super) fn take(&mut self, key: &Key) -> Option<(blake3::Hash, Chunks)> {
        let Sent { hash, chunks, .. } = self.files.remove(key)?;
        self.pieces -= chunks.0.len();
        Some((hash, chunks))
    }

    /// Takes note of what is there now, if it is large enough to have pieces.
    pub(super) fn remember(&mut self, key: Key, hash: blake3::Hash, chunks: Option<Chunks>) {
        drop(self.take(&key));
        let Some(chunks) = chunks else { return };
        self.pieces += chunks.0.len();
        self.clock += 1;
        self.files.insert(key, Sent { hash, chunks, time: self.clock });
        while self.pieces > MOST_REMEMBERED {
            let oldest = self.files.iter().min_by_key(|(_, sent)| sent.time).map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) => drop(self.take(&oldest)),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Cuts a file as it is read in windows; what is new and the pieces.
    fn cut(file: &[u8], base: Option<(&[u8], Chunks)>) -> (usize, Chunks) {
        let old = base.as_ref().map_or(&[][..], |(old, _)| *old);
        let mut chunker = Chunker::new(base.map(|(_, chunks)| chunks));
        let (mut at, mut filled, mut new) = (0, 0, 0);
        while at < file.len() {
            filled = (filled + 100_000).min(file.len());
            while let Some(Cut { length, found }) = chunker.next(&file[at..filled], filled == file.len()) {
                assert!((1..=LARGEST).contains(&length));
                match found {
                    Some(offset) => assert!(old[offset as usize..][..length] == file[at..at + length]),
                    None => new += length,
                }
                at += length;
            }
        }
        (new, chunker.finish())
    }

    #[test]
    fn of_a_small_change_little_is_new() {
        let old = noise(4 << 20);
        let (all, chunks) = cut(&old, None);
        assert_eq!(all, old.len());
        assert!((64..512).contains(&chunks.0.len()), "{}", chunks.0.len());
        assert_eq!(cut(&old, Some((&old, chunks.clone()))), (0, chunks.clone()));
        let mut in_place = old.clone();
        in_place[2_000_000..2_001_024].fill(7);
        let inserted = [&old[..1_000_000], b"inserted", &old[1_000_000..]].concat();
        let removed = [&old[..1_000_000], &old[1_500_000..]].concat();
        let moved = [&old[2 << 20..], &old[..2 << 20]].concat();
        for new in [in_place, inserted, removed, moved] {
            let (sent, chunks) = cut(&new, Some((&old, chunks.clone())));
            assert!(sent <= 4 * LARGEST, "{sent}");
            assert_eq!(chunks.0.iter().map(|chunk| chunk.length).sum::<usize>(), new.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        // What is said to be found is what the new version has there: `cut` asserts it.
        #[test]
        fn any_edits_are_told_rightly(edits in vec((0_usize..300_000, 0_usize..70_000, vec(any::<u8>(), 0..40)), 0..6)) {
            let old = noise(300_000);
            let mut new = old.clone();
            for (at, removed, inserted) in edits {
                let at = at.min(new.len());
                let end = (at + removed).min(new.len());
                new.splice(at..end, inserted);
            }
            let (_, chunks) = cut(&old, None);
            let (sent, _) = cut(&new, Some((&old, chunks)));
            prop_assert!(sent <= new.len());
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let key = |number: u32| Key::new(ProcessId { pid: number, start_time: 1 }, "/f");
        let chunk = Chunk { length: 1, hash: blake3::hash(b"") };
        let mut cache = Cache::default();
        for number in 0..10 {
            cache.remember(key(number), chunk.hash, Some(Chunks(vec![chunk; MOST_REMEMBERED / 4])));
        }
        assert_eq!(cache.pieces, MOST_REMEMBERED);
        assert!(cache.take(&key(0)).is_none() && cache.take(&key(9)).is_some());
        assert!(cache.take(&key(9)).is_none());
        cache.remember(key(8), chunk.hash, None);
        assert_eq!(cache.pieces, MOST_REMEMBERED / 2);
    }
}
