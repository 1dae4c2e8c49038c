//! What a Dockerfile puts into an image: its stages, what each copies from
//! where, and what runs in the end. Pure.

mod expand;
mod lines;

use super::paths;
use expand::{Unclear, Variables, expand};
use lines::Line;

/// A Dockerfile that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(super) struct Mistake {
    /// From 1.
    pub(super) line: usize,
    pub(super) message: String,
}

impl Mistake {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// One `FROM` with what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    name: Option<String>,
    pub(super) base: Origin,
    pub(super) steps: Vec<Step>,
    workdir: Workdir,
    variables: Variables,
    /// Program and arguments; empty where it is the base image's.
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
}

/// Where a stage begins, or where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The folder that is built.
    Context,
    /// An earlier stage.
    Stage(usize),
    /// An image that is made elsewhere.
    Image(String),
}

/// What a line does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// From 1.
    pub(super) line: usize,
    pub(super) action: Action,
}

/// See [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The folder is there from now on.
    Workdir(String),
    Copy(Copy),
    /// A command of a shell.
    Run {
        script: String,
        workdir: String,
    },
    /// Something is copied, and it can't be told what or where to.
    Unclear {
        text: String,
        why: String,
    },
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) text: String,
    pub(super) from: Origin,
    pub(super) sources: Vec<String>,
    /// Absolute, without a slash at the end.
    pub(super) to: String,
    /// It was written with a slash at the end.
    pub(super) into_folder: bool,
    /// `ADD` unpacks archives.
    pub(super) unpacks: bool,
    /// `--parents`.
    pub(super) keeps_parents: bool,
    /// `--exclude`.
    pub(super) exclude: Vec<String>,
    /// The working directory is not set in the Dockerfile, and `to` depends on it.
    pub(super) assumes: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Workdir {
    path: Result<String, Unclear>,
    /// The base image that it is assumed of.
    assumed: Option<String>,
}

