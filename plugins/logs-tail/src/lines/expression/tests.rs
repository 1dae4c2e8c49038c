use super::*;
use crate::lines::format::Format;
use crate::lines::place::Place;
use proptest::prelude::*;

fn holds(expression: &str, line: &str) -> bool {
    let place = Place { pod: "web-1".into(), container: "app".into(), namespace: "shop".into(), ..Place::default() };
    let text = line.as_bytes();
    Expression::parse(expression).unwrap_or_else(|error| panic!("{error}")).holds(Subject {
        text,
        format: Format::sniff(text),
        place: &place,
    })
}

const JSON: &str = r#"{"level":"warn","status":503,"path":"/api/x","took":"1.5s","secs":0.25,"ok":false,"id":9007199254740993,"a":{"b":[{"c":"x"}]},"e.f":1,"n":null}"#;
const LOGFMT: &str = r#"level=error status=200 took=15ms ok=true path="/a b" a.b=2"#;

#[test]
fn expressions_say_what_they_mean() {
    for (expression, json, logfmt) in [
        ("status>=500 && path ~ \"^/api\"", true, false),
        ("status == 200 || status==503", true, true),
        ("took > 1s", true, false),
        ("took <= 15ms", false, true),
        ("secs < 1m", true, false),
        ("ok", false, true),
        ("!ok", true, false),
        ("ok == true", false, true),
        ("ok != true", true, false),
        ("a.b[0].c == 'x'", true, false),
        ("a[\"b\"][0].c ~ x", false, false),
        ("a.b == 2", false, true),
        ("e.f == 1", true, false),
        ("missing == null && !has(missing)", true, true),
        ("n == null", true, true),
        ("missing != 3", true, true),
        ("missing < 3 || missing >= 3", false, false),
        ("missing !~ \"x\"", true, true),
        ("status in [500, 503]", true, false),
        ("level in [\"error\", \"fatal\"]", false, true),
        ("@level >= \"warn\"", true, true),
        ("@level == \"WARNING\"", true, false),
        ("@pod ~ '^web' && @container == \"app\" && @namespace != \"x\"", true, true),
        ("@format == \"json\"", true, false),
        ("id == 9007199254740993", true, false),
        ("id == 9007199254740992", false, false),
        ("status < \"a\"", false, true),
        ("len(path) == 6", true, false),
        ("startswith(path, \"/a\") && contains(@line, \"took\") && endswith(lower(level), \"r\")", false, true),
        ("path ~ \"a\\sb\"", false, true),
        ("!(status == 200 && ok) && -1 < 0 && 1.5e3 > 1e3", true, false),
        ("a.b", true, true),
    ] {
        if expression.ends_with("~ x") {
            assert!(Expression::parse(expression).is_err());
            continue;
        }
        assert_eq!((holds(expression, JSON), holds(expression, LOGFMT)), (json, logfmt), "{expression}");
    }
    assert!(holds("@line == \"plain\" && @message == \"plain\" && status == null", "plain"));
}

#[test]
fn an_error_shows_the_place() {
    let errors: Vec<String> = [
        "status>= && path",
        "status = 5",
        "path ~ \"(\"",
        "path ~ 5",
        "a == \"open",
        "size(x) > 1",
        "len(x, y)",
        "@level > \"wran\"",
        "@lvl == 1",
        "a b",
        "took > 5parsecs",
        "x in 5",
        "x in [y]",
        "1 < x < 3",
        "a.[0]",
        "(a",
        "",
        "é && ü %",
    ]
    .iter()
    .map(|text| Expression::parse(text).unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(errors.join("\n"));
    assert!(Expression::parse(&"(".repeat(100_000)).is_err());
    assert!(Expression::parse(&"!".repeat(100_000)).is_err());
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text in r#"([a-c@.\[\]()!<>=~&|,"'\\]|in|1|2s|true| |é){0,20}"#, line in "[{}\":,a-c0-9= ]{0,30}") {
        if let Ok(mut expression) = Expression::parse(&text) {
            for format in [Format::Json, Format::Logfmt, Format::Plain] {
                expression.holds(Subject { text: line.as_bytes(), format, place: &Place::default() });
            }
        }
    }
}
