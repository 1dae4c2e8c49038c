//! The published schema says what the parser reads.

use super::document::parse;
use super::*;
use regex::Regex;
use serde_json::Value;

/// What the schema finds wrong; nothing for a file that fits. Knows the keywords
/// that the schema uses, and refuses others: so none goes unchecked.
fn check(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let root: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut wrong = Vec::new();
    for (keyword, wanted) in schema.as_object().unwrap() {
        let fits = match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "default" => true,
            "$ref" => {
                let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                wrong.extend(check(&root["$defs"][name], value, place));
                !root["$defs"][name].is_null()
            }
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|one| is_type(one, value)),
                one => is_type(one, value),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "oneOf" => wanted.as_array().unwrap().iter().filter(|one| check(one, value, place).is_empty()).count() == 1,
            "pattern" => {
                let pattern = Regex::new(wanted.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= wanted.as_u64().unwrap()),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 <= wanted.as_u64().unwrap()),
            "minimum" => value.as_i64().is_none_or(|number| number >= wanted.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|number| number <= wanted.as_i64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= wanted.as_u64().unwrap()),
            "minProperties" => value.as_object().is_none_or(|map| map.len() as u64 >= wanted.as_u64().unwrap()),
            "maxProperties" => value.as_object().is_none_or(|map| map.len() as u64 <= wanted.as_u64().unwrap()),
            "required" => {
                value.as_object().is_none_or(|map| wanted.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap())))
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    wrong.extend(check(wanted, item, &format!("{place}[{index}]")));
                }
                true
            }
            "properties" => {
                for (key, item) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = wanted.get(key) {
                        wrong.extend(check(schema, item, &format!("{place}.{key}")));
                    }
                }
                true
            }
            "additionalProperties" => value.as_object().into_iter().flatten().all(|(key, item)| {
                let listed = schema["properties"].get(key).is_some();
                listed || (wanted.is_object() && check(wanted, item, place).is_empty())
            }),
            other => panic!("keyword {other} of the schema is not checked"),
        };
        if !fits {
            wrong.push(format!("{place}: {keyword}"));
        }
    }
    wrong
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("type {other} of the schema is not checked"),
    }
}

fn by_schema(text: &str) -> Vec<String> {
    let value: Value = serde_yaml_ng::from_str(text).unwrap();
    check(&serde_json::from_str(SCHEMA).unwrap(), &value, "")
}

fn service(rest: &str) -> String {
    format!("apiVersion: devloop/v1\nservices:\n  - name: web\n    deploy: {{ target: web }}\n{rest}")
}

const SHOP: &str = include_str!("../../../../devenv/examples/shop/devloop.yaml");