/// More is not looked into.
const LONGEST_SCRIPT: usize = 256 * 1024;
const OTHERS: [&str; 9] = ["EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "SHELL", "STOPSIGNAL", "USER", "VOLUME"];

/// Reads a Dockerfile; there is at least one stage.
pub(super) fn parse(text: &str) -> Result<Vec<Stage>, Mistake> {
    let (lines, escape) = lines::split(text)?;
    let mut parser = Parser { escape, global: Variables::new(), stages: Vec::new() };
    for line in &lines {
        parser.take(line)?;
    }
    if parser.stages.is_empty() {
        return Err(Mistake::new(text.lines().count().max(1), "there is no FROM"));
    }
    Ok(parser.stages)
}

/// The instructions of a Dockerfile with their lines, from 1, and without comments
/// and breaks; none for one that can't be read.
pub(crate) fn instructions(text: &str) -> Vec<(usize, String)> {
    let Ok((lines, _)) = lines::split(text) else { return Vec::new() };
    lines.iter().map(|line| (line.number, format!("{} {}", line.instruction, line.rest))).collect()
}

/// The images that a Dockerfile is built upon, as far as that can be told.
pub(crate) fn base_images(text: &str) -> Vec<String> {
    let images = parse(text).unwrap_or_default().into_iter().filter_map(|stage| match stage.base {
        Origin::Image(image) if image != "scratch" && !image.contains('$') => Some(image),
        _ => None,
    });
    images.collect()
}

struct Parser {
    escape: char,
    /// `ARG` before the first `FROM`.
    global: Variables,
    stages: Vec<Stage>,
}

impl Parser {
    fn take(&mut self, line: &Line) -> Result<(), Mistake> {
        let mistake = |message: String| Mistake::new(line.number, message);
        if line.instruction == "FROM" {
            return self.from(line);
        }
        if line.instruction == "ARG" {
            return self.argument(line);
        }
        let origin = |name: &str| self.origin(name);
        let escape = self.escape;
        let copied = match line.instruction.as_str() {
            "COPY" | "ADD" => Some(read_copy(line, origin)?),
            _ => None,
        };
        let Some(stage) = self.stages.last_mut() else {
            return Err(mistake(format!("{} stands before the first FROM", line.instruction)));
        };
        let rest = line.rest.as_str();
        let action = match line.instruction.as_str() {
            "WORKDIR" if rest.is_empty() => return Err(mistake("WORKDIR names no folder".to_owned())),
            "WORKDIR" => stage.change_folder(rest, escape),
            "ENV" => {
                stage.set_variables(rest, escape).map_err(mistake)?;
                None
            }
            "RUN" => Some(stage.run(line)),
            "ENTRYPOINT" => {
                stage.entrypoint = command(rest);
                // A new entry point drops the arguments that were for the old one.
                stage.cmd = Vec::new();
                None
            }
            "CMD" => {
                stage.cmd = command(rest);
                None
            }
            other => match copied {
                Some(copied) => Some(stage.copy(copied, rest, escape)),
                None if OTHERS.contains(&other) => None,
                None => return Err(mistake(format!("{other} is no instruction of a Dockerfile"))),
            },
        };
        stage.steps.extend(action.map(|action| Step { line: line.number, action }));
        Ok(())
    }

    fn from(&mut self, line: &Line) -> Result<(), Mistake> {
        let words: Vec<&str> = line.rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        let (image, name) = match words.as_slice() {
            [image] => (*image, None),
            [image, word, name] if word.eq_ignore_ascii_case("as") => (*image, Some((*name).to_owned())),
            _ => return Err(Mistake::new(line.number, "FROM is written as FROM IMAGE or FROM IMAGE AS NAME")),
        };
        // A base image that depends on a build argument is as unknown as any.
        let image = expand(image, &self.global, self.escape).unwrap_or_else(|_| image.to_owned());
        let base = match self.stages.iter().rposition(|stage| stage.is_named(&image)) {
            Some(index) => Origin::Stage(index),
            None => Origin::Image(image.clone()),
        };
        let stage = match &base {
            Origin::Stage(index) => {
                let earlier = self.stages[*index].clone();
                Stage { name, base, steps: Vec::new(), ..earlier }
            }
            Origin::Image(_) | Origin::Context => Stage {
                name,
                workdir: Workdir { path: Ok(usual_workdir(&image).to_owned()), assumed: (image != "scratch").then(|| image.clone()) },
                base,
                steps: Vec::new(),
                variables: Variables::new(),
                entrypoint: Vec::new(),
                cmd: Vec::new(),
            },
        };
        self.stages.push(stage);
        Ok(())
    }

    fn argument(&mut self, line: &Line) -> Result<(), Mistake> {
        if line.rest.is_empty() {
            return Err(Mistake::new(line.number, "ARG names nothing"));
        }
        for word in words(&line.rest, self.escape) {
            let (name, default) = word.split_once('=').map_or((word.as_str(), None), |(name, default)| (name, Some(default)));
            let scope = self.stages.last().map_or(&self.global, |stage| &stage.variables);
            let value = match default {
                Some(default) => expand(default, scope, self.escape).ok(),
                None => self.global.get(name).cloned().flatten().or_else(|| platform(name)),
            };
            match self.stages.last_mut() {
                // ENV wins over ARG, wherever they stand.
                Some(stage) if default.is_none() && matches!(stage.variables.get(name), Some(Some(_))) => {}
                Some(stage) => drop(stage.variables.insert(name.to_owned(), value)),
                None => drop(self.global.insert(name.to_owned(), value)),
            }
        }
        Ok(())
    }

    /// Where `--from=name` points.
    fn origin(&self, name: &str) -> Origin {
        let earlier = &self.stages[..self.stages.len().saturating_sub(1)];
        let by_name = earlier.iter().rposition(|stage| stage.is_named(name));
        let by_number = || name.parse::<usize>().ok().filter(|number| *number < earlier.len());
        by_name.or_else(by_number).map_or_else(|| Origin::Image(name.to_owned()), Origin::Stage)
    }
}

impl Stage {
    /// Where its programs start, if that is known.
    pub(super) fn workdir(&self) -> Option<&str> {
        self.workdir.path.as_deref().ok()
    }

    fn is_named(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name))
    }

    fn change_folder(&mut self, rest: &str, escape: char) -> Option<Action> {
        let path = expand(rest, &self.variables, escape).and_then(|path| {
            if path.starts_with('/') {
                Ok(paths::join("/", &path))
            } else {
                self.workdir.path.clone().map(|base| paths::join(&base, &path))
            }
        });
        let assumed = if rest.starts_with('/') { None } else { self.workdir.assumed.take() };
        self.workdir = Workdir { path, assumed };
        self.workdir.path.clone().ok().map(Action::Workdir)
    }

    fn set_variables(&mut self, rest: &str, escape: char) -> Result<(), String> {
        let words = words(rest, escape);
        let pairs: Vec<(String, String)> = if words.first().is_some_and(|word| word.contains('=')) {
            let pairs: Option<Vec<_>> =
                words.iter().map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect();
            pairs.ok_or_else(|| "ENV is written as ENV NAME=VALUE".to_owned())?
        } else {
            let (name, value) = rest.split_once(char::is_whitespace).ok_or_else(|| "ENV is written as ENV NAME=VALUE".to_owned())?;
            vec![(name.to_owned(), value.trim().to_owned())]
        };
        // Values see the variables from before the line.
        let values: Vec<_> = pairs.iter().map(|(_, value)| expand(value, &self.variables, escape).ok()).collect();
        self.variables.extend(pairs.into_iter().map(|(name, _)| name).zip(values));
        Ok(())
    }

    fn run(&self, line: &Line) -> Action {
        let script = command(&line.rest);
        // The exec form has no shell; its words are as good as a script.
        let script = if line.rest.starts_with('[') { script.join(" ") } else { line.rest.clone() };
        let script = std::iter::once(script.as_str()).chain(line.heredocs.iter().map(String::as_str)).collect::<Vec<_>>().join("\n");
        // Names of programs and folders are short; scripts must not grow without end.
        let short = |value: &&String| value.len() <= 256;
        let variables = self.variables.iter().filter_map(|(name, value)| Some((name, value.as_ref().filter(short)?)));
        // A shell knows more variables than the Dockerfile: only these are put in.
        let script = variables.fold(script, |script, (name, value)| {
            if script.len() > LONGEST_SCRIPT {
                return script;
            }
            let script = script.replace(&format!("${{{name}}}"), value);
            replace_variable(&script, name, value)
        });
        Action::Run { script, workdir: self.workdir.path.clone().unwrap_or_else(|_| "/".to_owned()) }
    }

    fn copy(&self, written: WrittenCopy, text: &str, escape: char) -> Action {
        self.clear_copy(written, text, escape).unwrap_or_else(|why| Action::Unclear { text: text.to_owned(), why })
    }

    fn clear_copy(&self, written: WrittenCopy, text: &str, escape: char) -> Result<Action, Unclear> {
        let expanded = |word: &String| expand(word, &self.variables, escape);
        let mut words = written.words.iter().map(expanded).collect::<Result<Vec<String>, _>>()?;
        let exclude = written.exclude.iter().map(expanded).collect::<Result<Vec<String>, _>>()?;
        let to = words.pop().unwrap_or_default();
        if written.words.iter().any(|word| lines::is_heredoc(word)) {
            return Err("its content stands in the Dockerfile itself".to_owned());
        }
        let absolute = to.starts_with('/');
        let base = if absolute { "/".to_owned() } else { self.workdir.path.clone()? };
        Ok(Action::Copy(Copy {
            text: text.to_owned(),
            from: written.from,
            sources: words,
            into_folder: to.ends_with('/') || to == "." || to.ends_with("/.") || to == ".." || to.ends_with("/.."),
            to: paths::join(&base, &to),
            unpacks: written.unpacks,
            keeps_parents: written.keeps_parents,
            exclude,
            assumes: if absolute { None } else { self.workdir.assumed.clone() },
        }))
    }
}

