//! What a TARGET means. Pure.

use devloop_core::target::{ParseTargetError, Target};
use devloop_core::{CommandError, Result};
use regex::Regex;

/// What is looked for.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    /// An object that selects its pods by labels, or a pod.
    Object(Target),
    /// Any other object: its pods are those that it owns.
    Owner { kind: String, name: String },
    /// A Deployment, if there is one of this name; else pods whose names match it.
    Name(String),
    /// Pods whose names match.
    Pattern(Regex),
}

impl Query {
    /// Reads a target. Where labels narrow the pods, a name is a pattern.
    ///
    /// # Errors
    /// When it is neither `KIND/NAME` nor a name nor a pattern.
    pub(crate) fn parse(text: &str, is_narrowed: bool) -> Result<Self> {
        if let Some((kind, name)) = text.split_once('/') {
            return match text.parse::<Target>() {
                Ok(_) if is_narrowed => Err(CommandError::usage(format!("{text} says which pods; --selector can't, too"))),
                Ok(target) => Ok(Self::Object(target)),
                Err(ParseTargetError::UnknownKind(_)) if !name.is_empty() && !name.contains('/') => {
                    Ok(Self::Owner { kind: kind.to_owned(), name: name.to_owned() })
                }
                Err(error) => Err(CommandError::usage(error.to_string())),
            };
        }
        let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if is_name && !is_narrowed {
            return Ok(Self::Name(text.to_owned()));
        }
        pattern(text).map(Self::Pattern)
    }

    /// For messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Object(target) => target.to_string(),
            Self::Owner { kind, name } => format!("{kind}/{name}"),
            Self::Name(name) => format!("{name:?}"),
            Self::Pattern(pattern) => format!("pods matching {:?}", pattern.as_str()),
        }
    }
}

/// A regular expression anywhere in a name, or a glob over all of it: `web-*` and
/// `web-?` are globs, as no regular expression for names would end like that.
fn pattern(text: &str) -> Result<Regex> {
    let text = if is_glob(text) {
        let body: String = text
            .chars()
            .map(|character| match character {
                '*' => ".*".to_owned(),
                '?' => ".".to_owned(),
                character => regex::escape(&character.to_string()),
            })
            .collect();
        format!("^{body}$")
    } else {
        text.to_owned()
    };
    Regex::new(&text).map_err(|error| CommandError::usage(format!("the pattern of pods can't be read: {error}")))
}

fn is_glob(text: &str) -> bool {
    let is_of_name = |character: char| character.is_ascii_alphanumeric() || "-*?".contains(character);
    (text.contains('*') || text.contains('?')) && text.chars().all(is_of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_objects_names_globs_and_expressions() {
        let describe = |text: &str| Query::parse(text, false).map_or_else(|error| error.to_string(), |query| query.describe());
        let texts = [
            "web",
            "deploy/web",
            "cronjob/backup",
            "widgets.example.com/w",
            "web-*",
            "*",
            "web-?",
            "^web",
            "web|api",
            ".",
            "web.*",
            "deploy/",
            "a/b/c",
            "(",
        ];
        insta::assert_snapshot!(texts.map(|text| format!("{text} -> {}", describe(text))).join("\n"));
        assert!(matches!(Query::parse("web", false), Ok(Query::Name(_))));
        assert!(matches!(Query::parse("web", true), Ok(Query::Pattern(_))));
        assert_eq!(Query::parse("deploy/web", true).unwrap_err().status().code(), 2);
    }
}
