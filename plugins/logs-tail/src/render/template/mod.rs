//! `--template`: Jinja as minijinja has it, or Go as stern has it, over the same
//! functions. Pure.

mod functions;
mod go;
mod jinja;
mod layout;
#[cfg(test)]
mod tests;

use super::Look;
use crate::lines::Record;
use crate::lines::format::Facts;
use serde_json::{Map, Value, json};

/// A template, ready to be filled in.
#[derive(Debug)]
pub(crate) enum Template {
    /// With a newline after each record.
    Jinja(Box<jinja::Jinja>),
    /// With none: a Go template brings its own.
    Go(go::Go),
}

/// What a template is filled in with.
pub(crate) struct Context<'a> {
    pub(crate) record: &'a Record<'a>,
    pub(crate) look: &'a Look,
}

impl Template {
    /// From its text. Which of both it is can be seen: Go writes `.Name`.
    ///
    /// # Errors
    /// When it can't be read; with the place.
    pub(crate) fn parse(text: &str, colors: bool) -> Result<Self, String> {
        if go::is_go(text) {
            Self::parse_go(text, colors)
        } else {
            jinja::Jinja::parse(text, colors).map(|template| Self::Jinja(Box::new(template)))
        }
    }

    /// From a Go template as stern takes it.
    ///
    /// # Errors
    /// When it can't be read, or has what isn't known here; with the place.
    pub(crate) fn parse_go(text: &str, colors: bool) -> Result<Self, String> {
        go::Go::parse(text, colors).map(Self::Go)
    }

    /// Filled in.
    ///
    /// # Errors
    /// When a function can't do with what the record has.
    pub(crate) fn render(&self, context: &Context<'_>) -> Result<String, String> {
        match self {
            Self::Jinja(template) => template.render(&jinja_values(context)).map(|text| text + "\n"),
            Self::Go(template) => template.render(values(context).into()),
        }
    }
}

/// stern's names.
fn values(context: &Context<'_>) -> Map<String, Value> {
    let Context { record, look } = context;
    let place = record.place;
    let (pod_color, container_color) = look.palette.colors(&place.pod, &place.container);
    let timestamp = match (&look.stamp, record.timestamp) {
        (Some(stamp), Some(timestamp)) => stamp.text(timestamp),
        _ => String::new(),
    };
    let object = json!({
        "Message": String::from_utf8_lossy(record.text),
        "Timestamp": timestamp,
        "NodeName": place.node,
        "Namespace": place.namespace,
        "PodName": place.pod,
        "ContainerName": place.container,
        "Labels": place.labels,
        "Annotations": place.annotations,
        "PodColor": pod_color,
        "ContainerColor": container_color,
    });
    match object {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// stern's names, ours, and what the record says.
fn jinja_values(context: &Context<'_>) -> Value {
    let record = context.record;
    let mut map = values(context);
    let facts = Facts::of(record.format, record.text);
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let message = facts.message.map_or_else(|| text(record.text), |slot| text(&slot.text(record.text)));
    let mut fields = Map::new();
    record.format.walk(record.text, &mut |key, slot| {
        let value = serde_json::from_slice(slot.raw(record.text)).ok().filter(|_| slot.kind != crate::lines::format::Kind::Text);
        fields.insert(String::from_utf8_lossy(key).into_owned(), value.unwrap_or_else(|| text(&slot.text(record.text))));
        true
    });
    let ours = [
        ("line", text(record.text)),
        ("msg", message),
        ("level", facts.level.map_or(Value::Null, |(level, _)| level.name().into())),
        ("time", facts.time.map_or(Value::Null, |slot| text(&slot.text(record.text)))),
        ("fields", fields.into()),
        ("format", record.format.name().into()),
        ("timestamp", record.timestamp.map_or(Value::Null, |timestamp| timestamp.to_string().into())),
    ];
    for (name, known) in [
        ("pod", "PodName"),
        ("container", "ContainerName"),
        ("namespace", "Namespace"),
        ("node", "NodeName"),
        ("labels", "Labels"),
        ("annotations", "Annotations"),
    ] {
        let value = map[known].clone();
        map.insert(name.into(), value);
    }
    map.extend(ours.into_iter().map(|(name, value)| (name.to_owned(), value)));
    map.into()
}
