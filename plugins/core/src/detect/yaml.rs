//! A service as a devloop.yaml, with the reasons as comments. Pure.

use super::{Detected, Reason, what_binary, what_build, what_reload, what_sync};
use crate::project::{API_VERSION, Build, HttpCall, ReloadAction, ReloadRule, RestartBy, SCHEMA_URL, Service, SyncRule};
use crate::target::Target;
use std::path::Path;
use std::time::Duration;

/// A devloop.yaml that says what was detected, and why.
pub fn render_yaml(detected: &Detected) -> String {
    let mut page = Page { text: String::new(), reasons: &detected.reasons };
    page.line(0, &format!("# yaml-language-server: $schema={SCHEMA_URL}"));
    page.line(0, "# What devloop needs to know about this project. Paths are relative to this folder.");
    page.line(0, &format!("# Worked out for {}; change what is wrong.", one_line(&detected.service.deploy.target.to_string())));
    let left_out: Vec<&Reason> = detected.reasons.iter().filter(|reason| reason.what.starts_with("left out: ")).collect();
    if !left_out.is_empty() {
        page.line(0, "#");
        page.line(0, "# Not followed, so changes of these need a new image, or a rule of yours:");
    }
    for reason in left_out {
        page.line(0, &format!("#   {}: {}", one_line(reason.what.trim_start_matches("left out: ")), one_line(&reason.why)));
    }
    page.service(&detected.service);
    page.text
}

/// The same without comments.
pub(super) fn plain(service: &Service) -> String {
    let mut page = Page { text: String::new(), reasons: &[] };
    page.service(service);
    page.text
}

struct Page<'a> {
    text: String,
    reasons: &'a [Reason],
}

