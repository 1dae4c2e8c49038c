//! How builds, sync rules and reload rules are read, and what is said of
//! mistakes in them.

use super::document::parse;
use super::*;
use crate::target::Target;
use proptest::prelude::*;
use std::time::Duration;

/// A service that is Python from sources, with every kind of rule.
const WEB: &str = r#"apiVersion: devloop/v1
services:
  - name: web
    sync:
      - from: ./src/
        to: /app/src/
        ignore: ["*.pyc", "/tests/"]
    reload:
      - { on: ["*.py"], do: restart }
      - { on: ["*.conf"], do: { signal: SIGHUP } }
      - { on: [/conf/], do: { http: { path: /reload?x=1, port: 8080 } } }
      - { on: [data.csv], do: { exec: [/app/bin/load, data.csv] } }
      - { do: none }
    restart: { by: supervisor, grace: 10s }
    deploy: { target: sts/web }
"#;

/// A service that is built, with a part left to fill in.
fn built(rest: &str) -> String {
    format!("apiVersion: devloop/v1\nservices:\n  - name: web\n{rest}    deploy: {{ target: web }}\n")
}

fn read(text: &str) -> Service {
    parse(Path::new("devloop.yaml"), text).unwrap().remove(0)
}

fn fail(text: &str) -> String {
    parse(Path::new("devloop.yaml"), text).unwrap_err().to_string()
}

#[test]
fn rules_are_read() {
    let web = read(WEB);
    assert_eq!(web.sync, [SyncRule { from: "src".into(), to: "/app/src".into(), ignore: vec!["*.pyc".into(), "/tests/".into()] }]);
    let actions: Vec<&ReloadAction> = web.reload.iter().map(|rule| &rule.action).collect();
    let call = HttpCall { path: "/reload?x=1".into(), port: 8080, method: "POST".into() };
    assert_eq!(
        actions,
        [
            &ReloadAction::Restart,
            &ReloadAction::Signal("HUP".into()),
            &ReloadAction::Http(call),
            &ReloadAction::Exec(vec!["/app/bin/load".into(), "data.csv".into()]),
            &ReloadAction::None,
        ]
    );
    assert_eq!(web.restart, RestartSpec { by: RestartBy::Supervisor, grace: Some(Duration::from_secs(10)) });
    assert_eq!((web.build, web.image, web.binary), (None, None, None));
}

#[test]
fn a_sync_rule_says_where_files_go_that_the_image_has_too() {
    let files = "    image: { name: web, files: [{ from: src, to: /app/src }, { from: pages, to: /app/pages }] }\n";
    let web = read(&built(&format!("{files}    sync: [{{ from: pages, to: /srv/pages }}]\n")));
    let places: Vec<String> = web.synced().into_iter().map(|rule| rule.to).collect();
    assert_eq!(places, ["/app/src", "/srv/pages"]);
}

#[test]
fn builds_are_read() {
    let go = read(&built("    build: { go: { package: ./cmd/web, folder: services/web, flags: [-tags=dev] } }\n    binary: /web\n"));
    let expected = GoBuild { package: "./cmd/web".into(), folder: Some("services/web".into()), flags: vec!["-tags=dev".into()] };
    assert_eq!((go.binary(), &go.build), (Some("/web"), &Some(Build::Go(expected))));
    let plain = read(&built("    build: { go: {} }\n    binary: /web\n"));
    assert_eq!(plain.build, Some(Build::Go(GoBuild { package: ".".into(), folder: None, flags: Vec::new() })));
    let command = read(&built("    build: { command: { run: [npm, run, build], watch: [src], folder: . } }\n"));
    let expected = CommandBuild {
        run: ["npm", "run", "build"].map(Into::into).into(),
        watch: vec!["src".into()],
        folder: Some(".".into()),
        output: None,
    };
    assert_eq!(command.build, Some(Build::Command(expected)));
    let node = read(&built("    build: { node: { folder: web, include: [./patches] } }\n"));
    let expected = NodeBuild { folder: Some("web".into()), to: "/app/node_modules".into(), include: vec!["patches".into()] };
    assert_eq!(expected.inputs()[0], Path::new("web/package-lock.json"));
    assert_eq!(expected.inputs().last().unwrap(), Path::new("web/patches"));
    assert_eq!(node.build, Some(Build::Node(expected)));
    let python = read(&built("    build: { python: { requirements: deps/all.txt } }\n"));
    let expected =
        PythonBuild { folder: None, requirements: Some("deps/all.txt".into()), to: "/app/site-packages".into(), include: Vec::new() };
    assert_eq!(expected.inputs(), [Path::new("deps/all.txt")]);
    let locked = PythonBuild { folder: Some("web".into()), requirements: Some("uv.lock".into()), ..expected.clone() };
    assert_eq!(locked.inputs(), ["web/uv.lock", "web/pyproject.toml", "web/uv.toml"].map(Path::new));
    assert_eq!(PythonBuild { requirements: None, ..expected.clone() }.inputs()[0], Path::new("uv.lock"));
    assert_eq!(python.build, Some(Build::Python(expected)));
}

