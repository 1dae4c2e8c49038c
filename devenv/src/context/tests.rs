use super::*;
use crate::request::{KindOptions, ProviderChoice, RegistryChoice};
use devloop_core::output::Format;

fn request(context: Option<&str>) -> UpRequest {
    UpRequest {
        name: "default".parse().unwrap(),
        named: false,
        provider: ProviderChoice::Context,
        registry: RegistryChoice::None,
        context: context.map(str::to_owned),
        allow_context: None,
        kind: KindOptions::default(),
        api_port: None,
        timeout: Duration::from_secs(1),
        output: Format::Text,
    }
}

fn record(context: &str) -> EnvironmentRecord {
    let json = serde_json::json!({
        "name": "default", "provider": "context", "context": context, "created": "", "previousContext": null
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn the_context_is_the_one_asked_for_or_the_environments_or_the_current_one() {
    assert_eq!(choose(&request(Some("a")), None, Some("c")).unwrap(), "a");
    assert_eq!(choose(&request(None), Some(&record("b")), Some("c")).unwrap(), "b");
    assert_eq!(choose(&request(Some("b")), Some(&record("b")), None).unwrap(), "b");
    assert_eq!(choose(&request(None), None, Some("c")).unwrap(), "c");
    let error = choose(&request(Some("a")), Some(&record("b")), Some("c")).unwrap_err();
    assert_eq!(error.to_string(), "environment \"default\" works on context \"b\", not \"a\"");
    for nothing in [None, Some("")] {
        assert_eq!(choose(&request(None), None, nothing).unwrap_err().to_string(), "no kubeconfig context is chosen");
    }
}

#[test]
fn a_context_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let config: Kubeconfig =
        serde_yaml_ng::from_str("contexts: [{name: a, context: {cluster: a}}, {name: b, context: {cluster: b}}]").unwrap();
    assert!(must_exist(&config, "a").is_ok());
    let error = must_exist(&config, "c").unwrap_err();
    assert_eq!(error.hints(), ["contexts in the kubeconfig: a, b"]);
}

#[test]
fn an_environment_of_another_engine_is_not_this_ones() {
    let folder = tempfile::tempdir().unwrap();
    let provider = ContextProvider::new(Directories { state: folder.path().into(), cache: folder.path().into() });
    let name: EnvironmentName = "default".parse().unwrap();
    assert!(records::of_engine(&provider.directories, &name, provider.name()).unwrap().is_none());
    let environment = provider.environment(&name);
    records::make_folder(&environment).unwrap();
    let foreign = EnvironmentRecord { provider: "kind".into(), ..record("kind-x") };
    std::fs::write(environment.record_path(), serde_json::to_vec(&foreign).unwrap()).unwrap();
    assert_eq!(
        records::of_engine(&provider.directories, &name, provider.name()).unwrap_err().to_string(),
        "environment \"default\" is one of kind"
    );
}
