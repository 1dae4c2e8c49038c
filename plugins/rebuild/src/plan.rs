//! Which manifests are applied for which services. Pure.

use devloop_core::deploy::{Manifest, same_object, uses_image};
use devloop_core::project::{ImageField, ImageSpec, Service};
use devloop_core::{CommandError, Result};

/// A service and the manifests that its project file names.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) service: Service,
    /// The service's.
    pub(crate) image: ImageSpec,
    pub(crate) manifests: Vec<Manifest>,
}

/// What is to be done, before anything is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) services: Vec<PlannedService>,
    /// Those of all services, each once.
    pub(crate) manifests: Vec<Manifest>,
    /// What else the project has: nothing of it is applied now.
    pub(crate) others: Vec<Manifest>,
    /// Where objects without a pod spec name images.
    pub(crate) fields: Vec<ImageField>,
}

/// A service to rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedService {
    pub(crate) service: Service,
    /// What its image holds.
    pub(crate) image: ImageSpec,
    /// The namespace that its target's manifest names.
    pub(crate) namespace: Option<String>,
}

/// Joins the services' manifests; `others` are those of services that were not
/// selected. An object that runs the image of a service that
/// was not selected is left out: that image is not built now.
///
/// # Errors
/// When nothing in a service's manifests runs its image, or two services have
/// different manifests for one object.
pub(crate) fn plan(sources: Vec<Source>, mut others: Vec<Manifest>, all: &[Service]) -> Result<Plan> {
    let fields: Vec<ImageField> = all.iter().flat_map(|service| service.deploy.images.clone()).collect();
    let left_out: Vec<&str> = all
        .iter()
        .filter_map(|service| service.image.as_ref().map(|image| image.name.as_str()))
        .filter(|name| sources.iter().all(|source| source.image.name != *name))
        .collect();
    let mut manifests: Vec<Manifest> = Vec::new();
    let mut services = Vec::with_capacity(sources.len());
    for source in sources {
        let image = &source.image.name;
        if !source.manifests.iter().any(|manifest| uses_image(manifest, image, &fields)) {
            return Err(CommandError::new(format!("no container in the manifests of {} runs image {image:?}", source.service.name))
                .with_hint(format!("write `image: {image}` in the pod spec that is to run it")));
        }
        let namespace = source.manifests.iter().find(|manifest| is_target(manifest, &source.service)).and_then(Manifest::namespace);
        services.push(PlannedService { namespace: namespace.map(str::to_owned), service: source.service, image: source.image });
        for manifest in source.manifests {
            if left_out.iter().any(|name| uses_image(&manifest, name, &fields)) {
                others.push(manifest);
                continue;
            }
            match manifests.iter().find(|known| same_object(known, &manifest)) {
                None => manifests.push(manifest),
                Some(known) if known.object == manifest.object => {}
                Some(known) => {
                    let message = format!("{}: {} is another one in {}", manifest.place(), manifest.describe(), known.place());
                    return Err(CommandError::new(message).with_hint("two services can't apply different manifests of one object"));
                }
            }
        }
    }
    Ok(Plan { services, manifests, others, fields })
}

fn is_target(manifest: &Manifest, service: &Service) -> bool {
    manifest.describe() == service.deploy.target.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn services() -> Vec<Service> {
        let folder = tempfile::tempdir().unwrap();
        let service = |name: &str| {
            format!(
                "- {{name: {name}, build: {{cargo: {{package: {name}, binary: {name}}}}}, image: {{name: {name}, base: scratch, binary: /{name}}}, \
                 deploy: {{manifests: [k8s], target: deploy/{name}}}}}\n"
            )
        };
        let text = format!("apiVersion: devloop/v1\nservices:\n{}{}", service("shop"), service("cart"));
        std::fs::write(folder.path().join("devloop.yaml"), text).unwrap();
        devloop_core::project::load(None, folder.path()).unwrap().services
    }

    fn deployment(name: &str) -> Manifest {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "dev"},
            "spec": {"template": {"spec": {"containers": [{"name": name, "image": name}]}}}
        });
        Manifest { object, path: "k8s/all.yaml".into(), document: 1, line: 1 }
    }

    #[test]
    fn what_runs_other_images_is_left_alone() {
        let all = services();
        let manifests = vec![deployment("shop"), deployment("cart")];
        let both: Vec<Source> = all
            .iter()
            .map(|service| Source { service: service.clone(), image: service.image.clone().unwrap(), manifests: manifests.clone() })
            .collect();
        assert_eq!(plan(both.clone(), Vec::new(), &all).unwrap().manifests.len(), 2);
        let shop = plan(both[..1].to_vec(), Vec::new(), &all).unwrap();
        assert_eq!(shop.others.iter().map(Manifest::name).collect::<Vec<_>>(), ["cart"]);
        assert_eq!(shop.manifests.iter().map(Manifest::name).collect::<Vec<_>>(), ["shop"]);
        assert_eq!(shop.services[0].namespace.as_deref(), Some("dev"));
    }

    #[test]
    fn a_service_that_nothing_runs_is_a_mistake() {
        let all = services();
        let error = plan(
            vec![Source { service: all[0].clone(), image: all[0].image.clone().unwrap(), manifests: vec![deployment("cart")] }],
            Vec::new(),
            &all,
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "no container in the manifests of shop runs image \"shop\"");
    }

    #[test]
    fn two_services_cant_want_different_things_of_one_object() {
        let all = services();
        let mut other = deployment("shop");
        other.object["spec"]["replicas"] = 2.into();
        other.path = "k8s/other.yaml".into();
        let manifests = [vec![deployment("shop"), deployment("cart")], vec![other, deployment("cart")]];
        let sources = all.iter().zip(manifests).map(|(service, manifests)| Source {
            service: service.clone(),
            image: service.image.clone().unwrap(),
            manifests,
        });
        let error = plan(sources.collect(), Vec::new(), &all).unwrap_err();
        assert_eq!(error.to_string(), "k8s/other.yaml:1: deployment/shop is another one in k8s/all.yaml:1");
    }
}