/// A `COPY` or `ADD` before variables have values.
struct WrittenCopy {
    from: Origin,
    /// Sources, then the destination; at least two.
    words: Vec<String>,
    unpacks: bool,
    keeps_parents: bool,
    exclude: Vec<String>,
}

fn read_copy(line: &Line, origin: impl Fn(&str) -> Origin) -> Result<WrittenCopy, Mistake> {
    let mut written = WrittenCopy {
        from: Origin::Context,
        words: Vec::new(),
        unpacks: line.instruction == "ADD",
        keeps_parents: false,
        exclude: Vec::new(),
    };
    let mut rest = line.rest.as_str();
    while rest.starts_with("--") {
        let (flag, next) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = next.trim_start();
        match flag.split_once('=').unwrap_or((flag, "true")) {
            ("--from", name) => written.from = origin(name),
            ("--parents", value) => written.keeps_parents = value == "true",
            ("--exclude", pattern) => written.exclude.push(pattern.to_owned()),
            _ => {}
        }
    }
    written.words = match json_list(rest) {
        Some(words) => words,
        None => rest.split_whitespace().map(str::to_owned).collect(),
    };
    if written.words.len() < 2 {
        return Err(Mistake::new(line.number, format!("{} needs a source and a destination", line.instruction)));
    }
    Ok(written)
}

/// The exec form as it is; the shell form as a shell gets it.
fn command(rest: &str) -> Vec<String> {
    json_list(rest).unwrap_or_else(|| ["/bin/sh", "-c", rest].map(str::to_owned).into())
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Splits at white space outside of quotes; the quotes stay.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(character);
        if character == escape && quote != Some('\'') {
            word.extend(characters.next());
        } else if quote == Some(character) {
            quote = None;
        } else if quote.is_none() && matches!(character, '"' | '\'') {
            quote = Some(character);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `$NAME` where the name ends there.
fn replace_variable(script: &str, name: &str, value: &str) -> String {
    let mark = format!("${name}");
    let mut replaced = String::new();
    let mut rest = script;
    while let Some(position) = rest.find(&mark) {
        let after = &rest[position + mark.len()..];
        let ends = !after.starts_with(|next: char| next == '_' || next.is_ascii_alphanumeric());
        replaced.push_str(&rest[..position]);
        replaced.push_str(if ends { value } else { &mark });
        rest = after;
    }
    replaced + rest
}

/// What BuildKit sets for a build on this machine, where it is asked for.
fn platform(name: &str) -> Option<String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    match name {
        "TARGETOS" | "BUILDOS" => Some("linux".to_owned()),
        "TARGETARCH" | "BUILDARCH" => Some(architecture.to_owned()),
        "TARGETPLATFORM" | "BUILDPLATFORM" => Some(format!("linux/{architecture}")),
        "TARGETVARIANT" | "BUILDVARIANT" => Some(String::new()),
        _ => None,
    }
}

/// The working directory of public images that have one.
fn usual_workdir(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split([':', '@']).next().unwrap_or(name) {
        "golang" => "/go",
        "php" => "/var/www/html",
        "httpd" => "/usr/local/apache2",
        "tomcat" => "/usr/local/tomcat",
        "caddy" => "/srv",
        "bun" => "/home/bun/app",
        _ => "/",
    }
}

#[cfg(test)]
mod tests;
