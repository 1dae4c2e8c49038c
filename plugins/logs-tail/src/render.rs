//! A line as it is printed. Pure.

use crate::args::OutputFormat;
use console::{Color, Style};
use devloop_core::logs::{LogLine, Source};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write as _;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) output: OutputFormat,
    pub(crate) timestamps: bool,
    pub(crate) colors: bool,
    /// Whether a terminal shows it, which control sequences could deceive.
    pub(crate) is_terminal: bool,
}

/// Widths beyond this are not aligned to: one long name would push all lines away.
const WIDEST: usize = 60;

/// Renders lines, aligned with those before.
#[derive(Debug)]
pub(crate) struct Renderer {
    look: Look,
    width: usize,
}

impl Renderer {
    pub(crate) fn new(look: Look) -> Self {
        Self { look, width: 0 }
    }

    /// Makes room for the name of a source that will have lines.
    pub(crate) fn expect(&mut self, source: &Source) {
        self.width = self.width.max(name(source).chars().count()).min(WIDEST);
    }

    /// The line with its newline.
    pub(crate) fn line(&mut self, line: &LogLine) -> Vec<u8> {
        let mut bytes = match self.look.output {
            OutputFormat::Default => self.readable(line).into_bytes(),
            OutputFormat::Raw => self.raw(line),
            OutputFormat::Json => json(line),
        };
        bytes.push(b'\n');
        bytes
    }

    fn readable(&mut self, line: &LogLine) -> String {
        self.expect(&line.source);
        let style = Style::new().force_styling(self.look.colors);
        let dim = style.clone().dim();
        let mut text = self.prefix(&line.source, &style);
        if self.look.timestamps {
            let _ = write!(text, "{} ", dim.apply_to(stamp(line.timestamp)));
        }
        let message = String::from_utf8_lossy(&line.message);
        if self.look.is_terminal {
            make_safe(&message, self.look.colors, &mut text);
        } else {
            text.push_str(&message);
        }
        if line.cut > 0 {
            let _ = write!(text, " {}", dim.apply_to(cut_mark(line.cut)));
        }
        text
    }

    fn prefix(&self, source: &Source, style: &Style) -> String {
        let (pod, container) = colors(source);
        let mut text = style.clone().fg(pod).apply_to(&source.pod).to_string();
        if source.has_siblings {
            let _ = write!(text, " {}", style.clone().fg(container).apply_to(&source.container));
        }
        let padding = self.width.saturating_sub(name(source).chars().count());
        text.extend(std::iter::repeat_n(' ', padding + 1));
        // Without colour, the end of the prefix must be seen, too.
        text.push_str(if self.look.colors { "" } else { "| " });
        text
    }

    fn raw(&self, line: &LogLine) -> Vec<u8> {
        let mut bytes = if self.look.timestamps { format!("{} ", stamp(line.timestamp)).into_bytes() } else { Vec::new() };
        bytes.extend_from_slice(&line.message);
        if line.cut > 0 {
            bytes.extend_from_slice(format!(" {}", cut_mark(line.cut)).as_bytes());
        }
        bytes
    }
}

/// The name of a source on stderr: `pod/container`.
pub(crate) fn path(source: &Source) -> String {
    format!("{}/{}", source.pod, source.container)
}

fn name(source: &Source) -> String {
    if source.has_siblings { format!("{} {}", source.pod, source.container) } else { source.pod.clone() }
}

fn stamp(timestamp: Timestamp) -> String {
    format!("{timestamp:.9}")
}

fn cut_mark(cut: u64) -> String {
    format!("… [{cut} bytes more, cut]")
}

#[derive(Serialize)]
struct JsonLine<'a> {
    timestamp: String,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_bytes: Option<u64>,
}

fn json(line: &LogLine) -> Vec<u8> {
    let source = &line.source;
    let object = JsonLine {
        timestamp: stamp(line.timestamp),
        namespace: &source.namespace,
        pod: &source.pod,
        container: &source.container,
        message: &String::from_utf8_lossy(&line.message),
        cut_bytes: (line.cut > 0).then_some(line.cut),
    };
    // Strings and numbers always serialise.
    serde_json::to_vec(&object).unwrap_or_default()
}

/// The same for a pod, and for a container's name, in every run.
fn colors(source: &Source) -> (Color, Color) {
    const COLORS: [u8; 12] = [39, 208, 76, 171, 220, 44, 203, 111, 148, 213, 180, 86];
    let pick = |text: &str| Color::Color256(COLORS[usize::from(blake3::hash(text.as_bytes()).as_bytes()[0]) % COLORS.len()]);
    (pick(&source.pod), pick(&source.container))
}

