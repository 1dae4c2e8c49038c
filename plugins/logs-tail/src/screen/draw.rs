//! The screen as cells: a line on what is shown, the records, a line of keys.

use super::layout::{Row, rows};
use super::store::{Entry, Store};
use super::style::{of_level, of_sgr};
use super::view::{Focus, View};
use crate::render::palette::Palette;
use crate::render::stamp::Stamp;
use devloop_core::logs::Source;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

/// Names wider than this are cut: the records have to have room.
const WIDEST_NAME: usize = 40;

const KEYS: &str = "/ filter  space pause  e/E errors  ⏎ fold  p pods  w wrap  t times  c copy  s save  ? help  q quit";

const HELP: [(&str, &str); 14] = [
    ("/", "choose by a regular expression, as you type; Esc takes it back"),
    ("space", "pause, and go on with the newest"),
    ("↑ ↓ PgUp PgDn", "move; k j b f, too"),
    ("g G", "the oldest, the newest; Home and End, too"),
    ("e E", "the next error, the one before"),
    ("⏎", "show all lines of the record, or only its first"),
    ("z", "the same for all records"),
    ("← →", "move the text sideways"),
    ("w", "wrap long lines"),
    ("t", "show the times"),
    ("p", "choose pods: space toggles, o only this, a all"),
    ("c", "copy the record (OSC 52)"),
    ("s", "save what is shown to a file here"),
    ("q", "quit; Ctrl-C, too"),
];

/// How records look, beside what is chosen by keys.
#[derive(Debug)]
pub(crate) struct Looks {
    pub(crate) palette: Palette,
    pub(crate) stamp: Stamp,
}

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, view: &mut View, store: &Store, looks: &Looks) {
    let [head, body, foot] = Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(title(view, store)).style(Style::new().add_modifier(Modifier::REVERSED)), head);
    records(frame, body, view, store, looks);
    frame.render_widget(footer(view), foot);
    match view.focus {
        Focus::Sources(row) => sources(frame, body, view, store, looks, row),
        Focus::Help => help(frame, body),
        Focus::Records => {}
        Focus::Filter => {
            let column = u16::try_from(1 + console::measure_text_width(view.filter.text())).unwrap_or(u16::MAX);
            frame.set_cursor_position((foot.x + column.min(foot.width.saturating_sub(1)), foot.y));
        }
    }
}

fn title(view: &View, store: &Store) -> String {
    let open = store.origins().iter().filter(|origin| origin.is_open).count();
    let (shown, all) = (view.shown().len(), store.end() - store.first());
    let mut text = format!(" {open} container{}  {all} records", if open == 1 { "" } else { "s" });
    if shown as u64 != all {
        text.push_str(&format!(", {shown} shown"));
    }
    if store.first() > 0 {
        text.push_str(&format!("  {} older ones dropped", store.first()));
    }
    if !view.filter.text().is_empty() {
        let kind = if view.filter.is_plain { " (as plain text)" } else { "" };
        text.push_str(&format!("  /{}{kind}", view.filter.text()));
    }
    if !view.hidden.is_empty() {
        text.push_str(&format!("  {} hidden", view.hidden.len()));
    }
    if let Some(news) = view.news(store) {
        text.push_str(&format!("  PAUSED, {news} new"));
    }
    text
}

fn footer(view: &View) -> Line<'static> {
    if view.focus == Focus::Filter {
        return Line::from(format!("/{}", view.filter.text()));
    }
    match &view.message {
        Some(message) => Line::from(message.clone()).style(Style::new().fg(Color::Yellow)),
        None => Line::from(KEYS).style(Style::new().add_modifier(Modifier::DIM)),
    }
}

