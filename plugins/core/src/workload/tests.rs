use super::*;
use crate::workload::record::undo;
use proptest::prelude::*;
use serde_json::json;

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "dev", "uid": "u-1", "resourceVersion": "7",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "containers": [
                {"name": "web", "image": "web:1", "command": ["/app", "$(MODE)"], "args": ["--port", "80"],
                    "livenessProbe": {"httpGet": {"path": "/", "port": 80}}, "readinessProbe": {"httpGet": {"path": "/", "port": 80}}},
                {"name": "proxy", "image": "proxy:1", "resources": {"limits": {"memory": "64Mi"}},
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/proxy"}]}
            ],
            "volumes": [{"name": "config", "configMap": {"name": "proxy"}}]
        }}}
    })
}

fn supervise(container: &str, command: &[&str]) -> Change {
    Change::Supervise {
        container: container.into(),
        agent_image: "devloop.local/agent:1".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        grace: Duration::from_millis(2500),
    }
}

fn pause(container: &str) -> Change {
    Change::PauseProbes { container: container.into() }
}

fn applied(object: &Value, patch: &Patch) -> Value {
    let mut object = object.clone();
    for edit in &patch.edits {
        assert!(edit.path.set(&mut object, edit.after.clone()), "{}", edit.path);
    }
    object
}

fn pod(object: &mut Value) -> &mut Value {
    &mut object["spec"]["template"]["spec"]
}

#[test]
fn the_patched_template() {
    let before = deployment();
    let patch = plan(&before, &[supervise("web", &[]), pause("web")]).unwrap();
    insta::assert_snapshot!("described", describe(&patch).join("\n"));
    let after = applied(&before, &patch);
    insta::assert_snapshot!("patched", serde_json::to_string_pretty(&after["spec"]["template"]["spec"]).unwrap());
    assert_eq!(undo(&after, &patch.edits).object, before);
    assert_eq!(undo(&before, &patch.edits).put_back, [""; 0]);
    // It is a pod as the API knows it.
    let parsed: k8s_openapi::api::core::v1::PodSpec = serde_json::from_value(after["spec"]["template"]["spec"].clone()).unwrap();
    assert_eq!(serde_json::to_value(parsed).unwrap(), after["spec"]["template"]["spec"]);
}

#[test]
fn the_command_is_the_templates_else_what_was_seen() {
    let before = deployment();
    let command = |changes: &[Change], name: &str| {
        let after = applied(&before, &plan(&before, changes).unwrap());
        let containers = after["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
        containers.into_iter().find(|container| container["name"] == name).unwrap()["command"].clone()
    };
    let supervisor = ["/devloop/devloop-agent", "supervise", "--grace", "2.5", "--"];
    let with = |rest: &[&str]| json!([&supervisor[..], rest].concat());
    assert_eq!(command(&[supervise("web", &["/other"])], "web"), with(&["/app", "$(MODE)", "--port", "80"]));
    // What was seen is what it was expanded to.
    assert_eq!(command(&[supervise("proxy", &["/proxy", "$(x) $$"])], "proxy"), with(&["/proxy", "$$(x) $$$$"]));
    let refused = plan(&before, &[supervise("proxy", &[])]).unwrap_err();
    assert!(matches!(refused, PlanError::NoCommand { .. }), "{refused}");
}

#[test]
fn two_containers_share_one_supervisor() {
    let before = deployment();
    let patch = plan(&before, &[supervise("web", &[]), supervise("proxy", &["/proxy"])]).unwrap();
    let after = applied(&before, &patch);
    assert_eq!(after["spec"]["template"]["spec"]["initContainers"].as_array().unwrap().len(), 1);
    assert_eq!(undo(&after, &patch.edits).object, before);
    let mut other = supervise("proxy", &["/proxy"]);
    if let Change::Supervise { agent_image, .. } = &mut other {
        "other:1".clone_into(agent_image);
    }
    for second in [other, supervise("web", &[])] {
        assert!(plan(&before, &[supervise("web", &[]), second]).is_err());
    }
}

#[test]
fn the_init_container_is_let_in_where_the_container_is() {
    let mut object = deployment();
    pod(&mut object)["securityContext"] =
        json!({"runAsUser": 1000, "runAsGroup": 0, "seccompProfile": {"type": "Localhost", "localhostProfile": "x"}});
    pod(&mut object)["containers"][0]["securityContext"] = json!({"runAsUser": 1001});
    pod(&mut object)["containers"].as_array_mut().unwrap().pop();
    let after = applied(&object, &plan(&object, &[supervise("web", &[])]).unwrap());
    let init = &after["spec"]["template"]["spec"]["initContainers"][0];
    let context = &init["securityContext"];
    assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(1001), &json!(65534)));
    assert_eq!(context["seccompProfile"]["type"], "Localhost");
    assert_eq!(init.get("resources"), None, "a pod that asks for nothing keeps its class");
}

