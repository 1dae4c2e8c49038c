use super::*;
use crate::lines::format::Format;
use crate::render::stamp::StampForm;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::sync::Arc;

/// Pod, container, message, and how much of it was cut.
type Sample = (&'static str, &'static str, &'static [u8], u64);

const SAMPLES: [Sample; 7] = [
    ("web-7d4b9c-x2x9p", "app", b"listening on :8080", 0),
    ("db-0", "proxy", b"caf\xc3\xa9 \xff \"quoted\"\tend\r", 0),
    ("db-0", "app", b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\xc2\x9b2J", 0),
    ("db-0", "app", b"long", 1234),
    ("db-0", "app", br#"{"level":"error","msg":"no"}"#, 0),
    ("db-0", "app", b"Error: x\n    at f (/a.js:1:2)", 0),
    ("db-0", "app", b"2026-01-02 WARN low", 0),
];

fn print(renderer: &mut Renderer, (pod, container, text, cut): (&str, &str, &[u8], u64), namespace: &str) -> Vec<u8> {
    let source = Arc::new(Source {
        namespace: namespace.into(),
        pod: pod.into(),
        container: container.into(),
        has_siblings: container != "app",
        ..Source::default()
    });
    let timestamp = "2026-01-02T03:04:05.67Z".parse().ok();
    let record = Record { source: &source, place: &Place::from(&*source), timestamp, text, cut, format: Format::sniff(text), trace: None };
    let mut output = Vec::new();
    renderer.record(&record, &mut output).unwrap();
    output
}

fn printed(look: Look) -> String {
    let mut renderer = Renderer::new(look);
    renderer.width = 16;
    let bytes: Vec<u8> = SAMPLES.iter().flat_map(|sample| print(&mut renderer, *sample, "shop")).collect();
    String::from_utf8_lossy(&bytes).escape_debug().to_string().replace("\\n", "\n").replace("\\\"", "\"")
}

fn stamp() -> Option<Stamp> {
    Some(Stamp { form: StampForm::Default, zone: TimeZone::UTC })
}

#[test]
fn on_a_terminal_without_colour() {
    insta::assert_snapshot!(printed(Look::default()));
}

#[test]
fn on_a_terminal_with_colour_and_timestamps() {
    insta::assert_snapshot!(printed(Look { colors: true, stamp: stamp(), highlight: vec![Regex::new("o+").unwrap()], ..Look::default() }));
}

#[test]
fn with_control_characters_as_they_are() {
    insta::assert_snapshot!(printed(Look { is_raw: true, ..Look::default() }));
}

#[test]
fn raw_with_timestamps() {
    insta::assert_snapshot!(printed(Look { form: Form::Raw, stamp: stamp(), ..Look::default() }));
}

#[test]
fn as_json() {
    insta::assert_snapshot!(printed(Look { form: Form::Json, ..Look::default() }));
}

#[test]
fn as_json_of_stern() {
    let text =
        [Form::ExtendedJson, Form::PrettyJson].map(|form| printed(Look { form, colors: form == Form::PrettyJson, ..Look::default() }));
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn raw_is_byte_for_byte() {
    let mut renderer = Renderer::new(Look { form: Form::Raw, ..Look::default() });
    assert_eq!(print(&mut renderer, ("db-0", "app", b"\xff\x1b[2J\r", 0), "shop"), b"\xff\x1b[2J\r\n");
}

#[test]
fn namespaces_are_shown_when_there_are_two() {
    let mut renderer = Renderer::new(Look::default());
    let first = print(&mut renderer, ("a", "app", b"x", 0), "shop");
    let second = print(&mut renderer, ("b", "app", b"y", 0), "bank");
    assert_eq!((first.as_slice(), second.as_slice()), (&b"a | x\n"[..], &b"bank b | y\n"[..]));
}

proptest! {
    #[test]
    fn nothing_but_colour_reaches_a_terminal(message in prop::collection::vec(prop_oneof![Just(0x1b_u8), Just(b'['), Just(b'm'), Just(0xc2_u8), any::<u8>()], 0..80), colors: bool) {
        let mut renderer = Renderer::new(Look { colors, highlight: vec![Regex::new("m.").unwrap()], ..Look::default() });
        let text = String::from_utf8(print(&mut renderer, ("db-0", "app", &message, 0), "shop")).unwrap();
        let plain = regex::Regex::new("\u{1b}\\[[0-9;:]*m").unwrap().replace_all(&text, if colors { "" } else { "\u{1b}" }).into_owned();
        prop_assert!(plain.chars().all(|character| !character.is_control() || character == '\t' || character == '\n'), "{text:?}");
        prop_assert_eq!(text.matches('\n').count(), 1 + message.iter().filter(|byte| **byte == b'\n').count());
    }
}
