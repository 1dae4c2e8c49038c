use super::*;
use crate::lines::format::Format;
use crate::lines::place::Place;
use crate::render::stamp::{Stamp, StampForm};
use devloop_core::logs::Source;
use proptest::prelude::*;
use std::sync::Arc;

fn filled(parse: impl Fn(&str, bool) -> Result<Template, String>, template: &str, message: &str, colors: bool) -> String {
    let template = match parse(template, colors) {
        Ok(template) => template,
        Err(problem) => return format!("refused: {problem}"),
    };
    let source = Arc::new(Source {
        namespace: "shop".into(),
        pod: "web-1".into(),
        container: "app".into(),
        has_siblings: false,
        ..Source::default()
    });
    let mut place = Place { node: "n1".into(), ..Place::from(&*source) };
    place.labels.insert("app".into(), "web".into());
    let text = message.as_bytes();
    let timestamp = "2026-01-02T03:04:05.5Z".parse().ok();
    let record = Record { source: &source, place: &place, timestamp, text, cut: 0, format: Format::sniff(text), trace: None };
    let look = Look { stamp: Some(Stamp { form: StampForm::Short, zone: jiff::tz::TimeZone::UTC }), ..Look::default() };
    template.render(&Context { record: &record, look: &look }).unwrap_or_else(|problem| format!("failed: {problem}"))
}

const JSON: &str = r#"{"level":"error","ts":1700000000.25,"msg":"no","caller":"a.go:1","n":[1,2],"bunyan":50}"#;

/// The templates of stern's own documentation, and more of what Go has.
#[test]
fn stern_templates_give_what_stern_gives() {
    let templates = [
        r#"{{printf "%s (%s/%s/%s/%s)\n" .Message .NodeName .Namespace .PodName .ContainerName}}"#,
        r#"{{.Message}} ({{.Namespace}}/{{color .PodColor .PodName}}/{{color .ContainerColor .ContainerName}}){{"\n"}}"#,
        r#"{{.PodName}}/{{.ContainerName}} {{with $d := .Message | parseJSON}}[{{$d.level}}] {{$d.msg}}{{end}}{{"\n"}}"#,
        r#"{{.PodName}} {{ with $msg := .Message | tryParseJSON }}[{{ colorGreen (toRFC3339Nano $msg.ts) }}] {{ levelColor $msg.level }} ({{ colorCyan $msg.caller }}) {{ $msg.msg }}{{ else }} {{ .Message }} {{ end }}"#,
        r#"{{ .Message | prettyJSON }}"#,
        r#"{{ with $msg := .Message | tryParseJSON }}{{ prettyJSON $msg }}{{end}}"#,
        r#"{{if .Timestamp}}{{.Timestamp}} {{end}}{{tryExtractJSONParts .Message "msg" "nothing"}}"#,
        r#"{{with tryParseJSON .Message}}{{range $i, $x := .n}}{{$i}}={{$x}} {{else}}none{{end}}{{bunyanLevelColor .bunyan}}{{end}}"#,
        r#"{{toTimestamp 1700000000 "2006-01-02 15:04:05.000 MST" "UTC"}} {{(tryParseJSON .Message).level}} {{index .Labels "app"}}"#,
        "a {{- /* gone */ -}} b {{- \" c\" -}}\n d {{if eq .PodName `web-1` `x`}}{{len .PodName}}{{else if not .Nothing}}no{{end}} {{.Nothing}}",
        r#"{{$x := 1}}{{if gt 2 1}}{{$x = 2}}{{end}}{{$x}} {{and true .PodName}} {{or "" "b"}} {{printf "%-6s|%5.2f|%03d|%q" "ab" 1.5 7 "z"}} {{.}}"#,
        r#"{{colorCustom "Hi" 3 96}} {{json .Labels}} {{extjson .Message}} {{msg .Message}}"#,
    ];
    let text: Vec<String> = templates
        .iter()
        .flat_map(|template| {
            [format!("=== {template}"), filled(Template::parse_go, template, JSON, true), filled(Template::parse, template, "plain", false)]
        })
        .collect();
    insta::assert_snapshot!(text.join("\n").replace('\u{1b}', "^"));
}

#[test]
fn what_is_not_known_is_refused_with_the_place() {
    let templates = [
        "{{template \"x\" .}}",
        "{{.Message | upper}}",
        "{{nothing .Message}}",
        "{{if .Message}}x",
        "{{end}}",
        "x {{.Message",
        "{{.Message .PodName}}",
        "{{range .Labels}}{{break}}{{end}}",
        "{{with .Message}}{{else}}{{else}}{{end}}",
        "{{printf \"%s}}",
        "{{(.Message}}",
        "{{.Message | .PodName}}",
    ];
    let text: Vec<String> = templates.iter().map(|template| filled(Template::parse_go, template, JSON, false)).collect();
    insta::assert_snapshot!(text.join("\n"));
    assert!(filled(Template::parse_go, &"{{if .A}}".repeat(10_000), JSON, false).contains("too deeply"));
    assert!(filled(Template::parse_go, &format!("{{{{{}", "(".repeat(10_000)), JSON, false).starts_with("refused"));
}

#[test]
fn jinja_templates_have_fields_and_functions() {
    let templates = [
        "{{ pod }}/{{ container }} [{{ levelColor(level) }}] {{ msg }} {{ fields.caller }} {{ fields.n[1] + 1 }}",
        "{% if level == 'error' %}{{ msg | colorRed }}{% else %}{{ line }}{% endif %}",
        "{{ toTimestamp(fields.ts, '15:04:05') }} {{ line | prettyJSON | length }} {{ labels.app }}{{ Labels.app }}",
        "{{ parseJSON(line).msg }}",
        "{{ nothing(line) }}",
        "{{ line | nothing }}",
        "{{ line",
        "{% if x %}",
    ];
    let text: Vec<String> = templates
        .iter()
        .flat_map(|template| {
            [format!("=== {template}"), filled(Template::parse, template, JSON, true), filled(Template::parse, template, "plain", false)]
        })
        .collect();
    insta::assert_snapshot!(text.join("\n").replace('\u{1b}', "^"));
}

#[test]
fn both_kinds_are_told_apart() {
    for (template, is_go) in [
        ("{{.Message}}", true),
        ("{{ message }}", false),
        ("{{- json . -}}", true),
        ("{{ a.b }}", false),
        ("{{if $x}}", true),
        ("text", false),
        ("{{ (.A) }}", true),
    ] {
        assert_eq!(go::is_go(template), is_go, "{template}");
    }
}

proptest! {
    #[test]
    fn no_template_is_a_panic(template in r#"(\{\{|\}\}|-| |\.|\$x|:=|=|\||\(|\)|"|`|a|if|else|end|with|range|printf "%5.1s"|eq|len|index|slice|1|é|/\*|\*/|\.Message|json){0,16}"#) {
        filled(Template::parse_go, &template, JSON, false);
        filled(Template::parse, &template, "x", false);
    }
}
