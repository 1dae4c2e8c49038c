//! Data on stdout: tables for people, JSON and YAML for tools.

use crate::error::{CommandError, ErrorContext, Result};
use serde::Serialize;
use std::io::Write;

/// The form in which a command prints its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Prints `value` as JSON or YAML, or `text()` for people.
///
/// # Errors
/// When stdout can't be written; a closed pipe is not an error.
pub fn print<T: Serialize>(format: Format, value: &T, text: impl FnOnce() -> String) -> Result<()> {
    let rendered = match format {
        Format::Text => text(),
        Format::Json => serde_json::to_string_pretty(value).context("could not write JSON")?,
        Format::Yaml => serde_yaml_ng::to_string(value).context("could not write YAML")?,
    };
    line(rendered.trim_end())
}

/// Prints one line of data to stdout.
///
/// # Errors
/// When stdout can't be written; a closed pipe is not an error.
pub fn line(text: &str) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes to stdout as they are.
///
/// # Errors
/// When stdout can't be written; a closed pipe is not an error.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::new("could not write to stdout").caused_by(error))
        }
        _ => Ok(()),
    }
}

/// Columns aligned as kubectl aligns them: two spaces at least, no border.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(console::measure_text_width(cell));
        }
    }
    let format_row = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| console::pad_str(cell, *width, console::Alignment::Left, None).into_owned()).collect();
        padded.join("   ").trim_end().to_owned()
    };
    let mut lines = vec![format_row(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| format_row(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_table_is_aligned() {
        let text =
            super::table(&["NAME", "STATE"], &[vec!["etcd".into(), "running".into()], vec!["kube-apiserver".into(), "stopped".into()]]);
        insta::assert_snapshot!(text, @r"
        NAME             STATE
        etcd             running
        kube-apiserver   stopped
        ");
    }
}
