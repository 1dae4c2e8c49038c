//! Variables and quotes in the words of a Dockerfile
//! (<https://docs.docker.com/reference/dockerfile/#environment-replacement>).

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// What variables stand for; `None` for one that only the build knows.
pub(super) type Variables = BTreeMap<String, Option<String>>;

/// Why a word has no value here.
pub(super) type Unclear = String;

/// The longest path that Linux takes.
const LONGEST: usize = 4096;

/// Takes the quotes from a word and puts in the values of variables.
pub(super) fn expand(word: &str, variables: &Variables, escape: char) -> Result<String, Unclear> {
    let mut expander = Expander { characters: word.chars().peekable(), variables, escape };
    let value = expander.until(None)?;
    // Values of values may grow without end.
    if value.len() > LONGEST { Err("its value is longer than any path".to_owned()) } else { Ok(value) }
}

struct Expander<'a> {
    characters: Peekable<Chars<'a>>,
    variables: &'a Variables,
    escape: char,
}

impl Expander<'_> {
    /// Reads to the end, or to the brace that ends `${NAME:-word}`.
    fn until(&mut self, end: Option<char>) -> Result<String, Unclear> {
        let mut value = String::new();
        let mut quoted = false;
        while let Some(character) = self.characters.next() {
            match character {
                _ if !quoted && Some(character) == end => return Ok(value),
                '\'' if !quoted => value.extend(self.characters.by_ref().take_while(|character| *character != '\'')),
                '"' => quoted = !quoted,
                '$' => value.push_str(&self.variable()?),
                _ if character == self.escape => value.extend(self.characters.next()),
                _ => value.push(character),
            }
        }
        match end {
            Some(end) => Err(format!("a {end:?} is missing")),
            None => Ok(value),
        }
    }

    fn variable(&mut self) -> Result<String, Unclear> {
        if self.characters.next_if_eq(&'{').is_none() {
            let name = self.name();
            return if name.is_empty() { Ok("$".to_owned()) } else { self.value(&name) };
        }
        let name = self.name();
        let unset = !matches!(self.variables.get(&name), Some(Some(_)));
        let empty = unset || self.variables.get(&name).is_some_and(|value| value.as_deref() == Some(""));
        let strict = self.characters.next_if_eq(&':').is_some();
        let missing = if strict { empty } else { unset };
        match self.characters.next() {
            Some('}') if !strict => self.value(&name),
            Some('-') => {
                let default = self.until(Some('}'))?;
                if missing { Ok(default) } else { self.value(&name) }
            }
            Some('+') => {
                let instead = self.until(Some('}'))?;
                Ok(if missing { String::new() } else { instead })
            }
            _ => Err(format!("the form of ${{{name}...}} is not known")),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(character) =
            self.characters.next_if(|next| *next == '_' || next.is_ascii_alphabetic() || (!name.is_empty() && next.is_ascii_digit()))
        {
            name.push(character);
        }
        name
    }

    fn value(&self, name: &str) -> Result<String, Unclear> {
        match self.variables.get(name) {
            Some(Some(value)) => Ok(value.clone()),
            Some(None) => Err(format!("the build argument {name} has no default")),
            None => Err(format!("the variable {name} is not set in the Dockerfile")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables() -> Variables {
        [("APP", Some("web")), ("EMPTY", Some("")), ("LATE", None)].map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into()
    }

    #[test]
    fn variables_have_values_and_quotes_go() {
        for (word, value) in [
            ("/app/$APP", "/app/web"),
            ("${APP}x", "webx"),
            ("\"${APP} x\"", "web x"),
            ("'$APP'", "$APP"),
            ("\\$APP", "$APP"),
            ("${NONE:-/d/$APP}", "/d/web"),
            ("${EMPTY:-x}${EMPTY-y}", "x"),
            ("${APP:+yes}${NONE:+no}", "yes"),
            ("a$", "a$"),
            ("${LATE:-x}", "x"),
        ] {
            assert_eq!(expand(word, &variables(), '\\').unwrap(), value, "{word}");
        }
        for word in ["$NONE", "$LATE", "${APP", "${APP#w}", "${APP:-x", "${}", "${APP:}"] {
            assert!(expand(word, &variables(), '\\').is_err(), "{word}");
        }
    }

    #[test]
    fn values_do_not_grow_without_end() {
        let long = [("A".to_owned(), Some("x".repeat(LONGEST)))].into();
        assert!(expand("$A", &long, '\\').is_ok());
        assert!(expand("$A$A", &long, '\\').is_err());
    }

    proptest! {
        #[test]
        fn any_word_has_a_value_or_none(word in "[$A-P{}:+\"'\\\\ -]{0,24}") {
            let _ = expand(&word, &variables(), '\\');
        }

        #[test]
        fn plain_words_stay(word in "[a-z/._0-9-]{0,24}") {
            prop_assert_eq!(expand(&word, &variables(), '\\').unwrap(), word);
        }
    }
}
