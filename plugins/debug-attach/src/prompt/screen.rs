//! What the user sees.

use serde_json::Value;
use std::path::Path;

pub(super) const PROMPT: &str = "(debug) ";
pub(super) const RUNS: &str = "The process runs. Ctrl-C halts it.";
pub(super) const HELP: &str = "\
b [FILE:LINE[, CONDITION]]  set a breakpoint, or show all   cl [NUMBER]  remove it, or all
c  run until a breakpoint   n  next line   s  into the call   r  until it returns
w  where it is   u, d  older, newer frame   l  the source around   p EXPRESSION  its value
Ctrl-C  halt it   q  leave, and let it run   All else is evaluated in the frame.";
/// Lines that are listed before and after the one it is at.
const AROUND: u64 = 5;

/// A call that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) file: String,
    line: u64,
    function: String,
}

/// Those of an answer to `stackTrace`.
pub(super) fn frames(body: &Value) -> Vec<Frame> {
    let frame = |frame: &Value| Frame {
        id: frame["id"].as_u64().unwrap_or_default(),
        file: frame["source"]["path"].as_str().unwrap_or_default().to_owned(),
        line: frame["line"].as_u64().unwrap_or_default(),
        function: frame["name"].as_str().unwrap_or("?").to_owned(),
    };
    body["stackFrames"].as_array().into_iter().flatten().map(frame).collect()
}

/// The oldest first, as pdb has it.
pub(super) fn stack(frames: &[Frame], selected: usize) -> String {
    let line = |(index, frame): (usize, &Frame)| format!("{} {}", if index == selected { '>' } else { ' ' }, frame.place());
    frames.iter().enumerate().rev().map(line).collect::<Vec<_>>().join("\n")
}

impl Frame {
    fn place(&self) -> String {
        format!("{}({}) {}", self.file, self.line, self.function)
    }

    /// Where it is, with the line's text where it is here.
    pub(super) fn shown(&self) -> String {
        let text = std::fs::read_to_string(Path::new(&self.file)).unwrap_or_default();
        let line = usize::try_from(self.line.saturating_sub(1)).ok().and_then(|index| text.lines().nth(index));
        let line = line.map(|line| format!("\n-> {}", line.trim())).unwrap_or_default();
        format!("> {}{line}", self.place())
    }

    /// The source around it; `points` are the lines with breakpoints.
    pub(super) fn listing(&self, points: &[u64]) -> Result<String, String> {
        let text = std::fs::read_to_string(Path::new(&self.file)).map_err(|error| format!("{}: {error}", self.file))?;
        let (first, last) = (self.line.saturating_sub(AROUND).max(1), self.line + AROUND);
        let lines = (1_u64..).zip(text.lines()).filter(|(number, _)| (first..=last).contains(number));
        let line = |(number, text): (u64, &str)| {
            let mark = if points.contains(&number) { 'B' } else { ' ' };
            let here = if number == self.line { "->" } else { "" };
            format!("{number:>4} {mark}{here:<2} {text}").trim_end().to_owned()
        };
        Ok(lines.map(line).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn frames_are_shown_as_pdb_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.py").display().to_string();
        std::fs::write(&path, "def a():\n    b()\n").unwrap();
        let frame = |id: u64, line: u64, name: &str| json!({"id": id, "line": line, "name": name, "source": {"path": path}});
        let frames = frames(&json!({"stackFrames": [frame(7, 2, "a"), frame(8, 9, "<module>")]}));
        let text = [frames[0].shown(), stack(&frames, 0), frames[0].listing(&[1]).unwrap()].join("\n\n");
        insta::assert_snapshot!(text.replace(&path, "/a.py"), @"
        > /a.py(2) a
        -> b()

          /a.py(9) <module>
        > /a.py(2) a

           1 B   def a():
           2  ->     b()
        ");
        assert_eq!(frames[1].shown(), format!("> {path}(9) <module>"));
        let gone = Frame { file: "/nowhere.py".to_owned(), ..frames[0].clone() };
        assert!(gone.listing(&[]).unwrap_err().contains("No such file"));
    }
}
