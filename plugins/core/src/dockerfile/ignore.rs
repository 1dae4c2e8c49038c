//! `.dockerignore`, read and matched as Docker's own programs do it
//! (<https://docs.docker.com/build/concepts/context/#dockerignore-files>; the
//! letter of it is in `moby/patternmatcher`, whose rules differ from those of
//! `.gitignore` in many a detail: a pattern starts at the context's root, `!` may
//! take back what a folder above lost, and the last line that fits decides).

use regex::Regex;
use std::fmt::Write as _;

/// A pattern that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} can't be read: {reason}")]
pub struct BadPattern {
    /// It, without blanks around it.
    pub pattern: String,
    /// Why.
    pub reason: String,
}

/// The patterns in the text of an ignore file: without comments and empty lines,
/// each in its shortest form, relative to the context.
pub fn read(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut patterns = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (mark, pattern) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
        let mut pattern = if pattern.is_empty() { String::new() } else { clean(pattern) };
        if pattern.len() > 1 && pattern.starts_with('/') {
            pattern.remove(0);
        }
        patterns.push(format!("{mark}{pattern}"));
    }
    patterns
}

/// The same patterns in the syntax of `.gitignore`, for those who match with that:
/// as near as it comes, since there a folder that is left out is not looked into.
pub fn read_for_git(text: &str) -> Vec<String> {
    let patterns = read(text);
    let rooted = patterns.iter().map(|pattern| match pattern.strip_prefix('!') {
        Some(pattern) => format!("!/{}", pattern.trim_start_matches('/')),
        None => format!("/{}", pattern.trim_start_matches('/')),
    });
    rooted.collect()
}

/// The shortest path that means the same: Go's `path.Clean`.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Patterns in an order that counts.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// `!`: what fits is taken back.
    takes_back: bool,
    text: String,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Exact,
    /// `folder/**`
    Prefix,
    /// `**/name`
    Suffix,
    Regex(Regex),
}

/// Which patterns fit a folder: what its content is asked with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitting(Vec<bool>);

impl Matcher {
    /// Takes patterns as [`read`] answers them, or as a builder asks for.
    ///
    /// # Errors
    /// When one of them can't be read.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, BadPattern> {
        let mut parsed = Vec::new();
        for pattern in patterns.into_iter().map(str::trim).filter(|pattern| !pattern.is_empty()) {
            let bad = |reason: String| BadPattern { pattern: pattern.to_owned(), reason };
            let text = clean(pattern);
            let (takes_back, text) = text.strip_prefix('!').map_or((false, text.as_str()), |rest| (true, rest));
            if text.is_empty() {
                return Err(bad("there is nothing after the !".to_owned()));
            }
            if !is_well_formed(text) {
                return Err(bad("a [ or a \\ in it has no end".to_owned()));
            }
            let form = form_of(text).map_err(|error| bad(error.to_string()))?;
            parsed.push(Pattern { takes_back, text: text.to_owned(), form });
        }
        Ok(Self { patterns: parsed })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path, relative and with slashes, fits, given what fits the folder
    /// that it is in; `None` for that at the root.
    pub fn fits_below(&self, path: &str, folder: Option<&Fitting>) -> (bool, Fitting) {
        let mut verdict = false;
        let mut fitting = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut fits = folder.is_some_and(|folder| folder.0.get(index).copied().unwrap_or(false));
            if !fits {
                // It could change nothing.
                if pattern.takes_back != verdict {
                    continue;
                }
                fits = pattern.fits(path);
            }
            fitting[index] = fits;
            if fits {
                verdict = !pattern.takes_back;
            }
        }
        (verdict, Fitting(fitting))
    }

    /// Whether a path fits, by itself or by a folder that it is in.
    pub fn fits(&self, path: &str) -> bool {
        let mut folder: Option<Fitting> = None;
        let ends = path.match_indices('/').map(|(index, _)| index).chain([path.len()]);
        let mut verdict = false;
        for end in ends {
            let (fits, fitting) = self.fits_below(&path[..end], folder.as_ref());
            (verdict, folder) = (fits, Some(fitting));
        }
        verdict
    }

    /// Whether something in a folder that fits may be taken back.
    pub(super) fn may_take_back_below(&self, folder: &str) -> bool {
        self.some_lead_below(folder, true)
    }

    /// Whether something in a folder that doesn't fit may fit.
    pub(super) fn may_fit_below(&self, folder: &str) -> bool {
        self.some_lead_below(folder, false)
    }

    /// Patterns without wildcards say where they lead; others lead anywhere.
    fn some_lead_below(&self, folder: &str, takes_back: bool) -> bool {
        let mut leading = self.patterns.iter().filter(|pattern| pattern.takes_back == takes_back).map(Pattern::without_last_wildcard);
        leading.any(|text| text.contains(['*', '[', ']', '?', '^', '\\']) || format!("{text}/").starts_with(&format!("{folder}/")))
    }
}

