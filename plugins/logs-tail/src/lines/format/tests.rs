use super::*;
use proptest::prelude::*;

const JSON: &str = r#"{"level":"warn","ts":1700000000.5,"msg":"caf\u00e9 \ud83d\ude00","status":503}"#;
const KLOG: &str = r#"E0102 15:04:05.678901   12345 pod_workers.go:965] "Error syncing pod" err="x y" pod="a/b" n=3"#;
const COMBINED: &str = r#"10.0.0.1 - bob [02/Jan/2026:03:04:05 +0000] "GET /api/a?b=c HTTP/1.1" 502 1234 "-" "curl/8.0 (x)" 0.123"#;
const ENVOY: &str = r#"[2026-01-02T03:04:05.678Z] "POST /pay HTTP/2" 200 - 5 11 37 36 "-" "agent x" "id-1" "shop:80" "10.0.0.9:80""#;
const LOGFMT: &str = r#"time=2026-01-02T03:04:05Z level=info msg="all good" duration=1.5ms"#;

fn fields(line: &str) -> String {
    let line = line.as_bytes();
    let mut found = Vec::new();
    Format::sniff(line).walk(line, &mut |key, slot| {
        found.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(&slot.text(line))));
        true
    });
    found.join("; ")
}

#[test]
fn each_format_is_known_by_a_line() {
    for (line, format) in [
        (JSON, Format::Json),
        (KLOG, Format::Klog),
        (COMBINED, Format::Access),
        (ENVOY, Format::Access),
        (LOGFMT, Format::Logfmt),
        ("listening on port=8080 now, as was asked for in the configuration", Format::Plain),
        ("I have 2 words", Format::Plain),
        ("{not json", Format::Plain),
        ("", Format::Plain),
    ] {
        assert_eq!(Format::sniff(line.as_bytes()), format, "{line}");
    }
}

#[test]
fn fields_of_each_format() {
    insta::assert_snapshot!([JSON, KLOG, COMBINED, ENVOY, LOGFMT].map(fields).join("\n"), @r#"
    level=warn; ts=1700000000.5; msg=café 😀; status=503
    level=E; time=0102 15:04:05.678901; thread=12345; file=pod_workers.go; line=965; message=Error syncing pod; err=x y; pod=a/b; n=3
    remote=10.0.0.1; ident=-; user=bob; time=02/Jan/2026:03:04:05 +0000; request=GET /api/a?b=c HTTP/1.1; method=GET; path=/api/a?b=c; protocol=HTTP/1.1; status=502; bytes=1234; referer=-; agent=curl/8.0 (x); duration=0.123
    time=2026-01-02T03:04:05.678Z; request=POST /pay HTTP/2; method=POST; path=/pay; protocol=HTTP/2; status=200; flags=-; bytes_received=5; bytes=11; duration=37; upstream_duration=36; forwarded_for=-; agent=agent x; request_id=id-1; authority=shop:80; upstream=10.0.0.9:80
    time=2026-01-02T03:04:05Z; level=info; msg=all good; duration=1.5ms
    "#);
}

#[test]
fn loggers_are_understood() {
    let facts = |line: &str| {
        let bytes = line.as_bytes();
        let facts = Facts::of(Format::sniff(bytes), bytes);
        let text = |slot: Option<Slot>| slot.map_or("-".into(), |slot| String::from_utf8_lossy(&slot.text(bytes)).into_owned());
        format!("{:?} {} {}", facts.level.map(|(level, _)| level), text(facts.message), text(facts.time))
    };
    let lines = [
        r#"{"level":"error","ts":1.5,"caller":"a.go:1","msg":"zap"}"#,
        r#"{"level":30,"time":1700000000000,"pid":1,"hostname":"h","msg":"pino"}"#,
        r#"{"name":"x","hostname":"h","pid":1,"level":50,"msg":"bunyan","time":"2026-01-02T03:04:05.678Z","v":0}"#,
        r#"{"timestamp":"2026-01-02T03:04:05Z","level":"WARN","fields":{"message":"tracing","n":1},"target":"app"}"#,
        r#"{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"slog"}"#,
        r#"{"severity":"CRITICAL","message":"cloud"}"#,
        KLOG,
        LOGFMT,
        "2026-01-02 ERROR plain",
    ];
    insta::assert_snapshot!(lines.map(facts).join("\n"), @r#"
    Some(Error) zap 1.5
    Some(Info) pino 1700000000000
    Some(Error) bunyan 2026-01-02T03:04:05.678Z
    Some(Warn) tracing 2026-01-02T03:04:05Z
    Some(Info) slog 2026-01-02T03:04:05Z
    Some(Fatal) cloud -
    Some(Error) Error syncing pod 0102 15:04:05.678901
    Some(Info) all good 2026-01-02T03:04:05Z
    Some(Error) - -
    "#);
}

#[test]
fn a_stream_keeps_its_format_until_it_changes() {
    let mut sticky = Sticky::default();
    assert_eq!(sticky.recognise(LOGFMT.as_bytes()), Format::Logfmt);
    // One pair would not be enough in a stream that isn't logfmt.
    assert_eq!(sticky.recognise(b"level=info"), Format::Logfmt);
    assert_eq!(sticky.recognise(JSON.as_bytes()), Format::Json);
    for _ in 0..MISSES {
        assert_eq!(sticky.recognise(b"words"), Format::Plain);
    }
    assert_eq!(sticky.recognise(b"level=info"), Format::Plain);
}

proptest! {
    #[test]
    fn any_bytes_are_some_format(line in prop::collection::vec(any::<u8>(), 0..120)) {
        let format = Sticky::default().recognise(&line);
        format.walk(&line, &mut |_, slot| slot.end <= line.len());
        Facts::of(format, &line);
    }

    #[test]
    fn near_misses_are_no_panic(line in r#"([IE][0-9]{4} [0-9:.]{15} |\[|"|[a-z]+=| |\]|GET /|\\u?[0-9a-f]{0,4}|:){0,20}"#) {
        for format in [Format::Json, Format::Logfmt, Format::Klog, Format::Access] {
            format.walk(line.as_bytes(), &mut |_, slot| { slot.text(line.as_bytes()); true });
        }
        Format::sniff(line.as_bytes());
    }

    #[test]
    fn strings_read_as_a_parser_reads_them(text in any::<String>()) {
        let json = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(unescape(&json.as_bytes()[1..json.len() - 1]).into_owned(), text.into_bytes());
    }
}
