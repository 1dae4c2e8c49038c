//! Breakpoints and how they are named: `FILE:LINE`, or `LINE` of the file that is
//! looked at, with a condition after a comma. Pure, but for whether a file is there.

use serde_json::{Value, json};
use std::path::Path;

/// In the order in which they were set; a number is never used again.
#[derive(Debug, Default)]
pub(super) struct Breakpoints {
    all: Vec<Breakpoint>,
    last: usize,
}

#[derive(Debug)]
struct Breakpoint {
    number: usize,
    file: String,
    line: u64,
    condition: Option<String>,
}

impl Breakpoints {
    /// Answers the file and the breakpoint's number.
    pub(super) fn add(&mut self, place: &str, folder: &Path, current: Option<&str>) -> Result<(String, usize), String> {
        let (place, condition) = match place.split_once(',') {
            Some((place, condition)) => (place.trim(), Some(condition.trim().to_owned()).filter(|condition| !condition.is_empty())),
            None => (place, None),
        };
        let (file, line) = place.rsplit_once(':').map_or((None, place), |(file, line)| (Some(file), line));
        let line: u64 = line
            .trim()
            .parse()
            .ok()
            .filter(|line| *line > 0)
            .ok_or_else(|| format!("{place} is no place: FILE:LINE, or LINE of this file"))?;
        let file = match (file, current) {
            (Some(file), _) => {
                let path = folder.join(file);
                path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?.display().to_string()
            }
            (None, Some(current)) => current.to_owned(),
            (None, None) => return Err("say which file: FILE:LINE".to_owned()),
        };
        self.last += 1;
        self.all.push(Breakpoint { number: self.last, file: file.clone(), line, condition });
        Ok((file, self.last))
    }

    /// Answers whose files have fewer of them now.
    pub(super) fn remove(&mut self, number: Option<usize>) -> Result<Vec<String>, String> {
        let is_meant = |breakpoint: &Breakpoint| number.is_none_or(|number| breakpoint.number == number);
        let mut files: Vec<String> = self.all.iter().filter(|one| is_meant(one)).map(|one| one.file.clone()).collect();
        if let (true, Some(number)) = (files.is_empty(), number) {
            return Err(format!("there is no breakpoint {number}"));
        }
        self.all.retain(|one| !is_meant(one));
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// Those of a file, for the adapter.
    pub(super) fn of(&self, file: &str) -> Vec<Value> {
        let point = |one: &Breakpoint| match &one.condition {
            Some(condition) => json!({"line": one.line, "condition": condition}),
            None => json!({"line": one.line}),
        };
        self.all.iter().filter(|one| one.file == file).map(point).collect()
    }

    pub(super) fn lines(&self, file: &str) -> Vec<u64> {
        self.all.iter().filter(|one| one.file == file).map(|one| one.line).collect()
    }

    /// Takes what the adapter answers, one for each of the file's; tells of one of them.
    pub(super) fn set(&mut self, file: &str, number: usize, answers: &[Value]) -> String {
        let mut told = String::new();
        for (one, answer) in self.all.iter_mut().filter(|one| one.file == file).zip(answers) {
            // Where there is no code it may be a later line.
            one.line = answer["line"].as_u64().unwrap_or(one.line);
            if one.number == number {
                told = format!("Breakpoint {number} at {file}:{}", one.line);
                if answer["verified"] != true {
                    let why = answer["message"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
                    told.push_str(&format!(", which is not loaded yet{why}"));
                }
            }
        }
        told
    }

    pub(super) fn shown(&self) -> String {
        let one = |one: &Breakpoint| {
            let condition = one.condition.as_ref().map(|condition| format!(", if {condition}")).unwrap_or_default();
            format!("{}  {}:{}{condition}", one.number, one.file, one.line)
        };
        if self.all.is_empty() { "There are no breakpoints.".to_owned() } else { self.all.iter().map(one).collect::<Vec<_>>().join("\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let path = root.join("a.py").display().to_string();
        std::fs::write(&path, "x\n").unwrap();
        let mut points = Breakpoints::default();
        assert_eq!(points.add("a.py:3, n > 2", &root, None), Ok((path.clone(), 1)));
        assert_eq!(points.add("5", &root, Some(&path)), Ok((path.clone(), 2)));
        for (wrong, reason) in [("5", "say which file"), ("b.py:1", "No such file"), ("a.py:x", "is no place"), ("a.py:0", "is no place")] {
            assert!(points.add(wrong, &root, None).unwrap_err().contains(reason), "{wrong}");
        }
        assert_eq!(points.of(&path), [json!({"line": 3, "condition": "n > 2"}), json!({"line": 5})]);
        let answers = [json!({"line": 3, "verified": true}), json!({"line": 7, "verified": false, "message": "no code"})];
        assert_eq!(points.set(&path, 2, &answers), format!("Breakpoint 2 at {path}:7, which is not loaded yet (no code)"));
        assert_eq!(points.shown(), format!("1  {path}:3, if n > 2\n2  {path}:7"));
        assert_eq!(points.remove(Some(9)), Err("there is no breakpoint 9".to_owned()));
        assert_eq!(points.remove(Some(1)), Ok(vec![path.clone()]));
        assert_eq!((points.remove(None), points.remove(None)), (Ok(vec![path]), Ok(Vec::new())));
        assert_eq!(points.shown(), "There are no breakpoints.");
    }
}