#[test]
fn a_target_may_be_a_selector() {
    let text = built("").replace("target: web", "target: { selector: 'app=web,tier!=db' }");
    assert_eq!(read(&text).deploy.target, Target::Selector("app=web,tier!=db".into()));
}

#[test]
fn mistakes_in_reload_rules_name_line_and_column() {
    let with = |action: &str| fail(&WEB.replace("do: restart", &format!("do: {action}")));
    let mistakes = [
        with("reboot"),
        with("1"),
        with("[restart]"),
        with("{}"),
        with("{ reboot: now }"),
        with("{ signal: HUPP }"),
        with("{ signal: HUP, exec: [x] }"),
        with("{ http: { path: x, port: 80 } }"),
        with("{ http: { path: /x } }"),
        with("{ http: { path: /x, port: 0 } }"),
        with("{ http: { path: /x, port: 80, method: get } }"),
        with("{ http: { path: /x, port: 80, methd: GET } }"),
        with("{ exec: [] }"),
        with("{ exec: run }"),
        fail(&WEB.replace("on: [\"*.py\"], do: restart", "on: [\"*.py\"]")),
        fail(&WEB.replace("\"*.py\"]", "\"a{b\"]")),
        fail(&WEB.replace("on: [\"*.py\"]", "on: \"*.py\"")),
    ];
    insta::assert_snapshot!(mistakes.join("\n"));
}

#[test]
fn mistakes_in_sync_rules_and_restarts_name_line_and_column() {
    let mistakes = [
        fail(&WEB.replace("/app/src/", "app/src")),
        fail(&WEB.replace("/app/src/", "/")),
        fail(&WEB.replace("./src/", "/src")),
        fail(&WEB.replace("        to: /app/src/\n", "")),
        fail(&WEB.replace("\"*.pyc\"", "\"a{b\"")),
        fail(&WEB.replace("grace: 10s", "grace: 10")),
        fail(&WEB.replace("grace: 10s", "grace: ten s")),
        fail(&WEB.replace("grace: 10s", "grace: 3h")),
        fail(&WEB.replace("grace: 10s", "grace: 9999m")),
        fail(&WEB.replace("grace: 10s", "grace: 99999999999999999999s")),
        fail(&WEB.replace("by: supervisor", "by: init")),
        fail(&WEB.replace("sts/web", "cron/web")),
        fail(&WEB.replace("sts/web", "{ selectr: a=b }")),
        fail(&WEB.replace("sts/web", "{ selector: '' }")),
        fail(&WEB.replace("sts/web", "{}")),
    ];
    insta::assert_snapshot!(mistakes.join("\n"));
}

#[test]
fn mistakes_in_builds_name_line_and_column() {
    let mistakes = [
        fail(&built("    build: { cargo: { package: a, binary: b }, go: {} }\n    binary: /web\n")),
        fail(&built("    build: {}\n    binary: /web\n")),
        fail(&built("    build: { make: {} }\n    binary: /web\n")),
        fail(&built("    build: { cargo: { package: a, binary: b } }\n")),
        fail(&built("    binary: /web\n")),
        fail(&built("    build: { command: { run: [], watch: [.] } }\n")),
        fail(&built("    build: { command: { run: [make], watch: [../x] } }\n")),
        fail(&built("    build: { command: { run: [make], watch: [.] } }\n    binary: /web\n")),
        fail(&built("    build: { command: { run: [make], watch: [.], output: web } }\n")),
        fail(&built("    build: { node: {} }\n    binary: /web\n")),
    ];
    insta::assert_snapshot!(mistakes.join("\n"));
}

proptest! {
    #[test]
    fn any_action_is_read_or_refused_with_its_place(text in "[a-z0-9{}:,/ \\[\\]\"-]{0,30}") {
        let document = WEB.replace("do: restart", &format!("do: {text}"));
        if let Err(ProjectError::Invalid { line, column, message, .. }) = parse(Path::new("devloop.yaml"), &document) {
            prop_assert!(line > 0 && column > 0 && !message.is_empty());
        }
    }

    #[test]
    fn durations_are_read_back(number in 0u64..3600, unit in "(ms|s)") {
        let web = read(&WEB.replace("10s", &format!("{number}{unit}")));
        let expected = if unit == "s" { Duration::from_secs(number) } else { Duration::from_millis(number) };
        prop_assert_eq!(web.restart.grace, Some(expected));
    }
}