impl Pattern {
    fn fits(&self, path: &str) -> bool {
        match &self.form {
            Form::Exact => path == self.text,
            Form::Prefix => path.starts_with(&self.text[..self.text.len() - 2]),
            Form::Suffix => {
                let suffix = &self.text[2..];
                // `**/name` is `name` itself, too.
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Form::Regex(regex) => regex.is_match(path),
        }
    }

    fn without_last_wildcard(&self) -> &str {
        let text = self.text.strip_suffix("/**").unwrap_or(&self.text);
        text.strip_suffix("/*").unwrap_or(text)
    }
}

/// Whether Go's `filepath.Match` takes it: brackets are closed, ranges are whole,
/// and a backslash has something to escape.
fn is_well_formed(pattern: &str) -> bool {
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.next().is_none() => return false,
            '[' => {
                characters.next_if_eq(&'^');
                let mut ranges = 0;
                loop {
                    if ranges > 0 && characters.next_if_eq(&']').is_some() {
                        break;
                    }
                    if !takes_end(&mut characters) || characters.next_if_eq(&'-').is_some() && !takes_end(&mut characters) {
                        return false;
                    }
                    ranges += 1;
                }
            }
            _ => {}
        }
    }
    true
}

/// Whether one end of a range comes next; takes it.
fn takes_end(characters: &mut impl Iterator<Item = char>) -> bool {
    match characters.next() {
        None | Some('-' | ']') => false,
        Some('\\') => characters.next().is_some(),
        Some(_) => true,
    }
}

/// Works a pattern out. It follows the original step by step, whose order decides
/// what a mixture of wildcards comes to.
fn form_of(pattern: &str) -> Result<Form, regex::Error> {
    enum So {
        Exact,
        Prefix,
        Suffix,
        Regex,
    }
    let mut so = So::Exact;
    let mut regex = String::from("^");
    let mut characters = pattern.chars().peekable();
    let mut is_first = true;
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.next_if_eq(&'*').is_some() => {
                // `**/` is as good as `**`.
                characters.next_if_eq(&'/');
                if characters.peek().is_some() {
                    regex.push_str("(.*/)?");
                    so = So::Regex;
                } else if matches!(so, So::Exact) {
                    so = So::Prefix;
                } else {
                    regex.push_str(".*");
                    so = So::Regex;
                }
                if is_first {
                    so = So::Suffix;
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                so = So::Regex;
            }
            '?' => {
                regex.push_str("[^/]");
                so = So::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => {
                regex.push('\\');
                regex.push(character);
            }
            '\\' => {
                regex.push('\\');
                if let Some(next) = characters.next() {
                    regex.push(next);
                    so = So::Regex;
                }
            }
            '[' | ']' => {
                regex.push(character);
                so = So::Regex;
            }
            other => regex.push(other),
        }
        is_first = false;
    }
    Ok(match so {
        So::Exact => Form::Exact,
        So::Prefix => Form::Prefix,
        So::Suffix => Form::Suffix,
        So::Regex => Form::Regex(Regex::new(&format!("{}$", of_go(&regex)))?),
    })
}

/// A regular expression of Go's in the words of the library here: inside of
/// brackets `[`, `&` and `~` are themselves, and `\<` is no border of a word.
fn of_go(regex: &str) -> String {
    let mut written = String::new();
    let mut characters = regex.chars().peekable();
    let mut inside = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(next @ ('<' | '>')) => written.push(next),
                Some(next) => {
                    let _ = write!(written, "\\{next}");
                }
                None => written.push('\\'),
            },
            '[' if !inside => {
                inside = true;
                written.push('[');
                if characters.next_if_eq(&'^').is_some() {
                    written.push('^');
                }
                if characters.next_if_eq(&']').is_some() {
                    written.push_str("\\]");
                }
            }
            '[' | '&' | '~' if inside => {
                let _ = write!(written, "\\{character}");
            }
            ']' if inside => {
                inside = false;
                written.push(']');
            }
            ']' => written.push_str("\\]"),
            other => written.push(other),
        }
    }
    written
}

#[cfg(test)]
#[path = "ignore_tests.rs"]
mod tests;
