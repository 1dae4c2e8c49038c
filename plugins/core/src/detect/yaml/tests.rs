use super::*;
use crate::project::{CargoBuild, CommandBuild, DeploySpec, GoBuild, RestartSpec, parse_text};
use proptest::option::of;
use proptest::prelude::*;
use std::path::PathBuf;

/// Texts that YAML could take for something else.
fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,6}", "[ -~]{1,8}", "\\PC{1,6}", "(true|null|no|1e3|0x1|~|- a|a: b|# x|\\.5|y|2020-01-01|!x|&x|\\{x\\}|\\[x|=|<<)"]
}

fn path() -> impl Strategy<Value = PathBuf> {
    "[a-z#:'\"{ -]{1,5}(/[a-z0-9.é]{1,4}x){0,2}".prop_map(PathBuf::from)
}

fn container_path() -> impl Strategy<Value = String> {
    "(/[a-z0-9:# é-]{1,5}){1,3}"
}

fn build() -> impl Strategy<Value = Build> {
    let cargo = (word(), word(), of(word()), of(path()));
    let go = (word(), of(path()), proptest::collection::vec(word(), 0..3));
    let command = (proptest::collection::vec(word(), 1..4), proptest::collection::vec(path(), 0..3), of(path()));
    prop_oneof![
        cargo.prop_map(|(package, binary, profile, manifest)| Build::Cargo(CargoBuild { package, binary, profile, manifest })),
        go.prop_map(|(package, folder, flags)| Build::Go(GoBuild { package, folder, flags })),
        command.prop_map(|(run, watch, folder)| Build::Command(CommandBuild { run, watch, folder, output: Some("out".into()) })),
    ]
}

fn action() -> impl Strategy<Value = ReloadAction> {
    prop_oneof![
        Just(ReloadAction::None),
        Just(ReloadAction::Restart),
        Just(ReloadAction::Signal("USR1".to_owned())),
        ("/[!-~]{0,8}", 1u16.., "[A-Z]{1,6}").prop_map(|(path, port, method)| ReloadAction::Http(HttpCall { path, port, method })),
        proptest::collection::vec(word(), 1..4).prop_map(ReloadAction::Exec),
    ]
}

/// Patterns that can be read as such.
fn patterns() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[a-z*!/.# 'é:-]{1,8}", 0..3)
        .prop_filter("patterns", |patterns| crate::patterns::Patterns::new(Path::new("/"), patterns.iter().map(String::as_str)).is_ok())
}

fn service() -> impl Strategy<Value = Service> {
    let sync = (path(), container_path(), patterns()).prop_map(|(from, to, ignore)| SyncRule { from, to, ignore });
    let reload = (patterns(), action()).prop_map(|(on, action)| ReloadRule { on, action });
    let restart = (any::<bool>(), of((0u64..3_600_000).prop_map(Duration::from_millis)))
        .prop_map(|(supervised, grace)| RestartSpec { by: if supervised { RestartBy::Supervisor } else { RestartBy::InPlace }, grace });
    let target = prop_oneof![
        "[a-z0-9][a-z0-9.-]{0,8}".prop_map(|name| Target::Object { kind: crate::target::Kind::StatefulSet, name }),
        "[a-z]{1,4}( in \\([a-z,]{1,4}\\)|=[a-z0-9]{0,3}|!=x)?".prop_map(Target::Selector),
    ];
    let deploy = (proptest::collection::vec(path(), 0..3), target, of("[a-z0-9][a-z0-9-]{0,8}"))
        .prop_map(|(manifests, target, container)| DeploySpec { manifests, ..DeploySpec::of(target, container) });
    let lists = (proptest::collection::vec(sync, 0..3), proptest::collection::vec(reload, 0..3));
    let made = of((build(), container_path()));
    ("[a-z0-9_.][a-z0-9._-]{0,8}", made, lists, restart, deploy).prop_map(|(name, made, (sync, reload), restart, deploy)| {
        let (build, binary) = made.unzip();
        Service { name, build, image: None, binary, sync, reload, restart, deploy }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(service in service(), whys in proptest::collection::vec("(\\PC|[\n\r\t\u{85}\u{2028}]){0,12}", 8)) {
        let mut whats = vec!["left out: x\ny".to_owned()];
        whats.extend(service.build.as_ref().map(what_build));
        whats.extend(service.sync.iter().map(what_sync));
        whats.extend(service.reload.iter().map(what_reload));
        let reasons = whats.into_iter().zip(whys).map(|(what, why)| Reason { what, why }).collect();
        let detected = Detected { service, reasons };
        let text = render_yaml(&detected);
        let read = parse_text(&text);
        prop_assert!(read.is_ok(), "{}\n{text}", read.unwrap_err());
        prop_assert_eq!(read.unwrap(), [detected.service.clone()], "{}", &text);
        prop_assert_eq!(parse_text(&plain(&detected.service)).unwrap(), [detected.service]);
    }
}

#[test]
fn texts_are_quoted_where_they_must_be() {
    let texts = ["web", "./cmd/web", "a-b_c=d", "true", "Null", "1", ".5", ".git*", "./x", "", "a b", "é\u{2028}\n", "\"\\"];
    insta::assert_snapshot!(texts.map(scalar).join("\n"));
}