#[test]
fn what_the_parser_reads_fits_the_schema() {
    let image =
        "{ name: a/b-c_d.e, base: scratch, binary: /web, workdir: /, user: '1', env: { A: b }, files: [{ from: x, to: /x }], ports: [80] }";
    let files = [
        SHOP.to_owned(),
        service(""),
        service("    image: { name: a, base: 'oci:x/y.tar', labels: { a: b }, stopSignal: SIGINT, strip: false, annotations: true }\n"),
        service("    image: { name: a, base: 'docker:node:22' }\n"),
        service(
            "    image: { name: a, base: 'cluster:localhost:5000/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000' }\n",
        ),
        service("    image: { name: a, base: debian, binary: null }\n"),
        service("    build: { node: { folder: web, to: /x, include: [patches, a.tgz] } }\n"),
        service("    build: { python: {} }\n"),
        service("    build: { python: { requirements: null } }\n"),
        service("    build: { python: { folder: x, requirements: r/a.txt, to: /y, include: [] } }\n"),
        service(&format!("    image: {image}\n    build: {{ go: {{}} }}\n")),
        service("    build: { cargo: { package: a, binary: b, profile: fast, manifest: x/Cargo.toml } }\n    binary: /x\n"),
        service(
            "    build: { dockerfile: { file: x/Dockerfile, context: x, target: a, args: { A: b, C: 1, D: 1.5, E: true }, secrets: [{ id: a, src: ../b }, \
             { id: c, env: D }], ssh: [default], platform: linux/arm/v7, cacheFrom: [a/b:c], builder: 'kube-pod://a?namespace=b' } }\n    image: { name: a }\n",
        ),
        service("    build: { dockerfile: {} }\n    image: { name: a }\n"),
        service("    build: { dockerfile: { builder: 'tcp://a:1?certificates=b' } }\n    image: { name: a }\n"),
        service("    build: { dockerfile: { builder: 'ssh://me@a:22' } }\n    image: { name: a }\n"),
        service("    build: { dockerfile: { builder: 'buildx://a' } }\n    image: { name: a }\n"),
        service("    build: { command: { run: [make], watch: [src], folder: x, output: web } }\n    binary: /x/y.z\n"),
        service("    sync: [{ from: ., to: /app/., ignore: ['*.pyc'] }, { from: ./a/../b, to: /.x }]\n"),
        service("    reload: [{ do: none }, { on: [x], do: restart }, { do: { signal: SIGUSR1 } }, { do: { exec: [x] } }]\n"),
        service("    reload: [{ do: { http: { path: '/x?y', port: 80, method: GET } } }]\n    restart: { by: in-place, grace: 500ms }\n"),
        service("").replace("target: web", "target: deployments.v1.apps/web, manifests: [k8s], container: x"),
        service("").replace("target: web", "target: { selector: app=web }"),
        service("").replace("target: web", "target: web, helm: { chart: ./x, release: y, values: [a.yaml], set: { a.b: 1, c: x } }"),
        service("").replace("target: web", "target: web, images: [{ kind: X, path: '{.spec.a[*].image}' }, { kind: Y, path: spec.image }]"),
    ];
    for text in files {
        parse(Path::new("devloop.yaml"), &text).unwrap();
        assert_eq!(by_schema(&text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn what_the_parser_refuses_does_not_fit_the_schema() {
    let files = [
        "apiVersion: devloop/v1\nservices: []\n".to_owned(),
        "apiVersion: devloop/v1\n".to_owned(),
        service("").replace("devloop/v1", "devloop/v2"),
        service("").replace("name: web", "name: we b"),
        service("").replace("name: web", "nme: web"),
        service("").replace("target: web", "target: a/b/c"),
        service("").replace("target: web", "target: { selector: '' }"),
        service("").replace("target: web", "target: web, helm: { values: [a] }"),
        service("").replace("target: web", "target: web, helm: { chart: -x }"),
        service("").replace("target: web", "target: web, images: [{ kind: X }]"),
        service("").replace("target: web", "target: web, images: [{ kind: X, path: '.' }]"),
        service("    buld: { go: {} }\n"),
        service("    build: { go: {}, command: { run: [x], watch: [] } }\n    binary: /x\n"),
        service("    build: {}\n"),
        service("    build: { node: { to: x } }\n"),
        service("    build: { python: { requirement: x } }\n"),
        service("    build: { cargo: { package: a } }\n    binary: /x\n"),
        service("    build: { command: { run: [], watch: [] } }\n"),
        service("    image: { name: A, base: scratch, binary: /x }\n"),
        service("    image: { name: a, base: 'oci:/x' }\n"),
        service("    image: { name: a, base: 'Deb ian' }\n"),
        service("    image: { name: a, stopSignal: int }\n"),
        service("    image: { name: a, strip: maybe }\n"),
        service("    image: { name: a, base: scratch, binary: x }\n"),
        service("    image: { name: a, base: scratch, binary: /x, ports: [65536] }\n"),
        service("    sync: [{ from: /a, to: /b }]\n"),
        service("    sync: [{ from: a, to: / }]\n"),
        service("    sync: [{ from: a }]\n"),
        service("    sync: { from: a, to: /b }\n"),
        service("    reload: [{ on: [x] }]\n"),
        service("    reload: [{ on: x, do: none }]\n"),
        service("    reload: [{ do: reboot }]\n"),
        service("    reload: [{ do: {} }]\n"),
        service("    reload: [{ do: { signal: hup } }]\n"),
        service("    reload: [{ do: { signal: HUP, exec: [x] } }]\n"),
        service("    reload: [{ do: { http: { path: x, port: 80 } } }]\n"),
        service("    reload: [{ do: { http: { path: /x, port: 0 } } }]\n"),
        service("    reload: [{ do: { http: { path: /x, port: 80, method: get } } }]\n"),
        service("    restart: { by: init }\n"),
        service("    restart: { grace: 10 }\n"),
        service("    restart: { grace: 1h }\n"),
    ];
    for text in files {
        assert!(parse(Path::new("devloop.yaml"), &text).is_err(), "{text}");
        assert_ne!(by_schema(&text), Vec::<String>::new(), "{text}");
    }
}
