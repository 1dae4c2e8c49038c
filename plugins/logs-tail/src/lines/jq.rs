//! `--jq`: a jq program over each record. Pure.

use super::expression::pointer;
use super::format::{Format, Kind};
use jaq_core::load::{Arena, File, Loader, span};
use jaq_core::{Compiler, Ctx, Vars, data, unwrap_valr};
use jaq_json::{Val, read, write};

/// More results of one record than this are an endless program.
const MOST_RESULTS: usize = 10_000;

/// A program, ready to be run.
pub(crate) struct Jq {
    filter: jaq_core::Filter<data::JustLut<Val>>,
}

impl std::fmt::Debug for Jq {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Jq")
    }
}

impl Jq {
    /// From the program's text.
    ///
    /// # Errors
    /// When it can't be read; with the place.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let funs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let arena = Arena::default();
        let modules = Loader::new(defs).load(&arena, File { code: text, path: () }).map_err(|errors| {
            use jaq_core::load::Error;
            let found = errors.into_iter().next().map(|(_, error)| match error {
                Error::Io(errors) => errors.into_iter().next().map(|(at, error)| (error, span(text, at).start)),
                Error::Lex(errors) => {
                    errors.into_iter().next().map(|(expected, at)| (format!("expected {}", expected.as_str()), span(text, at).start))
                }
                Error::Parse(errors) => errors.into_iter().next().map(|(expected, at)| {
                    (format!("expected {}", expected.as_str()), if at.is_empty() { text.len() } else { span(text, at).start })
                }),
            });
            show(text, found.flatten())
        })?;
        let filter = Compiler::default().with_funs(funs).compile(modules).map_err(|errors| {
            let found = errors.into_iter().flat_map(|(_, errors)| errors).next();
            show(text, found.map(|(name, undefined)| (format!("no {} {name:?}", undefined.as_str()), span(text, name).start)))
        })?;
        Ok(Self { filter })
    }

    /// What the program makes of a record: strings as they are, all else as
    /// JSON. Nothing means that the record is not wanted.
    ///
    /// # Errors
    /// When the program fails on it.
    pub(crate) fn run(&self, format: Format, text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let input = input(format, text)?;
        let context = Ctx::<data::JustLut<Val>>::new(&self.filter.lut, Vars::new([]));
        let mut results = Vec::new();
        for result in self.filter.id.run((context, input)).map(unwrap_valr).take(MOST_RESULTS) {
            let value = result.map_err(|error| error.to_string())?;
            let mut bytes = Vec::new();
            match &value {
                Val::TStr(text) | Val::BStr(text) => bytes.extend_from_slice(text),
                other => write::write(&mut bytes, &write::Pp::default(), 0, other).map_err(|error| error.to_string())?,
            }
            results.push(bytes);
        }
        Ok(results)
    }
}

/// A JSON line is what it says; of others their fields; of plain text an object
/// with the text as its message.
fn input(format: Format, text: &[u8]) -> Result<Val, String> {
    if format == Format::Json {
        return read::parse_single(text).map_err(|error| error.to_string());
    }
    let string = |bytes: &[u8]| Val::from(String::from_utf8_lossy(bytes).into_owned());
    let mut map = jaq_json::Map::default();
    format.walk(text, &mut |key, slot| {
        let raw = slot.text(text);
        let value = match slot.kind {
            Kind::Bare => read::parse_single_num(&raw).map_or_else(|| string(&raw), Val::Num),
            _ => string(&raw),
        };
        map.insert(string(key), value);
        true
    });
    if format == Format::Plain {
        map.insert(string(b"message"), string(text));
    }
    Ok(Val::obj(map))
}

fn show(text: &str, found: Option<(String, usize)>) -> String {
    match found {
        Some((problem, position)) => format!("{problem}\n{}", pointer(text, position)),
        None => format!("it can't be read\n{}", pointer(text, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, line: &str) -> String {
        let results = Jq::parse(program).unwrap().run(Format::sniff(line.as_bytes()), line.as_bytes());
        results.map_or_else(|error| format!("error: {error}"), |results| String::from_utf8(results.join(&b' ')).unwrap())
    }

    #[test]
    fn programs_choose_and_change() {
        let line = r#"{"status":503,"path":"/a","n":[1,2]}"#;
        assert_eq!(run("select(.status >= 500) | .path", line), "/a");
        assert_eq!(run("select(.status < 500)", line), "");
        assert_eq!(run(".n", line), "[1,2]");
        assert_eq!(run(".n[]", line), "1 2");
        assert_eq!(run(".status + 1", "level=info status=200 x=y"), "201");
        assert_eq!(run(".message | length", "plain"), "5");
        assert!(run(".path + 1", line).starts_with("error: "));
        assert!(run(".", "{broken}").starts_with("error: "));
    }

    #[test]
    fn an_endless_program_ends() {
        assert_eq!(Jq::parse("repeat(1)").unwrap().run(Format::Plain, b"x").unwrap().len(), MOST_RESULTS);
    }

    #[test]
    fn an_error_shows_the_place() {
        let errors = ["select(.a", ".a | nothing", ".a |", "\"open"].map(|text| Jq::parse(text).unwrap_err());
        insta::assert_snapshot!(errors.join("\n"));
    }
}
