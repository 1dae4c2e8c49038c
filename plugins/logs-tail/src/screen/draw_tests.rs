//! The screen, as text.

use super::*;
use crate::lines::format::Format;
use crate::lines::level::Level;
use crate::lines::place::Place;
use crate::render::stamp::StampForm;
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use std::sync::Arc;

fn looks() -> Looks {
    Looks { palette: Palette::default(), stamp: Stamp { form: StampForm::Custom("%H:%M:%S".into()), zone: TimeZone::UTC } }
}

fn store() -> Store {
    let mut store = Store::new(1 << 20);
    let mut say = |pod: &str, second: i64, text: &str| {
        let source = Arc::new(Source { namespace: "shop".into(), pod: pod.into(), container: "app".into(), ..Source::default() });
        store.record(&crate::lines::Record {
            source: &source,
            place: &Place::default(),
            timestamp: Some(jiff::Timestamp::from_second(second).unwrap()),
            text: text.as_bytes(),
            cut: 0,
            format: Format::sniff(text.as_bytes()),
            trace: None,
        });
    };
    say("web-1", 1, "INFO started\ton :8080");
    say("web-22", 2, r#"{"level":"warn","msg":"slow","ms":812}"#);
    say("web-1", 3, "ERROR panic: nil map\n\tgoroutine 1 [running]:\n\tmain.main()");
    say("web-22", 4, &format!("INFO a long line {}", "that goes on and on ".repeat(6)));
    store.note(Level::Warn, "the connection is lost (reset); trying again".into());
    store
}

fn shown(keys: &[KeyCode], width: u16, height: u16) -> String {
    let store = store();
    let mut view = View::default();
    view.catch_up(&store);
    for key in keys {
        assert_eq!(view.key(KeyEvent::from(*key), &store), None);
    }
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, &mut view, &store, &looks())).unwrap();
    let text = terminal.backend().to_string();
    text.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
}

fn typed(text: &str) -> Vec<KeyCode> {
    text.chars().map(|character| if character == '\n' { KeyCode::Enter } else { KeyCode::Char(character) }).collect()
}

#[test]
fn records_follow_with_their_levels() {
    insta::assert_snapshot!(shown(&[], 72, 8));
}

#[test]
fn wrapped_unfolded_with_times_and_paused() {
    insta::assert_snapshot!(shown(&typed("ztwg"), 60, 14));
}

#[test]
fn what_is_chosen_is_said() {
    insta::assert_snapshot!(shown(&typed("/web|(pan"), 60, 8));
}

#[test]
fn pods_and_keys_are_listed() {
    insta::assert_snapshot!(shown(&typed("p "), 72, 12));
    insta::assert_snapshot!(shown(&typed("?"), 72, 18));
}

#[test]
fn any_size_will_do() {
    for (width, height) in [(1, 1), (2, 3), (5, 2), (300, 1)] {
        for keys in ["", "p", "?", "zwt", "/disk"] {
            shown(&typed(keys), width, height);
        }
    }
}
