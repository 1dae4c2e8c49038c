//! From arguments to what is done with lines: regular expressions, expressions,
//! programs and templates, read once. Pure.

use crate::args::lines::LineArgs;
use crate::args::output::{OutputArgs, OutputFormat};
use crate::lines::assemble::Joining;
use crate::lines::diff::Before;
use crate::lines::expression::Expression;
use crate::lines::filter::Filter;
use crate::lines::group::Groups;
use crate::lines::jq::Jq;
use crate::lines::judge::{Around, Judge};
use crate::render::palette::Palette;
use crate::render::stamp::{Stamp, StampForm};
use crate::render::template::Template;
use crate::render::{Form, Look};
use devloop_core::error::ErrorHint;
use devloop_core::logs::{LINE_LIMIT, LineFilter};
use devloop_core::{CommandError, Result};
use jiff::tz::TimeZone;
use regex::bytes::Regex;
use std::path::PathBuf;

/// All that the printer needs.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) joining: Joining,
    pub(crate) judge: Judge,
    pub(crate) look: Look,
    /// Whether pods that come and go are said.
    pub(crate) says_sources: bool,
    pub(crate) files: Option<FileOptions>,
    /// What is left out where it is read.
    pub(crate) early: LineFilter,
}

/// Where files are written, one for each container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileOptions {
    pub(crate) folder: PathBuf,
    pub(crate) max_size: u64,
    pub(crate) keep: usize,
}

impl Setup {
    /// `template` is what the template's file holds, `colors` whether stdout
    /// shows colours.
    ///
    /// # Errors
    /// When something can't be read; with its place.
    pub(crate) fn new(lines: &LineArgs, output: &OutputArgs, template: Option<&str>, colors: bool) -> Result<Self> {
        let colors = colors && output.output_dir.is_none();
        let filter = Filter {
            include: regexes("--include", &lines.include)?,
            exclude: regexes("--exclude", &lines.exclude)?,
            expression: lines.condition.as_deref().map(expression).transpose()?,
            jq: lines.jq.as_deref().map(|text| Jq::parse(text).map_err(|problem| usage("--jq", &problem))).transpose()?,
            ..Filter::default()
        };
        let look = look(lines, output, template, colors)?;
        let max_line = match usize::try_from(size("--max-line", &lines.max_line)?).unwrap_or(usize::MAX) {
            0 => LINE_LIMIT,
            size => size.min(LINE_LIMIT),
        };
        let around =
            lines.around.map_or(Around { before: lines.before, after: lines.after }, |count| Around { before: count, after: count });
        let is_filtered = !filter.is_empty() || lines.group;
        let joining = Joining {
            folds: !lines.no_fold && (lines.fold || is_filtered || output.ui),
            recognises: output.ui || filter.needs_format() || look.template.is_some() || (look.colors && look.form == Form::Default),
            max_line,
        };
        let files = match &output.output_dir {
            Some(folder) => Some(FileOptions {
                folder: folder.clone(),
                max_size: size("--output-max-size", &output.output_max_size)?.max(1),
                keep: output.output_keep,
            }),
            None => None,
        };
        // There are lines, not records, and all of each line.
        let is_by_line = !joining.folds && max_line == LINE_LIMIT && around.before == 0 && around.after == 0;
        // Together they may be too large; nothing is left out early then.
        let early = if is_by_line { LineFilter::new(&lines.include, &lines.exclude).unwrap_or_default() } else { LineFilter::default() };
        let is_readable = look.form == Form::Default && look.template.is_none();
        let judge = Judge::new(filter, around, lines.group.then(Groups::new), lines.diff_since_restart.then(Before::new));
        Ok(Self { joining, judge, look, says_sources: is_readable && !output.only_log_lines, files, early })
    }
}

fn look(lines: &LineArgs, output: &OutputArgs, file: Option<&str>, colors: bool) -> Result<Look> {
    let template = match (&output.stern_template, file.or(output.template.as_deref())) {
        (Some(text), _) => Some(Template::parse_go(text, colors).map_err(|problem| usage("--stern-template", &problem))?),
        (None, Some(text)) => Some(
            Template::parse(text, colors)
                .map_err(|problem| usage(if file.is_some() { "--template-file" } else { "--template" }, &problem))?,
        ),
        (None, None) => None,
    };
    let form = match output.output {
        None if output.output_dir.is_some() => Form::Raw,
        None | Some(OutputFormat::Default) => Form::Default,
        Some(OutputFormat::Raw) => Form::Raw,
        Some(OutputFormat::Json) => Form::Json,
        Some(OutputFormat::ExtendedJson) => Form::ExtendedJson,
        Some(OutputFormat::PrettyJson) => Form::PrettyJson,
    };
    // As in stern, what is searched for is marked, too.
    let mut highlight = regexes("--highlight", &output.highlight)?;
    highlight.extend(regexes("--include", &lines.include)?);
    Ok(Look {
        form,
        template,
        stamp: output.timestamps.as_deref().map(|text| stamp(text, output.timezone.as_deref())).transpose()?,
        colors,
        is_raw: output.raw,
        palette: Palette::new(&output.pod_colors, &output.container_colors, output.diff_container)
            .map_err(|problem| usage("--pod-colors", &problem))?,
        highlight,
    })
}

fn stamp(text: &str, zone: Option<&str>) -> Result<Stamp> {
    let form = StampForm::parse(text).map_err(|problem| usage(&format!("--timestamps={text}"), &problem))?;
    let zone = match zone {
        None | Some("Local") => TimeZone::system(),
        Some("UTC") => TimeZone::UTC,
        Some(name) => TimeZone::get(name)
            .map_err(|error| CommandError::usage(format!("--timezone {name:?} is not known here")).caused_by(error))
            .hint("write it like Europe/Berlin, UTC or Local")?,
    };
    Ok(Stamp { form, zone })
}

fn expression(text: &str) -> Result<Expression> {
    Expression::parse(text).map_err(|error| usage("--where", &error.to_string()))
}

fn regexes(flag: &str, patterns: &[String]) -> Result<Vec<Regex>> {
    patterns.iter().map(|pattern| Regex::new(pattern).map_err(|error| usage(flag, &error.to_string()))).collect()
}

fn usage(flag: &str, problem: &str) -> CommandError {
    CommandError::usage(format!("{flag}: {problem}"))
}

/// Bytes: a number, with `k`, `M` or `G` behind it for 1024 and its powers.
pub(crate) fn size(flag: &str, text: &str) -> Result<u64> {
    let end = text.find(|next: char| !next.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[end..].trim_end_matches('B').trim_end_matches('i') {
        "" => Some(1),
        "k" | "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        _ => None,
    };
    let number = text[..end].parse::<u64>().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| CommandError::usage(format!("{flag} {text:?} is not a size")).with_hint("write it like 4096, 64k or 1M"))
}

#[cfg(test)]
mod tests;
