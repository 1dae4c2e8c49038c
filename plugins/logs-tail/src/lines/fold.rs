//! Which lines are one record: the stack traces of Go, Rust, Java, Python and
//! Node with the line they belong to. Decided line by line, by how the
//! languages' runtimes print them. Pure.

use super::level::{self, Level};
use memchr::memmem::find;

/// A record with more lines than this ends, whatever follows.
pub(crate) const MOST_LINES: usize = 10_000;

/// Whose stack trace a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Go,
    Rust,
    Java,
    Python,
    Node,
}

/// Where in a trace the last line was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In no trace.
    #[default]
    Outside,
    /// At a line that a trace may follow.
    Head(Trace),
    /// Among its frames.
    Frames(Trace),
    /// Behind the line that ends a Python trace, which another may follow.
    PythonEnd,
    /// Behind the words that lead to the next Python trace.
    PythonNext,
}

/// Says of each line of a stream whether it goes on with the record before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fold {
    place: Place,
    lines: usize,
    has_frames: bool,
}

impl Fold {
    /// Whether `line` belongs to the record that has `record` as its text so far.
    pub(crate) fn continues(&mut self, record: &[u8], line: &[u8]) -> bool {
        let next = if self.lines == 0 || self.lines >= MOST_LINES { None } else { self.next(record, line) };
        match next {
            Some(place) => {
                self.has_frames |= matches!(place, Place::Frames(_));
                self.place = place;
                self.lines += 1;
                true
            }
            None => {
                self.place = head(line);
                self.has_frames = false;
                self.lines = 1;
                false
            }
        }
    }

    /// The trace in the record so far, if it has frames.
    pub(crate) fn trace(&self) -> Option<Trace> {
        match self.place {
            _ if !self.has_frames => None,
            Place::Frames(trace) | Place::Head(trace) => Some(trace),
            Place::PythonEnd | Place::PythonNext => Some(Trace::Python),
            Place::Outside => None,
        }
    }

    /// Where `line` is, if it goes on with the record.
    fn next(&self, record: &[u8], line: &[u8]) -> Option<Place> {
        let first = line.first().copied().unwrap_or(b'\n');
        match self.place {
            Place::Outside => from_outside(record, line, first),
            Place::Head(Trace::Rust) => (!is_structured(line)).then_some(Place::Frames(Trace::Rust)),
            Place::Head(Trace::Node) => self.in_node(line, first).or_else(|| from_outside(record, line, first)),
            Place::Head(trace) | Place::Frames(trace) => match trace {
                Trace::Go => is_go(line, first).then_some(Place::Frames(Trace::Go)),
                Trace::Rust => is_rust(line, first).then_some(Place::Frames(Trace::Rust)),
                Trace::Java => is_java(line, first).then_some(Place::Frames(Trace::Java)),
                Trace::Node => self.in_node(line, first),
                Trace::Python if is_space(first) => Some(Place::Frames(Trace::Python)),
                // The exception itself, which is not indented.
                Trace::Python if is_python_error(line) => Some(Place::PythonEnd),
                Trace::Python => None,
            },
            Place::PythonEnd if line.is_empty() => Some(Place::PythonEnd),
            Place::PythonEnd => (line.starts_with(b"During handling of the above exception")
                || line.starts_with(b"The above exception was the direct cause"))
            .then_some(Place::PythonNext),
            Place::PythonNext if line.is_empty() => Some(Place::PythonNext),
            Place::PythonNext => line.starts_with(b"Traceback (most recent call last)").then_some(Place::Frames(Trace::Python)),
        }
    }

    fn in_node(&self, line: &[u8], first: u8) -> Option<Place> {
        let goes_on = is_space(first)
            || line.is_empty()
            || line.starts_with(b"}")
            || line.starts_with(b"Node.js v")
            || line.starts_with(b"throw ")
            // Behind frames, it is the next error.
            || (!self.has_frames && is_node_error(line));
        goes_on.then_some(if is_space(first) && frame_of_at(line).is_some() {
            Place::Frames(Trace::Node)
        } else {
            Place::Head(Trace::Node)
        })
    }
}

/// What a line that starts a record starts.
fn head(line: &[u8]) -> Place {
    match line.first() {
        Some(b'p') if line.starts_with(b"panic: ") => Place::Head(Trace::Go),
        Some(b'f') if line.starts_with(b"fatal error: ") || line.starts_with(b"fatal: morestack") => Place::Head(Trace::Go),
        Some(b'g') if is_goroutine(line) => Place::Head(Trace::Go),
        Some(b'S') if line.starts_with(b"SIGQUIT: quit") || line.starts_with(b"SIGABRT: abort") => Place::Head(Trace::Go),
        Some(b't') if line.starts_with(b"thread '") && find(line, b"panicked at").is_some() => Place::Head(Trace::Rust),
        Some(b'T') if line.starts_with(b"Traceback (most recent call last)") => Place::Head(Trace::Python),
        Some(b'E') if line.starts_with(b"Exception in thread \"") => Place::Head(Trace::Java),
        // `/app/x.js:12`, as Node shows where an error was not caught.
        Some(b'/' | b'f' | b'n') if is_node_place(line) => Place::Head(Trace::Node),
        Some(first) if first.is_ascii_alphabetic() && is_java_error(line) => Place::Head(Trace::Java),
        _ => Place::Outside,
    }
}

