use super::*;
use crate::request::RegistryChoice;
use ProviderChoice::{Auto, Context, Embedded, Kind};
use devloop_core::output::Format;
use std::time::Duration;

fn request(name: Option<&str>, provider: ProviderChoice) -> UpRequest {
    UpRequest {
        name: name.unwrap_or("default").parse().unwrap(),
        named: name.is_some(),
        provider,
        registry: RegistryChoice::None,
        context: None,
        allow_context: None,
        kind: KindOptions::default(),
        api_port: None,
        timeout: Duration::from_secs(1),
        output: Format::Text,
    }
}

fn records(records: &[(&str, ProviderChoice)]) -> Records {
    records.iter().map(|(name, provider)| (name.parse().unwrap(), *provider)).collect()
}

fn machine(current_kind: Option<&str>, kind: bool, embedded: bool) -> Machine {
    Machine {
        current_kind: current_kind.map(str::to_owned),
        kind: if kind { Ok("Docker 20.10 answers".into()) } else { Err("no Docker engine answers".into()) },
        embedded: if embedded { Ok(()) } else { Err("root is needed".into()) },
    }
}

/// What is decided in the end: engine, name, and what is said.
fn decided(request: &UpRequest, known: &[(&str, ProviderChoice)], running: &[(&str, ProviderChoice)], machine: &Machine) -> String {
    let known = records(known);
    let decide = || -> Result<Decision> {
        let wanted = wanted(request, None)?;
        if let Some(decision) = by_record(request, wanted, &known)? {
            return Ok(decision);
        }
        by_running(request, &records(running)).map_or_else(|| best(request, &known, machine), Ok)
    };
    match decide() {
        Ok(decision) => {
            let said = decision.said.map(|said| format!(": {said}")).unwrap_or_default();
            format!("{} {}{said}", engine(decision.provider), decision.name)
        }
        Err(error) => format!("error {}: {error} ({})", error.status().code(), error.hints().join("; ")),
    }
}

#[test]
fn the_whole_table() {
    let (all, docker, bare, nothing) =
        (machine(Some("mine"), true, true), machine(None, true, true), machine(None, false, true), machine(None, false, false));
    let auto = request(None, Auto);
    let named = |name| request(Some(name), Auto);
    let rows = [
        ("nothing anywhere", decided(&auto, &[], &[], &nothing)),
        ("embedded only", decided(&auto, &[], &[], &bare)),
        ("Docker", decided(&auto, &[], &[], &docker)),
        ("a kind cluster is current", decided(&auto, &[], &[], &all)),
        ("... and another name is given", decided(&named("a"), &[], &[], &all)),
        ("... and its name is given", decided(&named("mine"), &[], &[], &all)),
        ("... and its name is taken", decided(&auto, &[("mine", Embedded)], &[], &all)),
        ("... and Docker is odd", decided(&auto, &[], &[], &machine(Some("mine"), false, false))),
        ("... whose name can't be ours", decided(&auto, &[], &[], &machine(Some("My.Cluster"), true, true))),
        ("default is up", decided(&auto, &[("default", Embedded)], &[("default", Embedded)], &all)),
        ("default and others are up", decided(&auto, &[("default", Kind)], &[("default", Kind), ("b", Embedded)], &all)),
        ("another one is up", decided(&auto, &[("a", Embedded)], &[("a", Embedded)], &all)),
        ("... and default is stopped", decided(&auto, &[("a", Kind), ("default", Embedded)], &[("a", Kind)], &all)),
        ("... and a third is named", decided(&named("b"), &[("a", Embedded)], &[("a", Embedded)], &bare)),
        ("two others are up", decided(&auto, &[("a", Kind), ("b", Kind)], &[("a", Kind), ("b", Kind)], &bare)),
        ("default is stopped", decided(&auto, &[("default", Embedded)], &[], &docker)),
        ("the named one is stopped", decided(&named("a"), &[("a", Context)], &[], &docker)),
        ("asked for embedded", decided(&request(None, Embedded), &[], &[("a", Kind)], &all)),
        ("asked for kind", decided(&request(None, Kind), &[], &[], &bare)),
        ("asked for context", decided(&request(Some("a"), Context), &[], &[], &bare)),
        ("asked for what it is", decided(&request(None, Kind), &[("default", Kind)], &[], &all)),
        ("asked for another", decided(&request(None, Kind), &[("default", Embedded)], &[("default", Embedded)], &all)),
    ];
    let text = rows.iter().map(|(case, result)| format!("{case}\n    {result}")).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(text);
}

#[test]
fn flags_that_fit_one_engine_choose_it_and_refuse_others() {
    let kind = |change: fn(&mut KindOptions)| {
        let mut request = request(None, Auto);
        change(&mut request.kind);
        request
    };
    let of_kind = [
        kind(|options| options.workers = Some(2)),
        kind(|options| options.control_planes = Some(1)),
        kind(|options| options.node_image = Some("kindest/node:v1".into())),
        kind(|options| options.config = Some("kind.yaml".into())),
        kind(|options| options.mounts = vec![crate::request::Mount { host: "/a".into(), node: "/b".into(), read_only: false }]),
        kind(|options| options.feature_gates = BTreeMap::from([("A".into(), true)])),
    ];
    for request in &of_kind {
        assert_eq!(wanted(request, None).unwrap(), Some(Kind));
        assert_eq!(wanted(&UpRequest { provider: Kind, ..request.clone() }, None).unwrap(), Some(Kind));
        for provider in [Embedded, Context] {
            assert_eq!(wanted(&UpRequest { provider, ..request.clone() }, None).unwrap_err().status().code(), 2);
        }
        let both = UpRequest { context: Some("c".into()), ..request.clone() };
        assert_eq!(wanted(&both, None).unwrap_err().status().code(), 2);
    }
    let of_context = [
        UpRequest { context: Some("c".into()), ..request(None, Auto) },
        UpRequest { allow_context: Some("c".into()), ..request(None, Auto) },
    ];
    for request in &of_context {
        assert_eq!(wanted(request, None).unwrap(), Some(Context));
        for provider in [Embedded, Kind] {
            assert_eq!(wanted(&UpRequest { provider, ..request.clone() }, None).unwrap_err().status().code(), 2);
        }
    }
    assert_eq!(wanted(&request(None, Auto), None).unwrap(), None);
}

#[test]
fn a_variable_for_the_node_image_is_no_choice_of_kind() {
    let mut from_variable = request(None, Auto);
    from_variable.kind.node_image = Some("kindest/node:v1".into());
    assert_eq!(wanted(&from_variable, Some("kindest/node:v1")).unwrap(), None);
    assert_eq!(wanted(&UpRequest { provider: Embedded, ..from_variable.clone() }, Some("kindest/node:v1")).unwrap(), Some(Embedded));
    assert_eq!(wanted(&from_variable, Some("kindest/node:v2")).unwrap(), Some(Kind));
}