/// Control characters become visible; colours stay, if colours are shown, and
/// end with the line.
fn make_safe(message: &str, colors: bool, text: &mut String) {
    let mut rest = message.strip_suffix('\r').unwrap_or(message);
    let mut is_styled = false;
    while let Some(character) = rest.chars().next() {
        if let Some(length) = style_sequence(rest) {
            if colors {
                text.push_str(&rest[..length]);
                is_styled = true;
            }
            rest = &rest[length..];
            continue;
        }
        match character {
            '\t' => text.push('\t'),
            '\u{0}'..='\u{1f}' => text.extend(['^', char::from(character as u8 + 0x40)]),
            '\u{7f}' => text.push_str("^?"),
            // C1 controls, and what changes the direction of text.
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(text, "<U+{:04X}>", character as u32);
            }
            _ => text.push(character),
        }
        rest = &rest[character.len_utf8()..];
    }
    if is_styled {
        text.push_str("\u{1b}[0m");
    }
}

/// The length of the colour sequence (`ESC [ 1;31 m`) that `text` starts with.
fn style_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let length = parameters.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')).count();
    (length <= 64 && parameters.as_bytes().get(length) == Some(&b'm')).then_some(2 + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn line(pod: &str, container: &str, message: &[u8]) -> LogLine {
        let source = Source { namespace: "shop".into(), pod: pod.into(), container: container.into(), has_siblings: container != "app" };
        let timestamp = "2026-01-02T03:04:05.67Z".parse().unwrap();
        LogLine { source: Arc::new(source), timestamp, message: message.to_vec(), cut: 0 }
    }

    fn samples() -> Vec<LogLine> {
        vec![
            line("web-7d4b9c-x2x9p", "app", b"listening on :8080"),
            line("db-0", "proxy", b"caf\xc3\xa9 \xff \"quoted\"\tend\r"),
            line("db-0", "app", b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\xc2\x9b2J"),
            LogLine { cut: 1234, ..line("db-0", "app", b"long") },
        ]
    }

    fn render(look: Look) -> String {
        let mut renderer = Renderer::new(look);
        for sample in samples() {
            renderer.expect(&sample.source);
        }
        samples()
            .iter()
            .map(|sample| String::from_utf8_lossy(&renderer.line(sample)).into_owned())
            .collect::<String>()
            .escape_debug()
            .to_string()
            .replace("\\n", "\n")
    }

    const PLAIN: Look = Look { output: OutputFormat::Default, timestamps: false, colors: false, is_terminal: true };

    #[test]
    fn on_a_terminal_without_colour() {
        insta::assert_snapshot!(render(PLAIN));
    }

    #[test]
    fn on_a_terminal_with_colour_and_timestamps() {
        insta::assert_snapshot!(render(Look { colors: true, timestamps: true, ..PLAIN }));
    }

    #[test]
    fn into_a_file() {
        insta::assert_snapshot!(render(Look { is_terminal: false, ..PLAIN }));
    }

    #[test]
    fn raw_with_timestamps() {
        insta::assert_snapshot!(render(Look { output: OutputFormat::Raw, timestamps: true, ..PLAIN }));
    }

    #[test]
    fn raw_is_byte_for_byte() {
        let mut renderer = Renderer::new(Look { output: OutputFormat::Raw, ..PLAIN });
        assert_eq!(renderer.line(&line("db-0", "app", b"\xff\x1b[2J\r")), b"\xff\x1b[2J\r\n");
    }

    #[test]
    fn as_json() {
        insta::assert_snapshot!(render(Look { output: OutputFormat::Json, ..PLAIN }));
    }

    proptest! {
        #[test]
        fn nothing_but_colour_reaches_a_terminal(message in prop::collection::vec(prop_oneof![Just(0x1b_u8), Just(b'['), Just(b'm'), any::<u8>()], 0..80)) {
            let mut renderer = Renderer::new(PLAIN);
            let text = String::from_utf8(renderer.line(&line("db-0", "app", &message))).unwrap();
            prop_assert!(text.trim_end_matches('\n').chars().all(|character| !character.is_control() || character == '\t'), "{text:?}");
            prop_assert_eq!(text.matches('\n').count(), 1);
        }
    }
}
