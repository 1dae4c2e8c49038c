//! What applying would change, as a unified diff of YAML, as `kubectl diff`
//! shows it. Pure.

use super::apply::{AppliedObject, Change, essence};
use serde_json::Value;
use similar::TextDiff;

/// The difference between what the server has and what it would have; nothing
/// where there is none. Values of Secrets are shown as what `mask` makes of them.
pub fn diff(object: &AppliedObject, mask: &impl Fn(&str) -> String) -> Option<String> {
    if object.change == Change::Unchanged {
        return None;
    }
    let text = |value: Option<&Value>| value.map(|value| render(value, mask)).unwrap_or_default();
    let (before, after) = (text(object.before.as_ref()), text(object.after.as_ref()));
    let name = match &object.namespace {
        Some(namespace) => format!("{namespace}/{}", object.describe()),
        None => object.describe(),
    };
    let old = if object.before.is_some() { format!("live/{name}") } else { "/dev/null".to_owned() };
    let diff = TextDiff::from_lines(&before, &after);
    let text = diff.unified_diff().context_radius(3).header(&old, &format!("merged/{name}")).to_string();
    (!text.is_empty()).then_some(text)
}

fn render(object: &Value, mask: &impl Fn(&str) -> String) -> String {
    let mut object = essence(object);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        // A new one has others in each dry run.
        metadata.remove("uid");
        metadata.remove("creationTimestamp");
    }
    if object["kind"] == "Secret" {
        hide(&mut object, mask);
    }
    serde_yaml_ng::to_string(&object).unwrap_or_else(|error| format!("# can't be shown: {error}\n"))
}

fn hide(secret: &mut Value, mask: &impl Fn(&str) -> String) {
    const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    for field in ["data", "stringData"] {
        for value in secret.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            *value = mask(&text).into();
        }
    }
    // It holds the same values once more.
    if let Some(applied) = secret["metadata"].get_mut("annotations").and_then(|annotations| annotations.get_mut(APPLIED)) {
        *applied = mask(&applied.to_string()).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str, before: Option<Value>, after: Value) -> AppliedObject {
        AppliedObject {
            kind: kind.into(),
            api_version: "v1".into(),
            name: "shop".into(),
            namespace: Some("dev".into()),
            change: Change::Configured,
            new_generation: true,
            before,
            after: Some(after),
        }
    }

    fn shown(object: &AppliedObject) -> String {
        diff(object, &|value| format!("<{} bytes>", value.len())).unwrap_or_default()
    }

    #[test]
    fn what_changes_is_shown_and_what_changes_by_itself_is_not() {
        let value = |replicas: i32, version: &str| {
            json!({
                "kind": "Deployment",
                "metadata": {"name": "shop", "uid": version, "resourceVersion": version, "generation": replicas, "managedFields": [version],
                    "annotations": {"deployment.kubernetes.io/revision": version, "devloop.dev/applied-hash": version}},
                "spec": {"replicas": replicas, "template": {"a": 1}},
                "status": {"replicas": replicas}
            })
        };
        insta::assert_snapshot!(shown(&object("Deployment", Some(value(1, "7")), value(2, "8"))), @r"
        --- live/dev/deployment/shop
        +++ merged/dev/deployment/shop
        @@ -2,6 +2,6 @@
         metadata:
           name: shop
         spec:
        -  replicas: 1
        +  replicas: 2
           template:
             a: 1
        ");
        assert_eq!(shown(&object("Deployment", Some(value(1, "7")), value(1, "8"))), "");
        insta::assert_snapshot!(shown(&object("ConfigMap", None, json!({"kind": "ConfigMap"}))), @r"
        --- /dev/null
        +++ merged/dev/configmap/shop
        @@ -0,0 +1,2 @@
        +kind: ConfigMap
        +metadata: null
        ");
    }

    #[test]
    fn values_of_secrets_are_never_shown() {
        let secret = |value: &str| {
            json!({"kind": "Secret", "data": {"password": value}, "stringData": {"b": value},
                "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": format!("{{{value}}}")}}})
        };
        let text = shown(&object("Secret", Some(secret("c2VjcmV0")), secret("c2VjcmV0Mg==")));
        assert!(
            !text.contains("c2VjcmV0") && text.contains("-  password: <8 bytes>") && text.contains("+  password: <12 bytes>"),
            "{text}"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_value_of_a_secret_gets_through(value in "[a-z]{12,20}") {
            let secret = json!({"kind": "Secret", "data": {"k": value.clone()}, "stringData": {"k": value.clone()}});
            let text = shown(&object("Secret", None, secret));
            proptest::prop_assert!(!text.contains(&value));
        }
    }
}
