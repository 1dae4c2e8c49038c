//! What keys do to what is shown.

use super::*;
use crate::lines::level::Level;
use proptest::prelude::*;

fn press(view: &mut View, store: &Store, keys: &str) -> Option<Effect> {
    let mut effect = None;
    for character in keys.chars() {
        let code = match character {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{7f}' => KeyCode::Backspace,
            '^' => KeyCode::Up,
            'v' => KeyCode::Down,
            other => KeyCode::Char(other),
        };
        effect = view.key(KeyEvent::from(code), store);
    }
    effect
}

fn store(texts: &[(&str, Level)]) -> Store {
    let source = |pod: &str| {
        std::sync::Arc::new(devloop_core::logs::Source {
            namespace: "shop".into(),
            pod: pod.into(),
            container: "app".into(),
            ..devloop_core::logs::Source::default()
        })
    };
    let mut store = Store::new(1 << 20);
    for (index, (text, level)) in texts.iter().enumerate() {
        let source = source(if index % 2 == 0 { "even" } else { "odd" });
        let text = format!("{} {text}", level.name().to_uppercase());
        let record = crate::lines::Record {
            source: &source,
            place: &crate::lines::place::Place::default(),
            timestamp: None,
            text: text.as_bytes(),
            cut: 0,
            format: crate::lines::format::Format::Plain,
            trace: None,
        };
        store.record(&record);
    }
    store
}

fn numbers(view: &View) -> Vec<u64> {
    view.shown().iter().copied().collect()
}

const FIVE: [(&str, Level); 5] =
    [("start", Level::Info), ("disk full", Level::Error), ("retry", Level::Warn), ("disk FULL", Level::Fatal), ("done", Level::Info)];

#[test]
fn what_is_typed_chooses_as_it_is_typed_and_escape_takes_it_back() {
    let store = store(&FIVE);
    let mut view = View::default();
    view.catch_up(&store);
    press(&mut view, &store, "/disk");
    assert_eq!(numbers(&view), [1, 3]);
    press(&mut view, &store, " F");
    assert_eq!(numbers(&view), [3], "a capital letter is meant");
    press(&mut view, &store, "\u{7f}f\n");
    assert_eq!((numbers(&view), view.focus), (vec![1, 3], Focus::Records));
    press(&mut view, &store, "/x\u{1b}");
    assert_eq!((numbers(&view), view.filter.text()), (vec![1, 3], "disk f"));
    press(&mut view, &store, "\u{1b}");
    assert_eq!(numbers(&view).len(), 5);
}

#[test]
fn errors_are_gone_to_and_the_end_is_said() {
    let store = store(&FIVE);
    let mut view = View::default();
    view.catch_up(&store);
    press(&mut view, &store, "E");
    assert_eq!(view.cursor, Some(3));
    press(&mut view, &store, "E");
    assert_eq!(view.cursor, Some(1));
    press(&mut view, &store, "E");
    assert_eq!((view.cursor, view.message.as_deref()), (Some(1), Some("no error above")));
    press(&mut view, &store, "e");
    assert_eq!(view.cursor, Some(3));
    press(&mut view, &store, "e");
    assert_eq!(view.message.as_deref(), Some("no error below"));
}

#[test]
fn a_pause_keeps_the_place_and_counts_what_comes() {
    let mut store = store(&FIVE);
    let mut view = View::default();
    view.catch_up(&store);
    assert_eq!(view.news(&store), None);
    press(&mut view, &store, " ^");
    store.note(Level::Info, "new".into());
    view.catch_up(&store);
    assert_eq!((view.cursor, view.news(&store)), (Some(3), Some(1)));
    press(&mut view, &store, " ");
    assert_eq!((view.cursor, view.news(&store)), (None, None));
}

#[test]
fn containers_are_hidden_shown_and_seen_alone() {
    let store = store(&FIVE);
    let mut view = View::default();
    view.catch_up(&store);
    press(&mut view, &store, "p ");
    assert_eq!(numbers(&view), [1, 3]);
    press(&mut view, &store, " vo");
    assert_eq!(numbers(&view), [1, 3]);
    press(&mut view, &store, "ap");
    assert_eq!((numbers(&view).len(), view.focus), (5, Focus::Records));
}

#[test]
fn a_record_is_copied_and_q_quits() {
    let store = store(&FIVE);
    let mut view = View::default();
    view.catch_up(&store);
    assert_eq!(press(&mut view, &store, "E^c"), Some(Effect::Copy("WARN retry".into())));
    assert_eq!(press(&mut view, &store, "q"), Some(Effect::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut view, &store, "/");
    assert_eq!(view.key(interrupt, &store), Some(Effect::Quit));
}

proptest! {
    /// Whatever is pressed while records come and go, what is stayed at is there.
    #[test]
    fn the_cursor_is_always_at_a_shown_record(keys in "[/disk\n\u{1b}\u{7f} ^vgGeEz\npoa]{0,40}", steps in prop::collection::vec(0_usize..60, 40)) {
        let mut store = Store::new(2000);
        let mut view = View::default();
        for (key, size) in keys.chars().zip(steps) {
            store.note(if size % 3 == 0 { Level::Error } else { Level::Info }, "disk ".repeat(size));
            view.catch_up(&store);
            press(&mut view, &store, &key.to_string());
            prop_assert!(view.cursor.is_none_or(|cursor| view.shown().contains(&cursor)));
            prop_assert!(view.shown().iter().all(|number| store.get(*number).is_some()));
            prop_assert!(view.shown().iter().is_sorted());
        }
    }
}
