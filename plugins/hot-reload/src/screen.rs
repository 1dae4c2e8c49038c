//! What stays at the foot of a terminal while a session runs: a line for each
//! service, and the keys. Everything else scrolls by above it.

use console::{Style, Term, truncate_str};

/// A service as the screen shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceLine {
    pub(crate) name: String,
    /// Pods that have all that they should have, and all pods.
    pub(crate) in_sync: usize,
    pub(crate) pods: usize,
    pub(crate) state: State,
    /// The last change, with where its time went.
    pub(crate) last: Option<String>,
}

/// What a service is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Watching,
    Building,
    Delivering,
    Failing,
}

/// The foot of a terminal.
#[derive(Debug)]
pub(crate) struct Screen {
    term: Term,
    drawn: Vec<String>,
    /// The terminal's width when it was drawn.
    width: usize,
}

impl Screen {
    /// On stderr, if that is a terminal.
    pub(crate) fn new() -> Option<Self> {
        let term = Term::stderr();
        term.is_term().then_some(Self { term, drawn: Vec::new(), width: 0 })
    }

    /// Says something above the foot.
    pub(crate) fn say(&mut self, text: &str) {
        let foot = std::mem::take(&mut self.drawn);
        self.clear(foot.len());
        // Nobody is left to tell when the terminal is gone.
        let _ = self.term.write_line(text);
        self.draw(foot);
    }

    /// Shows the services as they are now.
    pub(crate) fn show(&mut self, services: &[ServiceLine], is_paused: bool) {
        let width = usize::from(self.term.size().1);
        let foot = render(services, is_paused, width);
        if foot != self.drawn || width != self.width {
            self.clear(self.drawn.len());
            self.width = width;
            self.draw(foot);
        }
    }

    /// Takes the foot away.
    pub(crate) fn close(&mut self) {
        self.clear(self.drawn.len());
        self.drawn.clear();
    }

    fn clear(&self, lines: usize) {
        let _ = self.term.clear_last_lines(lines);
    }

    fn draw(&mut self, foot: Vec<String>) {
        for line in &foot {
            let _ = self.term.write_line(line);
        }
        self.drawn = foot;
    }
}

/// The lines of the foot, none of them wider than the terminal. Pure.
fn render(services: &[ServiceLine], is_paused: bool, width: usize) -> Vec<String> {
    let style = || Style::new().for_stderr();
    let name_width = services.iter().map(|service| console::measure_text_width(&service.name)).max().unwrap_or_default();
    let mut lines = vec![String::new()];
    for service in services {
        let (sign, state) = match service.state {
            _ if is_paused => (style().yellow().apply_to("‖"), "paused"),
            State::Watching if service.pods == 0 => (style().yellow().apply_to("○"), "no pods"),
            State::Watching => (style().green().apply_to("●"), "in sync"),
            State::Building => (style().cyan().apply_to("…"), "building"),
            State::Delivering => (style().cyan().apply_to("↑"), "syncing"),
            State::Failing => (style().red().apply_to("✗"), "failing"),
        };
        let last = service.last.as_deref().unwrap_or("no change yet");
        let text = format!(
            "{sign} {:name_width$}  {}/{} pods  {state:8}  {}",
            service.name,
            service.in_sync,
            service.pods,
            style().dim().apply_to(last)
        );
        lines.push(truncate_str(&text, width.saturating_sub(1), "…").into_owned());
    }
    let pause = if is_paused { "p go on" } else { "p pause" };
    let keys = format!("r restart · {pause} · l logs · d debug · q quit");
    lines.push(style().dim().apply_to(truncate_str(&keys, width.saturating_sub(1), "…")).to_string());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(services: &[ServiceLine], is_paused: bool, width: usize) -> String {
        let lines = render(services, is_paused, width);
        lines.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect::<Vec<_>>().join("\n")
    }

    fn services() -> Vec<ServiceLine> {
        let line = |name: &str, pods, state, last: Option<&str>| ServiceLine {
            name: name.to_owned(),
            in_sync: pods,
            pods,
            state,
            last: last.map(str::to_owned),
        };
        vec![
            line("shop", 2, State::Watching, Some("/srv/static/index.html 4 ms: watch 1 ms, settle 0 ms, deliver 3 ms")),
            line("checkout", 1, State::Building, None),
            line("api", 0, State::Watching, None),
            line("web", 3, State::Failing, Some("does not compile (2 errors)")),
        ]
    }

    #[test]
    fn a_line_for_each_service_and_one_for_the_keys() {
        insta::assert_snapshot!(plain(&services(), false, 100));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        for width in [1, 20, 40, 80] {
            for line in plain(&services(), true, width).lines() {
                assert!(console::measure_text_width(line) < width.max(2), "{width}: {line}");
            }
        }
    }
}
