use super::*;
use crate::lines::expression::Expression;
use crate::lines::filter::Filter;
use crate::lines::group::Groups;
use crate::lines::judge::Around;
use regex::bytes::Regex;

#[derive(Default)]
struct Texts(Vec<String>);

impl Sink for Texts {
    fn record(&mut self, record: &Record<'_>) -> Result<()> {
        let cut = if record.cut > 0 { format!("+{}", record.cut) } else { String::new() };
        self.0.push(format!("{}:{}{cut}", record.place.pod, String::from_utf8_lossy(record.text)));
        Ok(())
    }

    fn separator(&mut self) -> Result<()> {
        self.0.push("--".into());
        Ok(())
    }
}

fn source(pod: &str) -> Arc<Source> {
    Arc::new(Source { namespace: "shop".into(), pod: pod.into(), container: "app".into(), ..Source::default() })
}

fn line(source: &Arc<Source>, second: i64, text: &str) -> LogLine {
    LogLine { source: Arc::clone(source), timestamp: Timestamp::from_second(second).unwrap(), message: text.into(), cut: 0 }
}

const JOINING: Joining = Joining { folds: true, recognises: true, max_line: 100 };

fn through(joining: Joining, judge: &mut Judge, lines: &[(&str, &str)]) -> Vec<String> {
    let (mut assembler, mut texts, now) = (Assembler::new(joining), Texts::default(), Instant::now());
    let sources: HashMap<&str, Arc<Source>> = lines.iter().map(|(pod, _)| (*pod, source(pod))).collect();
    for (second, (pod, text)) in lines.iter().enumerate() {
        assembler.line(line(&sources[pod], second as i64, text), now, judge, &mut texts).unwrap();
    }
    assembler.release(None, judge, &mut texts).unwrap();
    assert_eq!(assembler.next_due(), None);
    texts.0
}

fn including(pattern: &str) -> Filter {
    Filter { include: vec![Regex::new(pattern).unwrap()], ..Filter::default() }
}

#[test]
fn traces_of_two_pods_are_joined_although_their_lines_alternate() {
    let lines =
        [("a", "panic: x"), ("b", "Error: y"), ("a", ""), ("b", "    at f (/a.js:1:2)"), ("a", "goroutine 1 [running]:"), ("b", "done")];
    let found = through(JOINING, &mut Judge::default(), &lines);
    assert_eq!(found, ["b:Error: y\n    at f (/a.js:1:2)", "a:panic: x\n\ngoroutine 1 [running]:", "b:done"]);
    // A word of a frame brings the whole trace.
    let mut judge = Judge::new(including("goroutine"), Around::default(), None, None);
    assert_eq!(through(JOINING, &mut judge, &lines), ["a:panic: x\n\ngoroutine 1 [running]:"]);
}

#[test]
fn a_line_is_held_no_longer_than_a_moment() {
    let (mut assembler, mut judge, mut texts) = (Assembler::new(JOINING), Judge::default(), Texts::default());
    let (now, a, b) = (Instant::now(), source("a"), source("b"));
    assembler.line(line(&a, 0, "words"), now, &mut judge, &mut texts).unwrap();
    assembler.line(line(&b, 1, "{\"json\":1}"), now, &mut judge, &mut texts).unwrap();
    assert_eq!(texts.0, ["b:{\"json\":1}"]);
    assert_eq!(assembler.next_due(), Some(now + PATIENCE));
    assembler.release(Some(now + PATIENCE / 2), &mut judge, &mut texts).unwrap();
    assert_eq!(texts.0.len(), 1);
    assembler.release(Some(now + PATIENCE), &mut judge, &mut texts).unwrap();
    assert_eq!(texts.0.len(), 2);
    // Nor longer than its container is there.
    assembler.line(line(&a, 2, "last words"), now, &mut judge, &mut texts).unwrap();
    assembler.close(&a, &mut judge, &mut texts).unwrap();
    assert_eq!(texts.0.last().map(String::as_str), Some("a:last words"));
    assert!(assembler.streams.len() == 1 && Arc::strong_count(&a) == 1);
}

#[test]
fn records_around_are_those_of_the_same_container() {
    let mut judge = Judge::new(including("x"), Around { before: 1, after: 1 }, None, None);
    let lines =
        [("a", "1"), ("a", "2"), ("b", "3"), ("a", "x4"), ("b", "5"), ("a", "6"), ("a", "7"), ("a", "8"), ("a", "x9"), ("a", "x10")];
    let found = through(Joining { folds: false, ..JOINING }, &mut judge, &lines);
    assert_eq!(found, ["a:2", "a:x4", "a:6", "--", "a:8", "a:x9", "a:x10"]);
}

#[test]
fn expressions_see_the_fields_and_long_lines_are_cut() {
    let filter = Filter { expression: Some(Expression::parse("status >= 500").unwrap()), ..Filter::default() };
    let mut judge = Judge::new(filter, Around::default(), None, None);
    assert_eq!(through(JOINING, &mut judge, &[("a", r#"{"status":200}"#), ("a", r#"{"status":503}"#)]), [r#"a:{"status":503}"#]);
    let long = format!("{}é tail", "x".repeat(98));
    let found = through(JOINING, &mut Judge::default(), &[("a", &long)]);
    assert_eq!(found, [format!("a:{}é+5", "x".repeat(98))]);
    let found = through(Joining { max_line: 99, ..JOINING }, &mut Judge::default(), &[("a", &long)]);
    assert_eq!(found, [format!("a:{}+7", "x".repeat(98))]);
}

#[test]
fn equal_traces_are_counted_and_nothing_else_is_said() {
    let mut judge = Judge::new(Filter::default(), Around::default(), Some(Groups::new()), None);
    let trace = [("a", "panic: x 1"), ("a", "goroutine 1 [running]:"), ("a", "main.f(0x1)"), ("a", "\t/m.go:1 +0x1"), ("a", "started 5")];
    let again = [("b", "panic: x 22"), ("b", "goroutine 9 [running]:"), ("b", "main.f(0x7)"), ("b", "\t/m.go:1 +0x9")];
    assert!(through(JOINING, &mut judge, &[&trace[..], &again[..]].concat()).is_empty());
    let groups = judge.groups.unwrap();
    assert_eq!(groups.sorted().iter().map(|group| group.count).collect::<Vec<_>>(), [2]);
}
