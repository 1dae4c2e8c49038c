//! From addresses to functions. The files are those of this machine that have the same
//! build id, else the very ones that the process runs, brought here for it.

use super::functions::Functions;
use super::{Subject, cut, silent};
use crate::symbols;
use devloop_core::agent::tools::{CodeFile, FileAnswer};
use devloop_core::symbols::Symbols;
use devloop_core::{CommandError, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long nothing may come of a file.
const PATIENCE: Duration = Duration::from_secs(30);
/// Larger files are not brought here for their names.
const LARGEST: usize = 1 << 30;

/// A function, and where in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Frame {
    /// Its name as in the sources.
    pub(super) function: String,
    pub(super) file: Option<String>,
    /// 0 where it is not known.
    pub(super) line: u32,
}

/// The functions of addresses; for each address the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    frames: BTreeMap<u64, Vec<Frame>>,
}

impl Names {
    /// Those at an address, at least one.
    pub(super) fn at(&self, address: u64) -> Vec<Frame> {
        self.frames.get(&address).cloned().unwrap_or_else(|| vec![unknown("[unknown]".to_owned())])
    }

    #[cfg(test)]
    pub(super) fn of(frames: BTreeMap<u64, Vec<Frame>>) -> Self {
        Self { frames }
    }
}

/// Finds the functions at addresses. A file that can't be had is said, and its
/// addresses are named by it.
pub(super) async fn names(subject: &Subject<'_>, files: &[CodeFile], addresses: impl Iterator<Item = u64>) -> Result<Names> {
    let mut of_file: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for address in addresses {
        if let Some(index) = files.iter().position(|file| (file.start..file.end).contains(&address)) {
            of_file.entry(index).or_default().push(address);
        }
    }
    let mut names = Names::default();
    for (index, addresses) in of_file {
        let file = &files[index];
        let content = match content(subject, file).await {
            Ok(content) => content,
            Err(error) => {
                subject.context.ui.warn(format!("functions of {} have no names: {error}", file.path.as_path().display()));
                Vec::new()
            }
        };
        let file = file.clone();
        let found = tokio::task::spawn_blocking(move || frames(&content, &file, addresses)).await;
        names.frames.extend(found.map_err(|error| CommandError::new("could not find the names of functions").caused_by(error))?);
    }
    Ok(names)
}

fn frames(content: &[u8], file: &CodeFile, addresses: Vec<u64>) -> Vec<(u64, Vec<Frame>)> {
    let functions = Functions::read(content);
    let name = file.path.as_path().file_name().map_or_else(|| "?".into(), |name| name.to_string_lossy().into_owned());
    let one = |address: u64| {
        let mut frames = functions.at(address.wrapping_sub(file.bias));
        if frames.is_empty() {
            frames.push(unknown(format!("[{}]", name.trim_matches(['[', ']']))));
        }
        (address, frames)
    };
    addresses.into_iter().map(one).collect()
}

fn unknown(function: String) -> Frame {
    Frame { function, ..Frame::default() }
}

async fn content(subject: &Subject<'_>, file: &CodeFile) -> Result<Vec<u8>> {
    let is_program = file.path.0 == subject.candidate.executable.0;
    if let (Some(named), true) = (&subject.request.symbols, is_program) {
        return Ok(symbols::read(named, file.build_id.as_deref()).await?.content);
    }
    let kept = file.build_id.as_deref().and_then(|id| Symbols::from_env().ok()?.find(id));
    if let Some(kept) = kept {
        return tokio::fs::read(&kept)
            .await
            .map_err(|error| CommandError::new(format!("could not read {}", kept.display())).caused_by(error));
    }
    fetch(subject, file).await
}

async fn fetch(subject: &Subject<'_>, file: &CodeFile) -> Result<Vec<u8>> {
    let what = format!("could not read {} of the process", file.path.as_path().display());
    // The kernel's own has no file; its functions are known by its name.
    if !file.path.0.starts_with(b"/") {
        return Ok(Vec::new());
    }
    let [pid, start] = subject.words();
    let address = file.start.to_string();
    let step = subject.context.ui.step(format!("reading {} for its functions", file.path.as_path().display()));
    // Its input stays open until it has ended.
    let (_stdin, mut messages) = subject.place.runner.start(&["code-file", &pid, &start, &address]).await?.split();
    let mut content = Vec::new();
    loop {
        let answer = tokio::time::timeout(PATIENCE, messages.next::<FileAnswer>()).await.map_err(|_| silent(&what, PATIENCE))??;
        match answer {
            Some(FileAnswer::Piece(piece)) => {
                content.extend(piece.into_bytes().ok_or_else(|| CommandError::new(&what).caused_by("what came is damaged"))?);
                if content.len() > LARGEST {
                    return Err(CommandError::new(what).caused_by("it is larger than 1 GiB").with_hint("name the program with --symbols"));
                }
            }
            Some(FileAnswer::Done) => break,
            Some(FileAnswer::Failed(refusal)) => return Err(subject.explain(&what, refusal)),
            None => return Err(cut(&what, messages.complaint().await)),
        }
    }
    step.clear();
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_name_is_named_by_its_file() {
        let file = |path: &str| CodeFile { start: 0, end: 10, offset: 0, bias: 0, path: path.into(), build_id: None };
        assert_eq!(frames(b"", &file("/usr/lib/libx.so.1"), vec![7]), [(7, vec![unknown("[libx.so.1]".to_owned())])]);
        assert_eq!(frames(b"", &file("[vdso]"), vec![7])[0].1[0].function, "[vdso]");
        assert_eq!(Names::default().at(5)[0].function, "[unknown]");
    }
}
