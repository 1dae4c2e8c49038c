//! The configuration file: what it may hold, and clear words for what it may not.

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// ISO 4217 code of the prices.
    pub(crate) currency: String,
    /// A line for the top of the page; may be empty.
    pub(crate) banner: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { currency: "EUR".to_owned(), banner: String::new() }
    }
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let with_path = |problem| LoadError { path: path.to_owned(), problem };
        let text = fs::read_to_string(path).map_err(|error| with_path(Problem::Read(error)))?;
        Self::parse(&text).map_err(with_path)
    }

    /// A key that is absent keeps its default; one that is unknown is most likely a typing error.
    fn parse(text: &str) -> Result<Self, Problem> {
        let Value::Object(entries) = serde_json::from_str(text).map_err(Problem::Syntax)? else {
            return Err(Problem::NotAnObject);
        };
        let mut config = Self::default();
        for (key, value) in entries {
            let field = match key.as_str() {
                "currency" => &mut config.currency,
                "banner" => &mut config.banner,
                _ => return Err(Problem::UnknownKey(key)),
            };
            let Value::String(text) = value else {
                return Err(Problem::NotAString(key));
            };
            *field = text;
        }
        if config.currency.len() != 3 || !config.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Problem::NotACurrency(config.currency));
        }
        Ok(config)
    }
}

#[derive(Debug)]
pub(crate) struct LoadError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Read(io::Error),
    Syntax(serde_json::Error),
    NotAnObject,
    UnknownKey(String),
    NotAString(String),
    NotACurrency(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot use the configuration file {}: {}", self.path.display(), self.problem)
    }
}

impl Error for LoadError {}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(formatter, "{error}"),
            Self::Syntax(error) => write!(formatter, "not valid JSON: {error}"),
            Self::NotAnObject => write!(formatter, "expected a JSON object with `currency` and `banner`"),
            Self::UnknownKey(key) => write!(formatter, "unknown key `{key}`, expected `currency` or `banner`"),
            Self::NotAString(key) => write!(formatter, "`{key}` must be a string"),
            Self::NotACurrency(value) => {
                write!(formatter, "`currency` must be three capital letters such as \"EUR\", not {value:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn both_keys_are_read() {
        let config = Config::parse(r#"{"currency": "CHF", "banner": "Sale"}"#).unwrap();
        assert_eq!(config, Config { currency: "CHF".to_owned(), banner: "Sale".to_owned() });
    }

    #[test]
    fn absent_keys_keep_their_defaults() {
        assert_eq!(Config::parse("{}").unwrap(), Config::default());
    }

    #[test]
    fn problems_say_where_and_what() {
        assert_eq!(problem("{\n  \"banner\": }"), "not valid JSON: expected value at line 2 column 13");
        assert_eq!(problem("[]"), "expected a JSON object with `currency` and `banner`");
        assert_eq!(problem(r#"{"curency": "EUR"}"#), "unknown key `curency`, expected `currency` or `banner`");
        assert_eq!(problem(r#"{"banner": 3}"#), "`banner` must be a string");
        assert_eq!(problem(r#"{"currency": "euro"}"#), "`currency` must be three capital letters such as \"EUR\", not \"euro\"");
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = Config::load(Path::new("/nonexistent/config.json")).unwrap_err().to_string();
        assert_eq!(message, "cannot use the configuration file /nonexistent/config.json: No such file or directory (os error 2)");
    }
}