impl Page<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        self.text.push_str(&"  ".repeat(depth));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn why(&mut self, depth: usize, what: &str) {
        for reason in self.reasons.iter().filter(|reason| reason.what == what) {
            self.line(depth, &format!("# {}", one_line(&reason.why)));
        }
    }

    fn service(&mut self, service: &Service) {
        self.line(0, &format!("apiVersion: {API_VERSION}"));
        self.line(0, "services:");
        self.line(1, &format!("- name: {}", scalar(&service.name)));
        if let Some(build) = &service.build {
            self.why(2, &what_build(build));
            self.build(build);
        }
        if let Some(binary) = &service.binary {
            self.why(2, &what_binary(binary));
            self.line(2, &format!("binary: {}", scalar(binary)));
        }
        self.list("sync", &service.sync, Self::sync);
        self.list("reload", &service.reload, Self::reload);
        if service.restart != crate::project::RestartSpec::default() {
            self.line(2, "restart:");
            let by = match service.restart.by {
                RestartBy::InPlace => "in-place",
                RestartBy::Supervisor => "supervisor",
            };
            self.line(3, &format!("by: {by}"));
            if let Some(grace) = service.restart.grace {
                self.line(3, &format!("grace: {}", duration(grace)));
            }
        }
        self.line(2, "deploy:");
        if !service.deploy.manifests.is_empty() {
            self.line(3, &format!("manifests: {}", paths(&service.deploy.manifests)));
        }
        match &service.deploy.target {
            Target::Object { .. } => self.line(3, &format!("target: {}", scalar(&service.deploy.target.to_string()))),
            Target::Selector(selector) => self.line(3, &format!("target: {{ selector: {} }}", scalar(selector))),
        }
        if let Some(container) = &service.deploy.container {
            self.why(3, &format!("container: {container}"));
            self.line(3, &format!("container: {}", scalar(container)));
        }
    }

    fn list<T>(&mut self, key: &str, items: &[T], item: fn(&mut Self, &T)) {
        if !items.is_empty() {
            self.line(2, &format!("{key}:"));
        }
        for one in items {
            item(self, one);
        }
    }

    fn build(&mut self, build: &Build) {
        self.line(2, "build:");
        match build {
            Build::Cargo(cargo) => {
                self.line(3, "cargo:");
                self.line(4, &format!("package: {}", scalar(&cargo.package)));
                self.line(4, &format!("binary: {}", scalar(&cargo.binary)));
                if let Some(profile) = &cargo.profile {
                    self.line(4, &format!("profile: {}", scalar(profile)));
                }
                self.path(4, "manifest", cargo.manifest.as_deref());
            }
            Build::Go(go) => {
                self.line(3, "go:");
                self.line(4, &format!("package: {}", scalar(&go.package)));
                self.path(4, "folder", go.folder.as_deref());
                if !go.flags.is_empty() {
                    self.line(4, &format!("flags: {}", sequence(&go.flags)));
                }
            }
            Build::Node(node) => {
                self.line(3, "node:");
                self.line(4, &format!("to: {}", scalar(&node.to)));
                self.path(4, "folder", node.folder.as_deref());
                self.line(4, &format!("include: {}", paths(&node.include)));
            }
            Build::Python(python) => {
                self.line(3, "python:");
                self.path(4, "requirements", python.requirements.as_deref());
                self.line(4, &format!("to: {}", scalar(&python.to)));
                self.path(4, "folder", python.folder.as_deref());
                self.line(4, &format!("include: {}", paths(&python.include)));
            }
            Build::Command(command) => {
                self.line(3, "command:");
                self.line(4, &format!("run: {}", sequence(&command.run)));
                self.line(4, &format!("watch: {}", paths(&command.watch)));
                self.path(4, "folder", command.folder.as_deref());
                self.path(4, "output", command.output.as_deref());
            }
            Build::Dockerfile(dockerfile) => {
                self.line(3, "dockerfile:");
                self.path(4, "file", Some(&dockerfile.file()));
                self.path(4, "context", Some(&dockerfile.context));
                // Nothing else is ever worked out.
            }
        }
    }

    fn path(&mut self, depth: usize, key: &str, path: Option<&Path>) {
        if let Some(path) = path {
            self.line(depth, &format!("{key}: {}", scalar(&path.to_string_lossy())));
        }
    }

    fn sync(&mut self, rule: &SyncRule) {
        self.why(3, &what_sync(rule));
        self.line(3, &format!("- from: {}", scalar(&rule.from.to_string_lossy())));
        self.line(4, &format!("to: {}", scalar(&rule.to)));
        if !rule.ignore.is_empty() {
            self.line(4, &format!("ignore: {}", sequence(&rule.ignore)));
        }
    }

    fn reload(&mut self, rule: &ReloadRule) {
        self.why(3, &what_reload(rule));
        let action = match &rule.action {
            ReloadAction::None => "none".to_owned(),
            ReloadAction::Restart => "restart".to_owned(),
            ReloadAction::Signal(name) => format!("{{ signal: {} }}", scalar(name)),
            ReloadAction::Http(HttpCall { path, port, method }) => {
                format!("{{ http: {{ path: {}, port: {port}, method: {} }} }}", scalar(path), scalar(method))
            }
            ReloadAction::Exec(words) => format!("{{ exec: {} }}", sequence(words)),
        };
        if rule.on.is_empty() {
            self.line(3, &format!("- do: {action}"));
        } else {
            self.line(3, &format!("- on: {}", sequence(&rule.on)));
            self.line(4, &format!("do: {action}"));
        }
    }
}

/// The largest unit without a rest.
fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds.is_multiple_of(1000) { format!("{}s", milliseconds / 1000) } else { format!("{milliseconds}ms") }
}

fn paths(paths: &[std::path::PathBuf]) -> String {
    sequence(&paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>())
}

fn sequence(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| scalar(word)).collect::<Vec<_>>().join(", "))
}

/// A text as YAML reads it back: plain where it can't be anything else, else in
/// double quotes (<https://yaml.org/spec/1.2.2/#57-escaped-characters>).
fn scalar(text: &str) -> String {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || b"/._".contains(&byte));
    let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-=".contains(&byte));
    let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let word = text.to_ascii_lowercase();
    // `.5`, `.inf`, `._` and the like are numbers, or were in older versions.
    let number = text.strip_prefix('.').is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '.']) && !rest.contains('/'));
    if first && inner && !number && !words.contains(&word.as_str()) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            other if (other as u32) <= 0xff => quoted.push_str(&format!("\\x{:02x}", other as u32)),
            other if (other as u32) <= 0xffff => quoted.push_str(&format!("\\u{:04x}", other as u32)),
            other => quoted.push_str(&format!("\\U{:08x}", other as u32)),
        }
    }
    quoted.push('"');
    quoted
}

/// A comment ends with its line.
fn one_line(text: &str) -> String {
    let plain = |character: char| {
        if character.is_control() || matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { character }
    };
    text.chars().map(plain).collect::<String>().split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
