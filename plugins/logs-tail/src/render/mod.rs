//! A record as it is printed. Pure.

pub(crate) mod json;
pub(crate) mod palette;
pub(crate) mod safe;
pub(crate) mod stamp;
pub(crate) mod summary;
pub(crate) mod template;

use crate::lines::Record;
use crate::lines::format::Facts;
use crate::lines::place::Place;
use devloop_core::logs::Source;
use palette::Palette;
use regex::bytes::Regex;
use safe::{Span, paint};
use stamp::Stamp;
use std::fmt::Write as _;
use template::Template;

/// What a record is printed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The pod and container, then the line.
    #[default]
    Default,
    /// The line alone, byte for byte.
    Raw,
    /// A JSON object.
    Json,
    /// stern's JSON with colours, in which a message that is JSON stays JSON.
    ExtendedJson,
    /// The same over several lines.
    PrettyJson,
}

/// How records look.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) form: Form,
    /// In place of `form`.
    pub(crate) template: Option<Template>,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) colors: bool,
    /// Whether control characters are passed on as they are.
    pub(crate) is_raw: bool,
    pub(crate) palette: Palette,
    pub(crate) highlight: Vec<Regex>,
}

/// Widths beyond this are not aligned to: one long name would push all lines away.
const WIDEST: usize = 60;

/// Renders records, aligned with those before.
#[derive(Debug)]
pub(crate) struct Renderer {
    look: Look,
    width: usize,
    /// The first namespace seen, and whether there are others.
    namespace: Option<String>,
    has_namespaces: bool,
}

impl Renderer {
    pub(crate) fn new(look: Look) -> Self {
        Self { look, width: 0, namespace: None, has_namespaces: false }
    }

    /// What it prints as.
    pub(crate) fn look(&self) -> &Look {
        &self.look
    }

    /// Makes room for the name of a source that will have lines.
    pub(crate) fn expect(&mut self, source: &Source) {
        self.make_room(&Place::from(source));
    }

    fn make_room(&mut self, place: &Place) {
        match &self.namespace {
            None => self.namespace = Some(place.namespace.clone()),
            Some(known) => self.has_namespaces |= *known != place.namespace,
        }
        self.width = self.width.max(self.name_width(place)).min(WIDEST);
    }

    /// Appends the record with its newline.
    ///
    /// # Errors
    /// When the template can't be filled in.
    pub(crate) fn record(&mut self, record: &Record<'_>, output: &mut Vec<u8>) -> Result<(), String> {
        if let Some(template) = &self.look.template {
            let text = template.render(&template::Context { record, look: &self.look })?;
            output.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        match self.look.form {
            Form::Default => self.readable(record, output),
            Form::Raw => self.raw(record, output),
            Form::Json => json::plain(record, &self.look, output),
            Form::ExtendedJson | Form::PrettyJson => json::extended(record, &self.look, self.has_namespaces, output),
        }
        Ok(())
    }

    /// Appends what stands for records that were left out.
    pub(crate) fn separator(&self, output: &mut Vec<u8>) {
        if self.look.template.is_none() && matches!(self.look.form, Form::Default | Form::Raw) {
            output.extend_from_slice(b"--\n");
        }
    }

    fn readable(&mut self, record: &Record<'_>, output: &mut Vec<u8>) {
        let is_named = !record.place.pod.is_empty();
        if is_named {
            self.make_room(record.place);
        }
        let mut head = if is_named { self.prefix(record.place) } else { String::new() };
        if let (Some(stamp), Some(timestamp)) = (&self.look.stamp, record.timestamp) {
            self.sgr("2", &stamp.text(timestamp), &mut head);
            head.push(' ');
        }
        for (index, line) in record.text.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                output.push(b'\n');
            }
            let mut text = head.clone();
            if self.look.is_raw {
                output.extend_from_slice(text.as_bytes());
                output.extend_from_slice(line);
                continue;
            }
            paint(line, &self.spans(record, line, index == 0), self.look.colors, &mut text);
            output.extend_from_slice(text.as_bytes());
        }
        if record.cut > 0 {
            let mut mark = " ".to_owned();
            self.sgr("2", &cut_mark(record.cut), &mut mark);
            output.extend_from_slice(mark.as_bytes());
        }
        output.push(b'\n');
    }

    /// What has a colour in a line: what is searched for, else the level.
    fn spans(&self, record: &Record<'_>, line: &[u8], is_first: bool) -> Vec<Span> {
        if !self.look.colors {
            return Vec::new();
        }
        let mut spans: Vec<Span> = Vec::new();
        for regex in &self.look.highlight {
            spans.extend(regex.find_iter(line).filter(|found| !found.is_empty()).map(|found| (found.range(), "31;1")));
        }
        let level = if is_first { Facts::of(record.format, line).level } else { None };
        if let Some((level, range)) = level
            && spans.iter().all(|(other, _)| other.end <= range.start || range.end <= other.start)
        {
            spans.push((range, level.sgr()));
        }
        spans.sort_by_key(|(range, _)| range.start);
        spans
    }

    fn prefix(&self, place: &Place) -> String {
        let (pod, container) = self.look.palette.colors(&place.pod, &place.container);
        let mut text = String::new();
        if let Some(context) = &place.context {
            self.sgr(pod, context, &mut text);
            text.push(' ');
        }
        if self.has_namespaces {
            self.sgr(pod, &place.namespace, &mut text);
            text.push(' ');
        }
        self.sgr(pod, &place.pod, &mut text);
        if place.has_siblings {
            text.push(' ');
            self.sgr(container, &place.container, &mut text);
        }
        let padding = self.width.saturating_sub(self.name_width(place));
        text.extend(std::iter::repeat_n(' ', padding + 1));
        // Without colour, the end of the prefix must be seen, too.
        text.push_str(if self.look.colors { "" } else { "| " });
        text
    }

    fn name_width(&self, place: &Place) -> usize {
        let namespace = if self.has_namespaces { place.namespace.len() + 1 } else { 0 };
        let container = if place.has_siblings { place.container.len() + 1 } else { 0 };
        let context = place.context.as_ref().map_or(0, |context| context.len() + 1);
        context + namespace + place.pod.len() + container
    }

    fn raw(&self, record: &Record<'_>, output: &mut Vec<u8>) {
        if let (Some(stamp), Some(timestamp)) = (&self.look.stamp, record.timestamp) {
            output.extend_from_slice(stamp.text(timestamp).as_bytes());
            output.push(b' ');
        }
        output.extend_from_slice(record.text);
        if record.cut > 0 {
            output.extend_from_slice(format!(" {}", cut_mark(record.cut)).as_bytes());
        }
        output.push(b'\n');
    }

    fn sgr(&self, sgr: &str, content: &str, text: &mut String) {
        let _ = if self.look.colors { write!(text, "\u{1b}[{sgr}m{content}\u{1b}[0m") } else { write!(text, "{content}") };
    }
}

/// The name of a source on stderr: `pod/container`.
pub(crate) fn path(source: &Source) -> String {
    let name = format!("{}/{}", source.pod, source.container);
    source.context.as_ref().map_or(name.clone(), |context| format!("{context}/{name}"))
}

pub(crate) fn cut_mark(cut: u64) -> String {
    format!("… [{cut} bytes more, cut]")
}

#[cfg(test)]
mod tests;
