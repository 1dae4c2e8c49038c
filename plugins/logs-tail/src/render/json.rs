//! Records as JSON: devloop's keys, and stern's beside them. Pure.

use super::{Form, Look};
use crate::lines::Record;
use jiff::Timestamp;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a str>,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_bytes: Option<u64>,
    // What a program that reads stern's JSON looks for.
    #[serde(rename = "nodeName", skip_serializing_if = "str::is_empty")]
    node_name: &'a str,
    #[serde(rename = "podName")]
    pod_name: &'a str,
    #[serde(rename = "containerName")]
    container_name: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// One object a line.
pub(super) fn plain(record: &Record<'_>, look: &Look, output: &mut Vec<u8>) {
    let place = record.place;
    let line = Line {
        timestamp: record.timestamp.map(|timestamp| stamp(look, timestamp)),
        context: place.context.as_deref(),
        namespace: &place.namespace,
        pod: &place.pod,
        container: &place.container,
        message: String::from_utf8_lossy(record.text),
        cut_bytes: (record.cut > 0).then_some(record.cut),
        node_name: &place.node,
        pod_name: &place.pod,
        container_name: &place.container,
        labels: &place.labels,
        annotations: &place.annotations,
    };
    // Strings and numbers always serialise.
    let _ = serde_json::to_writer(&mut *output, &line);
    output.push(b'\n');
}

fn stamp(look: &Look, timestamp: Timestamp) -> String {
    look.stamp.as_ref().map_or_else(|| format!("{timestamp:.9}"), |stamp| stamp.text(timestamp))
}

/// stern's `extjson` and `ppextjson`: names in colour, and a message that is
/// JSON as JSON.
pub(super) fn extended(record: &Record<'_>, look: &Look, with_namespace: bool, output: &mut Vec<u8>) {
    let place = record.place;
    let (pod, container) = look.palette.colors(&place.pod, &place.container);
    let paint = |sgr: &str, text: &str| if look.colors { format!("\u{1b}[{sgr}m{text}\u{1b}[0m") } else { text.to_owned() };
    let mut parts = Vec::new();
    if with_namespace {
        parts.push(format!("\"namespace\": \"{}\"", paint(pod, &place.namespace)));
    }
    parts.push(format!("\"pod\": \"{}\"", paint(pod, &place.pod)));
    parts.push(format!("\"container\": \"{}\"", paint(container, &place.container)));
    parts.push(format!("\"message\": {}", message(record.text)));
    let text = match look.form {
        Form::PrettyJson => format!("{{\n  {}\n}}\n", parts.join(",\n  ")),
        _ => format!("{{{}}}\n", parts.join(", ")),
    };
    output.extend_from_slice(text.as_bytes());
}

/// A message that is JSON as it is, any other as a string.
pub(super) fn message(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
        text.trim_end().to_owned()
    } else {
        serde_json::Value::from(text.into_owned()).to_string()
    }
}