/// What goes on with a line that is no trace: frames of Java or Node, or a trace
/// behind the line that a logger wrote about it.
fn from_outside(record: &[u8], line: &[u8], first: u8) -> Option<Place> {
    if is_structured(record) {
        return None;
    }
    match first {
        b' ' | b'\t' => frame_of_at(line).map(Place::Frames),
        b'C' if line.starts_with(b"Caused by: ") => Some(Place::Frames(Trace::Java)),
        b'T' if line.starts_with(b"Traceback (most recent call last)") && is_bad(record) => Some(Place::Head(Trace::Python)),
        b'g' if is_goroutine(line) && find(record, b"panic").is_some() => Some(Place::Head(Trace::Go)),
        _ if first.is_ascii_alphabetic() && is_java_error(line) && is_bad(record) => Some(Place::Head(Trace::Java)),
        _ => None,
    }
}

fn is_structured(line: &[u8]) -> bool {
    line.first() == Some(&b'{')
}

fn is_bad(record: &[u8]) -> bool {
    let first = &record[..memchr::memchr(b'\n', record).unwrap_or(record.len())];
    level::in_plain(first).is_some_and(|(level, _)| level >= Level::Warn)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `    at f (file:1:2)`, of Java or Node.
fn frame_of_at(line: &[u8]) -> Option<Trace> {
    let text = line.trim_ascii_start();
    if let Some(frame) = text.strip_prefix(b"at ") {
        let java: [&[u8]; 6] = [b".java:", b".kt:", b".scala:", b".groovy:", b"(Native Method)", b"(Unknown Source)"];
        let is_java = java.iter().any(|mark| find(frame, mark).is_some());
        let has_place = frame.ends_with(b")") || frame.last().is_some_and(u8::is_ascii_digit);
        return if is_java { Some(Trace::Java) } else { has_place.then_some(Trace::Node) };
    }
    (text.starts_with(b"... ") && (text.ends_with(b" more") || text.ends_with(b"common frames omitted"))).then_some(Trace::Java)
}

/// `java.lang.IllegalStateException: ...`: a class with its package.
fn is_java_error(line: &[u8]) -> bool {
    let class =
        &line[..line.iter().position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$'))).unwrap_or(line.len())];
    let Some(dot) = memchr::memrchr(b'.', class) else { return false };
    let name = &class[dot + 1..];
    dot > 0
        && name.first().is_some_and(u8::is_ascii_uppercase)
        && [&b"Exception"[..], b"Error", b"Throwable"].iter().any(|end| name.ends_with(end))
}

fn is_java(line: &[u8], first: u8) -> bool {
    (is_space(first) && (frame_of_at(line).is_some() || line.trim_ascii_start().starts_with(b"Suppressed: ")))
        || line.starts_with(b"Caused by: ")
        || (is_space(first) && line.trim_ascii_start().starts_with(b"Caused by: "))
}

/// `TypeError: ...`, `Uncaught Error: ...`, `Error [ERR_X]: ...`.
fn is_node_error(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"Uncaught ").unwrap_or(line);
    let length = line.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    line[..length].ends_with(b"Error") && (line[length..].starts_with(b":") || line[length..].starts_with(b" ["))
}

fn is_node_place(line: &[u8]) -> bool {
    (line[0] == b'/' || line.starts_with(b"file://") || line.starts_with(b"node:"))
        && memchr::memrchr(b':', line).is_some_and(|colon| colon + 1 < line.len() && line[colon + 1..].iter().all(u8::is_ascii_digit))
        && !line.contains(&b' ')
}

fn is_python_error(line: &[u8]) -> bool {
    let length = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_')).count();
    length > 0 && (length == line.len() || line[length] == b':')
}

fn is_goroutine(line: &[u8]) -> bool {
    line.starts_with(b"goroutine ") && line.ends_with(b":")
}

fn is_go(line: &[u8], first: u8) -> bool {
    match first {
        b'\n' | b'\t' => true,
        b'{' => false,
        b'g' if is_goroutine(line) => true,
        b'[' => line.starts_with(b"[signal ") || line.starts_with(b"[originating"),
        b'c' if line.starts_with(b"created by ") => true,
        b'e' if line.starts_with(b"exit status ") => true,
        b'.' => line.starts_with(b"...additional frames elided"),
        // A call (`main.(*T).run(0xc000012345, {0x1, 0x2})`), or a register.
        _ => is_go_call(line) || is_register(line),
    }
}

fn is_go_call(line: &[u8]) -> bool {
    let Some(open) = memchr::memchr(b'(', line) else { return false };
    let dotted = memchr::memchr(b'.', line).is_some_and(|dot| dot <= open || line[open..].starts_with(b"(*"));
    line.ends_with(b")") && dotted && !line[..open].contains(&b' ')
}

/// `rax    0x1`, as in the dump behind a fatal signal.
fn is_register(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count();
    (2..=6).contains(&name) && line[name..].trim_ascii_start().starts_with(b"0x") && line[name..].starts_with(b" ")
}

fn is_rust(line: &[u8], first: u8) -> bool {
    is_space(first) || line.starts_with(b"note: ") || line.starts_with(b"stack backtrace:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(text: &str) -> Vec<(Option<Trace>, String)> {
        let mut fold = Fold::default();
        let mut records: Vec<(Option<Trace>, String)> = Vec::new();
        for line in text.lines() {
            let so_far = records.last().map_or(String::new(), |(_, record)| record.clone());
            if fold.continues(so_far.as_bytes(), line.as_bytes()) {
                let last = records.last_mut().unwrap();
                last.1 = format!("{so_far}\n{line}");
                last.0 = fold.trace();
            } else {
                records.push((fold.trace(), line.to_owned()));
            }
        }
        records
    }

    /// Each trace is one record, and what is around it stays outside.
    #[test]
    fn traces_are_one_record() {
        let traces = [
            (
                Trace::Go,
                "panic: runtime error: index out of range [5] with length 3\n\tpanic: again\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4]\n\ngoroutine 1 [running]:\nmain.(*Server).handle(0xc000012345, {0x1, 0x2})\n\t/src/main.go:12 +0x1d\nmain.main()\n\t/src/main.go:5 +0x17\n\ngoroutine 7 [chan receive]:\nnet/http.(*conn).serve(0x1)\n\t/go/x.go:1 +0x1\ncreated by main.main in goroutine 1\n\t/src/main.go:4 +0x2\nexit status 2",
            ),
            (
                Trace::Go,
                "2026/01/02 03:04:05 http: panic serving 10.0.0.1:5: nil map\ngoroutine 9 [running]:\nnet/http.(*conn).serve.func1()\n\t/go/server.go:1 +0x1",
            ),
            (
                Trace::Rust,
                "thread 'main' panicked at src/main.rs:2:5:\nassertion `left == right` failed\n  left: 1\n right: 2\nstack backtrace:\n   0: rust_begin_unwind\n             at /rustc/lib.rs:1:2\n   1: app::main\nnote: run with `RUST_BACKTRACE=full`",
            ),
            (
                Trace::Java,
                "Exception in thread \"main\" java.lang.IllegalStateException: no\n\tat com.x.Y.z(Y.java:12)\n\tat com.x.Y.main(Native Method)\nCaused by: java.io.IOException: gone\n\tat a.b.c(D.java:1)\n\t... 2 more\n\tSuppressed: a.B: c\n\t\tat x.y(Z.kt:3)",
            ),
            (Trace::Java, "2026-01-02 03:04:05 ERROR [main] x - it failed\norg.app.BadException: no\n\tat com.x.Y.z(Y.java:12)"),
            (
                Trace::Python,
                "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    x = 1 / 0\n        ~~^~~\nZeroDivisionError: division by zero\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 3, in g\nKeyError: 'k'",
            ),
            (Trace::Python, "ERROR:root:it failed\nTraceback (most recent call last):\n  File \"a.py\", line 1\napp.errors.Bad: no"),
            (Trace::Node, "TypeError: x is not a function\n    at f (/app/a.js:1:2)\n    at async /app/b.js:3:4 {\n  code: 'X'\n}"),
            (
                Trace::Node,
                "/app/a.js:12\n  throw new Error('x')\n  ^\n\nError: x\n    at f (/app/a.js:12:9)\n    at node:internal/main:1:2\n\nNode.js v22.1.0",
            ),
        ];
        for (trace, text) in traces {
            let found = records(&format!("2026-01-02 INFO before\n{text}\nafter it\n{{\"a\":1}}"));
            let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(texts, ["2026-01-02 INFO before", text, "after it", "{\"a\":1}"], "{trace:?}");
            assert_eq!((found[0].0, found[2].0), (None, None));
            // The same again is another record.
            assert_eq!(records(&format!("{text}\n{text}")).len(), 2, "{text}");
            assert_eq!(found[1].0, Some(trace), "{text}");
        }
    }

    #[test]
    fn ordinary_lines_stay_alone() {
        let lines =
            "INFO a\n  indented\n\ttabbed\n{\"x\":1}\n\tat x.y(Z.java:1)\n\ndone\nat the end)\nError: alone\nSomething.Error is here";
        assert_eq!(records(lines).len(), lines.lines().count());
    }

    #[test]
    fn a_record_has_an_end() {
        let text = format!("panic: x\n{}", "\tline\n".repeat(MOST_LINES + 10));
        let found = records(&text.lines().take(MOST_LINES + 5).collect::<Vec<_>>().join("\n"));
        assert_eq!(found[0].1.lines().count(), MOST_LINES);
    }

    proptest! {
        #[test]
        fn no_line_is_a_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut fold = Fold::default();
            for line in &lines {
                fold.continues(b"ERROR panic", line);
            }
        }
    }
}