#[test]
fn refusals_say_what_to_do() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut object = deployment();
        change(&mut object);
        object
    };
    let owner = |kind: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": "x", "controller": true}]);
    let objects = [
        with(&|object| object["kind"] = json!("Pod")),
        with(&|object| {
            object["kind"] = json!("Pod");
            object["metadata"]["ownerReferences"] = owner("ReplicaSet");
        }),
        with(&|object| {
            object["kind"] = json!("ReplicaSet");
            object["metadata"]["ownerReferences"] = owner("Deployment");
        }),
        with(&|object| object["kind"] = json!("ReplicaSet")),
        with(&|object| object["kind"] = json!("Job")),
        with(&|object| object["spec"]["paused"] = json!(true)),
        with(&|object| object["spec"]["updateStrategy"] = json!({"type": "OnDelete"})),
        with(&|object| object["spec"]["updateStrategy"] = json!({"rollingUpdate": {"partition": 2}})),
        with(&|object| object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
        with(&|object| pod(object)["containers"][0]["name"] = json!("other")),
        with(&|object| pod(object)["containers"][0]["command"] = json!(["/devloop/devloop-agent", "supervise", "--", "/app"])),
        with(&|object| pod(object)["volumes"][0]["name"] = json!("devloop")),
        with(&|object| pod(object)["containers"][0]["volumeMounts"] = json!([{"name": "config", "mountPath": "/devloop"}])),
        with(&|object| pod(object)["os"] = json!({"name": "windows"})),
        with(&|object| object["spec"] = json!({})),
        with(&|object| object["metadata"]["uid"] = json!(null)),
        json!("nonsense"),
    ];
    let told: Vec<String> = objects
        .iter()
        .map(|object| {
            let error = plan(object, &[supervise("web", &[])]).unwrap_err();
            error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}\n  {hint}"))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_probe_that_is_not_there_is_no_change() {
    let patch = plan(&deployment(), &[pause("proxy")]).unwrap();
    assert!(patch.edits.is_empty());
    assert_eq!(describe(&patch), ["deployment/web: container proxy has no livenessProbe or startupProbe to pause"]);
}

#[test]
fn what_others_changed_is_left_and_told() {
    let before = deployment();
    let patch = plan(&before, &[supervise("web", &[]), pause("web")]).unwrap();
    let mut after = applied(&before, &patch);
    // Defaults of the API server's are no changes.
    pod(&mut after)["initContainers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
    // Nor are those of others elsewhere.
    pod(&mut after)["containers"][0]["image"] = json!("web:2");
    pod(&mut after)["containers"].as_array_mut().unwrap().reverse();
    pod(&mut after)["containers"][1]["livenessProbe"] = json!({"tcpSocket": {"port": 80}});
    let undone = undo(&after, &patch.edits);
    assert_eq!(undone.left, ["spec.template.spec.containers[web].livenessProbe: somebody else changed it"]);
    let mut expected = before.clone();
    pod(&mut expected)["containers"][0]["image"] = json!("web:2");
    pod(&mut expected)["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 80}});
    pod(&mut expected)["containers"].as_array_mut().unwrap().reverse();
    assert_eq!(undone.object, expected);
}

#[test]
fn a_supervisor_that_is_still_used_stays() {
    let before = deployment();
    let patch = plan(&before, &[supervise("web", &[])]).unwrap();
    let mut after = applied(&before, &patch);
    pod(&mut after)["containers"][0]["command"][3] = json!("60");
    let undone = undo(&after, &patch.edits);
    assert_eq!(undone.object["spec"]["template"]["spec"]["initContainers"], after["spec"]["template"]["spec"]["initContainers"]);
    insta::assert_snapshot!(undone.left.join("\n"));
}

#[test]
fn a_container_that_is_gone_needs_no_restore() {
    let before = deployment();
    let patch = plan(&before, &[supervise("web", &[]), pause("web")]).unwrap();
    let mut after = applied(&before, &patch);
    pod(&mut after)["containers"].as_array_mut().unwrap().remove(0);
    let undone = undo(&after, &patch.edits);
    assert_eq!(undone.left, [""; 0]);
    let pod = &undone.object["spec"]["template"]["spec"];
    assert!(pod.get("initContainers").is_none() && pod["volumes"] == before["spec"]["template"]["spec"]["volumes"], "{pod}");
}

#[test]
fn a_record_survives_its_file() {
    let patch = plan(&deployment(), &[supervise("web", &[]), pause("web")]).unwrap();
    let record = Record { object: patch.object, edits: patch.edits, managers: vec![json!({"manager": "x"})] };
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    assert_eq!(record.target().unwrap(), "deploy/web".parse().unwrap());
}

/// An object somewhere between a workload and anything.
fn objects() -> impl Strategy<Value = Value> {
    let command = prop_oneof![Just(json!(null)), Just(json!(["/app"])), Just(json!("text")), Just(json!([]))];
    let list = |name: &'static str| {
        prop_oneof![Just(json!(null)), Just(json!([])), Just(json!([{"name": name}])), Just(json!([{"name": "devloop"}])), Just(json!(3))]
    };
    let probe = prop_oneof![Just(json!(null)), Just(json!({"exec": {}}))];
    (command.clone(), command, list("x"), list("y"), probe, any::<bool>()).prop_map(|(command, args, volumes, inits, probe, twice)| {
        let mut object = deployment();
        let container = json!({"name": "web", "command": command, "args": args, "livenessProbe": probe, "volumeMounts": []});
        pod(&mut object)["containers"] = if twice { json!([{"name": "a"}, container, container]) } else { json!([container]) };
        pod(&mut object)["volumes"] = volumes;
        pod(&mut object)["initContainers"] = inits;
        object
    })
}

/// Without what the API doesn't tell from nothing.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), canonical(value)));
            fields.filter(|(_, value)| !value.is_null() && *value != json!([])).collect()
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn what_is_planned_can_be_undone(object in objects()) {
        if let Ok(patch) = plan(&object, &[supervise("web", &["/seen"]), pause("web")]) {
            let after = applied(&object, &patch);
            let undone = undo(&after, &patch.edits);
            prop_assert_eq!(undone.left, Vec::<String>::new());
            prop_assert_eq!(canonical(&undone.object), canonical(&object));
            let again = undo(&undone.object, &patch.edits);
            prop_assert_eq!((again.put_back, again.left), (Vec::new(), Vec::new()));
        }
    }
}

#[test]
fn options_are_added_to_what_is_there_and_taken_away_again() {
    let change = |seen: Option<&str>| Change::AddOptions {
        container: "web".into(),
        variable: "JAVA_TOOL_OPTIONS".into(),
        seen: seen.map(str::to_owned),
        options: "-agentlib:x".into(),
    };
    let value = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"].clone();
    let bare = deployment();
    let mut told = deployment();
    pod(&mut told)["containers"][0]["env"] = json!([{"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx$(SIZE)"}]);
    for (before, seen, wanted) in [
        (&bare, None, "-agentlib:x"),
        (&bare, Some("-Da=$(b)"), "-Da=$$(b) -agentlib:x"),
        (&told, Some("-Xmx64m"), "-Xmx$(SIZE) -agentlib:x"),
    ] {
        let patch = plan(before, &[change(seen)]).unwrap();
        let after = applied(before, &patch);
        assert_eq!(value(&after), wanted);
        assert_eq!(&undo(&after, &patch.edits).object, before);
        // Also while a supervisor is at work there.
        let supervised = applied(&after, &plan(&after, &[supervise("web", &[])]).unwrap());
        assert!(undo(&supervised, &patch.edits).left.is_empty());
    }
    pod(&mut told)["containers"][0]["env"][0] =
        json!({"name": "JAVA_TOOL_OPTIONS", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}});
    let refused = plan(&told, &[change(None)]).unwrap_err();
    assert!(matches!(refused, PlanError::FromElsewhere { .. }), "{refused}");
}
