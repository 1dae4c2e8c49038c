//! The file with defaults: `<flag>: <value>`, as stern's. A flag on the command
//! line takes the place of the file's.

use crate::args::Args;
use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, FromArgMatches};
use devloop_core::{CommandError, ErrorContext, Result};
use serde_yaml_ng::{Mapping, Value};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The arguments with the file's defaults; as they were when there is no file.
///
/// # Errors
/// When the file can't be read, has a flag that isn't known, or a bad value.
pub(crate) fn apply(args: Args) -> Result<Args> {
    let path = match &args.output.config {
        Some(path) => path.clone(),
        None => match default_path().filter(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(args),
        },
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    merge(&text, &path, std::env::args_os().collect())
}

fn default_path() -> Option<PathBuf> {
    let folder = match std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".config"),
    };
    Some(folder.join("devloop/logs-tail.yaml"))
}

/// The command line with what the file says and it doesn't. Pure.
fn merge(text: &str, path: &Path, command_line: Vec<OsString>) -> Result<Args> {
    let wrong = |problem: String| CommandError::usage(format!("{}: {problem}", path.display()));
    let settings = match serde_yaml_ng::from_str::<Value>(text).map_err(|error| wrong(error.to_string()))? {
        Value::Null => Mapping::new(),
        Value::Mapping(settings) => settings,
        _ => return Err(wrong("it is no list of `<flag>: <value>`".into())),
    };
    let mut command = Args::command();
    command.build();
    let matches = command.clone().try_get_matches_from(&command_line).map_err(|error| wrong(brief(&error)))?;
    let mut added = Vec::new();
    for (key, value) in &settings {
        let key = key.as_str().ok_or_else(|| wrong("a flag's name is no text".into()))?;
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(key) && !["config", "help", "version"].contains(&key));
        let Some(arg) = known else {
            return Err(wrong(format!("there is no flag --{key}")).with_hint("see `kubectl logs-tail --help`"));
        };
        if matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        added.extend(arguments(key, arg.get_action(), value).map_err(wrong)?);
    }
    let (program, rest) = command_line.split_at(command_line.len().min(1));
    let all = program.iter().cloned().chain(added.into_iter().map(OsString::from)).chain(rest.iter().cloned());
    let matches = command.try_get_matches_from(all).map_err(|error| wrong(brief(&error)))?;
    Args::from_arg_matches(&matches).map_err(|error| wrong(brief(&error)))
}

/// What clap says of it, without the advice for a command line.
fn brief(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// A setting as arguments.
fn arguments(key: &str, action: &ArgAction, value: &Value) -> Result<Vec<String>, String> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("{key} has to be a text, a number, true, false, or a list of them")),
    };
    match (action, value) {
        (ArgAction::SetTrue, Value::Bool(value)) => Ok(if *value { vec![format!("--{key}")] } else { Vec::new() }),
        (ArgAction::SetTrue, _) => Err(format!("{key} has to be true or false")),
        (ArgAction::Count, value) => {
            let count = value.as_u64().ok_or_else(|| format!("{key} has to be a number"))?;
            Ok((0..count.min(9)).map(|_| format!("--{key}")).collect())
        }
        (_, Value::Sequence(values)) => values.iter().map(|value| Ok(format!("--{key}={}", scalar(value)?))).collect(),
        (_, value) => Ok(vec![format!("--{key}={}", scalar(value)?)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str, arguments: &[&str]) -> Result<Args> {
        merge(text, Path::new("logs-tail.yaml"), std::iter::once(&"kubectl-logs_tail").chain(arguments).map(OsString::from).collect())
    }

    #[test]
    fn the_file_gives_defaults_and_the_command_line_decides() {
        // The keys are stern's own where they mean the same.
        let text =
            "tail: 10\ntimestamps: short\npod-colors: \"32,33\"\ninclude: [a, b]\nonly-log-lines: true\nno-follow: false\nverbose: 2\n";
        let args = merged(text, &["web", "--tail", "3"]).unwrap();
        assert_eq!(args.range.tail, Some(3));
        assert_eq!(args.output.timestamps.as_deref(), Some("short"));
        assert_eq!(args.output.pod_colors, ["32", "33"]);
        assert_eq!(args.lines.include, ["a", "b"]);
        assert!(args.output.only_log_lines && !args.range.no_follow);
        assert_eq!(args.global.verbose, 2);
        assert_eq!(merged("include: a", &["web", "-i", "c"]).unwrap().lines.include, ["c"]);
        assert_eq!(merged("", &["web"]).unwrap().choose.targets, ["web"]);
    }

    #[test]
    fn what_the_file_cannot_mean_is_an_error() {
        let errors = ["nothing: 1", "tail: many", "only-log-lines: maybe", "- a", "a: [", "config: x", "include: {a: b}"]
            .map(|text| merged(text, &["web"]).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"));
    }
}
