//! Where objects name images, and how one name takes the place of another. Pure.

use super::manifest::Manifest;
use crate::image::REGISTRY;
use crate::project::{ImageField, ImageStep};
use serde_json::Value;

/// Makes every container that runs the image `name` (bare, with any tag or
/// digest, or as devloop built it before) run `reference`; answers how many there
/// are. Containers are looked for in every pod spec, wherever it is in an object;
/// `fields` are further places, in objects of other kinds.
///
/// A pull policy of `Always` becomes `IfNotPresent`, for the image is nowhere to
/// be pulled from.
pub fn replace_image(manifests: &mut [Manifest], name: &str, reference: &str, fields: &[ImageField]) -> usize {
    let mut count = 0;
    for manifest in manifests {
        for_each_container(&mut manifest.object, &mut |container| {
            if container["image"].as_str().is_some_and(|image| refers_to(image, name)) {
                container["image"] = reference.into();
                if container["imagePullPolicy"] == "Always" {
                    container["imagePullPolicy"] = "IfNotPresent".into();
                }
                count += 1;
            }
        });
        for_each_field(manifest, fields, &mut |value| {
            if value.as_str().is_some_and(|image| refers_to(image, name)) {
                *value = reference.into();
                count += 1;
            }
        });
    }
    count
}

/// Whether a container of the object, or one of the `fields`, names the image.
pub fn uses_image(manifest: &Manifest, name: &str, fields: &[ImageField]) -> bool {
    images(manifest, fields).iter().any(|image| refers_to(image, name))
}

/// All images that an object names, in its containers and the `fields`.
pub fn images(manifest: &Manifest, fields: &[ImageField]) -> Vec<String> {
    let mut found = Vec::new();
    let mut copy = manifest.clone();
    for_each_container(&mut copy.object, &mut |container| found.extend(container["image"].as_str().map(str::to_owned)));
    for_each_field(&mut copy, fields, &mut |value| found.extend(value.as_str().map(str::to_owned)));
    found
}

fn refers_to(image: &str, name: &str) -> bool {
    let local = image.strip_prefix(REGISTRY).and_then(|rest| rest.strip_prefix('/')).unwrap_or(image);
    local.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
}

fn for_each_container(value: &mut Value, visit: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if ["containers", "initContainers", "ephemeralContainers"].contains(&key.as_str())
                    && let Some(containers) = field.as_array_mut()
                {
                    containers.iter_mut().filter(|container| container.is_object()).for_each(&mut *visit);
                } else {
                    for_each_container(field, visit);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_container(item, visit)),
        _ => {}
    }
}

fn for_each_field(manifest: &mut Manifest, fields: &[ImageField], visit: &mut impl FnMut(&mut Value)) {
    let kind = manifest.kind().to_owned();
    for field in fields.iter().filter(|field| field.kind == kind) {
        follow(&mut manifest.object, &field.path, visit);
    }
}

fn follow(value: &mut Value, path: &[ImageStep], visit: &mut impl FnMut(&mut Value)) {
    let Some((step, rest)) = path.split_first() else { return visit(value) };
    match step {
        ImageStep::Key(key) => value.get_mut(key).into_iter().for_each(|next| follow(next, rest, visit)),
        ImageStep::Item(index) => value.get_mut(*index).into_iter().for_each(|next| follow(next, rest, visit)),
        ImageStep::All => match value {
            Value::Array(items) => items.iter_mut().for_each(|next| follow(next, rest, visit)),
            Value::Object(fields) => fields.values_mut().for_each(|next| follow(next, rest, visit)),
            _ => {}
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(object: Value) -> Manifest {
        Manifest { object, path: "k8s/app.yaml".into(), document: 1, line: 1 }
    }

    #[test]
    fn a_name_is_a_name_with_any_tag() {
        for (image, fits) in [
            ("shop", true),
            ("shop:1", true),
            ("shop@sha256:0", true),
            ("devloop.local/shop:12", true),
            ("shopping", false),
            ("docker.io/shop", false),
            ("devloop.local/shopping:1", false),
        ] {
            assert_eq!(refers_to(image, "shop"), fits, "{image}");
        }
    }

    #[test]
    fn the_image_is_replaced_wherever_a_pod_is_described() {
        let containers = json!([{"name": "a", "image": "shop", "imagePullPolicy": "Always"}, {"name": "b", "image": "shopping:1"}]);
        let spec = json!({"containers": containers, "initContainers": [{"image": "shop:2"}], "ephemeralContainers": [{"image": "shop"}]});
        let objects = [
            json!({"kind": "Pod", "spec": spec}),
            json!({"kind": "PodTemplate", "template": {"spec": spec}}),
            json!({"kind": "Job", "spec": {"template": {"spec": spec}}}),
            json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}),
        ];
        for object in objects {
            let mut manifests = [manifest(object)];
            assert!(uses_image(&manifests[0], "shop", &[]) && !uses_image(&manifests[0], "web", &[]));
            assert_eq!(replace_image(&mut manifests, "shop", "devloop.local/shop:abc", &[]), 3);
            let text = manifests[0].object.to_string();
            assert!(text.contains("IfNotPresent") && text.contains("shopping:1") && !text.contains("Always"), "{text}");
        }
    }

    #[test]
    fn other_kinds_are_asked_where_they_are_said_to_name_images() {
        let field = ImageField {
            kind: "Fleet".into(),
            path: vec![ImageStep::Key("spec".into()), ImageStep::Key("pools".into()), ImageStep::All, ImageStep::Key("image".into())],
        };
        let object = |kind: &str| manifest(json!({"kind": kind, "spec": {"pools": [{"image": "shop"}, {"image": "other"}, {}]}}));
        let mut manifests = [object("Fleet"), object("Other")];
        assert!(!uses_image(&manifests[0], "shop", &[]));
        assert!(uses_image(&manifests[0], "shop", std::slice::from_ref(&field)));
        assert_eq!(replace_image(&mut manifests, "shop", "x:1", &[field]), 1);
        assert_eq!(manifests[0].object["spec"]["pools"], json!([{"image": "x:1"}, {"image": "other"}, {}]));
    }
}