fn records(frame: &mut Frame<'_>, area: Rect, view: &mut View, store: &Store, looks: &Looks) {
    let has_namespaces = store.origins().windows(2).any(|pair| pair[0].source.namespace != pair[1].source.namespace);
    let names: Vec<String> = store.origins().iter().map(|origin| name(&origin.source, has_namespaces)).collect();
    let visible = |index: &usize| !view.hidden.contains(index);
    let width = (0..names.len()).filter(visible).map(|index| names[index].len()).max().unwrap_or(0).min(WIDEST_NAME);
    let stamp = |entry: &Entry| entry.timestamp.map(|timestamp| looks.stamp.text(timestamp)).unwrap_or_default();
    let stamp_width = if view.stamps {
        (store.first()..store.end())
            .find_map(|number| store.get(number)?.timestamp)
            .map_or(0, |timestamp| looks.stamp.text(timestamp).len() + 1)
    } else {
        0
    };
    // A sign for the level, the name, the time.
    let margin = 2 + width + 1 + stamp_width;
    let text_width = usize::from(area.width).saturating_sub(margin).max(1);
    let rows = rows(view, store, text_width, usize::from(area.height));
    let lines: Vec<Line<'_>> = rows
        .iter()
        .map(|row| {
            let Some(entry) = store.get(row.number) else { return Line::default() };
            let mut spans = vec![level_sign(entry, row)];
            if row.is_first {
                let text = entry.source.map_or("", |source| names[source].as_str());
                let style = entry.source.map_or(Style::new(), |source| source_style(&store.origins()[source].source, looks));
                spans.push(Span::styled(format!("{:width$} ", console::truncate_str(text, width, "…")), style));
                if view.stamps {
                    spans.push(Span::styled(
                        format!("{:stamp_width$}", format!("{} ", stamp(entry))),
                        Style::new().add_modifier(Modifier::DIM),
                    ));
                }
            } else {
                spans.push(Span::raw(" ".repeat(margin - 2)));
            }
            spans.extend(text_spans(entry, row, view));
            let line = Line::from(spans);
            if view.cursor == Some(row.number) {
                line.style(Style::new().add_modifier(Modifier::BOLD).bg(Color::Indexed(236)))
            } else {
                line
            }
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn name(source: &Source, has_namespaces: bool) -> String {
    let namespace = if has_namespaces { format!("{} ", source.namespace) } else { String::new() };
    let container = if source.has_siblings { format!(" {}", source.container) } else { String::new() };
    format!("{namespace}{}{container}", source.pod)
}

fn source_style(source: &Source, looks: &Looks) -> Style {
    of_sgr(looks.palette.colors(&source.pod, &source.container).0)
}

fn level_sign(entry: &Entry, row: &Row) -> Span<'static> {
    match entry.level.filter(|_| row.is_first) {
        Some(level) => Span::styled(format!("{} ", level.name()[..1].to_uppercase()), of_level(level)),
        None => Span::raw("  "),
    }
}

/// The text of a row, with what the filter found in it.
fn text_spans<'a>(entry: &'a Entry, row: &Row, view: &'a View) -> Vec<Span<'a>> {
    let base = match entry.source {
        None => Style::new().fg(Color::Yellow),
        Some(_) => Style::new(),
    };
    let text = &entry.text[row.range.clone()];
    let mut spans = Vec::new();
    let mut done = 0;
    for found in view.filter.matches(text) {
        spans.push(Span::styled(plain(&text[done..found.start]), base));
        spans.push(Span::styled(plain(&text[found.clone()]), base.fg(Color::Black).bg(Color::Yellow)));
        done = found.end;
    }
    spans.push(Span::styled(plain(&text[done..]), base));
    if row.more > 0 {
        spans.push(Span::styled(format!(" ⏎ {} more", row.more), Style::new().add_modifier(Modifier::DIM)));
    }
    spans
}

/// Terminals move by tabs; cells don't.
fn plain(text: &str) -> String {
    text.replace('\t', "    ")
}

fn sources(frame: &mut Frame<'_>, area: Rect, view: &View, store: &Store, looks: &Looks, row: usize) {
    let lines: Vec<Line<'_>> = store
        .origins()
        .iter()
        .enumerate()
        .map(|(index, origin)| {
            let sign = if view.hidden.contains(&index) { "[ ]" } else { "[x]" };
            let gone = if origin.is_open { "" } else { "  gone" };
            let source = &origin.source;
            let text = format!("{sign} {}/{} {}  {} records{gone}", source.namespace, source.pod, source.container, origin.records);
            let style = source_style(source, looks);
            Line::styled(text, if index == row { style.add_modifier(Modifier::REVERSED) } else { style })
        })
        .collect();
    // The row stays in sight.
    let height = usize::from(area.height.saturating_sub(2)).max(1);
    let scroll = u16::try_from((row + 1).saturating_sub(height)).unwrap_or(u16::MAX);
    let title = " pods: space toggles, o only this, a all, Esc ends ";
    popup(frame, area, title, lines, scroll);
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines = HELP.iter().map(|(key, what)| Line::from(format!("{key:14} {what}"))).collect();
    popup(frame, area, " keys ", lines, 0);
}

fn popup(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>, scroll: u16) {
    let width = lines.iter().map(Line::width).max().unwrap_or(0).max(title.len()) + 4;
    let width = u16::try_from(width).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).scroll((scroll, 0)).block(Block::bordered().title(title.to_owned())), place);
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
