use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// Gives one chunk a read; `None` is a pause.
struct Chunks(VecDeque<Option<Vec<u8>>>);

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.0.front() == Some(&None) {
            self.0.pop_front();
        }
        let Some(Some(chunk)) = self.0.front_mut() else { return Ok(0) };
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        chunk.drain(..count);
        if chunk.is_empty() {
            self.0.pop_front();
        }
        Ok(count)
    }
}

impl Input for Chunks {
    fn is_ready(&mut self, _: Duration) -> bool {
        self.0.front() != Some(&None)
    }
}

#[derive(Default)]
struct Texts(Vec<(Vec<u8>, u64)>);

impl Sink for Texts {
    fn record(&mut self, record: &Record<'_>) -> Result<()> {
        self.0.push((record.text.to_vec(), record.cut));
        Ok(())
    }

    fn separator(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Output for Texts {
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn read(joining: Joining, chunks: Vec<Option<Vec<u8>>>) -> Vec<(Vec<u8>, u64)> {
    let mut texts = Texts::default();
    run(
        &mut Chunks(chunks.into_iter().filter(|chunk| chunk.as_ref().is_none_or(|chunk| !chunk.is_empty())).collect()),
        joining,
        &mut Judge::default(),
        &mut texts,
    )
    .unwrap();
    texts.0
}

const JOINING: Joining = Joining { folds: true, recognises: true, max_line: 1000 };

fn texts(found: &[(Vec<u8>, u64)]) -> Vec<String> {
    found
        .iter()
        .map(|(text, cut)| format!("{}{}", String::from_utf8_lossy(text), if *cut > 0 { format!("+{cut}") } else { String::new() }))
        .collect()
}

#[test]
fn lines_and_traces_are_records() {
    let text = b"a\n\nError: x\n    at f (/a.js:1:2)\n{\"j\":1}\nlast";
    let found = read(JOINING, vec![Some(text.to_vec())]);
    assert_eq!(texts(&found), ["a", "", "Error: x\n    at f (/a.js:1:2)", "{\"j\":1}", "last"]);
    let found = read(Joining { folds: false, ..JOINING }, vec![Some(text.to_vec())]);
    assert_eq!(found.len(), 6);
}

#[test]
fn a_pause_ends_a_record() {
    let found = read(JOINING, vec![Some(b"Error: x\n".to_vec()), None, None, Some(b"    at f (/a.js:1:2)\n".to_vec())]);
    assert_eq!(found.len(), 2);
    // But not a line that is not yet whole.
    let found = read(JOINING, vec![Some(b"Err".to_vec()), None, None, Some(b"or\n".to_vec())]);
    assert_eq!(texts(&found), ["Error"]);
}

#[test]
fn a_very_long_line_takes_little_memory() {
    let mut chunks = vec![Some(b"before\n".to_vec())];
    chunks.extend((0..500).map(|_| Some(vec![b'x'; BLOCK])));
    chunks.push(Some(b"\nafter\n".to_vec()));
    for folds in [true, false] {
        let found = read(Joining { folds, ..JOINING }, chunks.clone());
        assert_eq!(found[1].0.len(), 1000);
        assert_eq!(found[1].1, (500 * BLOCK - 1000) as u64);
        assert_eq!((found[0].0.as_slice(), found[2].0.as_slice(), found.len()), (&b"before"[..], &b"after"[..], 3));
    }
}

proptest! {
    #[test]
    fn blocks_make_no_difference(
        lines in prop::collection::vec(prop_oneof!["[a-z ]{0,6}", Just("Error: x".to_owned()), Just("    at f (/a.js:1:2)".to_owned()), Just("{}".to_owned()), "x{30}"], 0..30),
        size in 1..40_usize,
        folds: bool,
    ) {
        let joining = Joining { folds, recognises: true, max_line: 25 };
        let text = lines.join("\n").into_bytes();
        let whole = read(joining, vec![Some(text.clone())]);
        prop_assert_eq!(read(joining, text.chunks(size).map(|chunk| Some(chunk.to_vec())).collect()), whole.clone());
        // Nothing but the ends of long lines is lost.
        let kept: usize = whole.iter().map(|(text, cut)| text.len() + usize::try_from(*cut).unwrap() + 1).sum();
        prop_assert_eq!(kept.saturating_sub(1), if text.ends_with(b"\n") { text.len() - 1 } else { text.len() });
    }
}
