//! From a request to scopes of pods: contexts, namespaces, objects.

use crate::query::Query;
use crate::request::{Places, Request};
use devloop_core::args::ClusterArgs;
use devloop_core::cluster::{self, Cluster};
use devloop_core::error::ErrorHint;
use devloop_core::logs::{Choice, Place, Scope, containers, find_object, list_pods};
use devloop_core::target::resolve;
use devloop_core::ui::Ui;
use devloop_core::{CommandError, Result, telemetry};
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use regex::Regex;
use std::sync::Arc;

/// Finds the scopes; says which can't be had, as long as others can.
pub(crate) async fn scopes(request: &Request, ui: &Ui) -> Result<Vec<Scope>> {
    let places = &request.places;
    let has_several = places.clusters.len() > 1;
    let clusters = try_join_all(places.clusters.iter().map(connect)).await?;
    let mut wanted = Vec::new();
    for cluster in &clusters {
        let context = has_several.then(|| cluster.context.clone());
        let place = Arc::new(Place { context, ..Place::from(cluster) });
        for namespace in namespaces(places, cluster) {
            wanted.push((Arc::clone(&place), namespace));
        }
    }
    let found = join_all(wanted.into_iter().map(|(place, namespace)| in_namespace(request, place, namespace))).await;
    let (mut scopes, mut failures) = (Vec::new(), Vec::new());
    for found in found {
        match found {
            Ok(found) => scopes.extend(found),
            Err(error) => failures.push(error),
        }
    }
    if scopes.is_empty()
        && let Some(error) = failures.pop()
    {
        return Err(error);
    }
    for error in failures {
        ui.warn(format!("{}; the rest goes on", telemetry::error_chain(&error)));
    }
    check_containers(&request.options.choice, &scopes).await?;
    Ok(scopes)
}

async fn connect(args: &ClusterArgs) -> Result<Cluster> {
    // The namespaces are looked at one by one.
    cluster::connect(&ClusterArgs { namespace: None, ..args.clone() }).await
}

/// None stands for all.
fn namespaces(places: &Places, cluster: &Cluster) -> Vec<Option<String>> {
    match &places.namespaces {
        _ if places.all_namespaces => vec![None],
        Some(namespaces) => namespaces.iter().cloned().map(Some).collect(),
        None => vec![Some(cluster.namespace.clone())],
    }
}

/// A scope for each object, and one for all patterns.
async fn in_namespace(request: &Request, place: Arc<Place>, namespace: Option<String>) -> Result<Vec<Scope>> {
    let places = &request.places;
    let base = Scope { fields: places.fields.clone(), ..Scope::new(place, namespace) };
    let mut scopes = Vec::new();
    let mut names: Vec<Regex> = Vec::new();
    for query in &request.queries {
        match query {
            Query::Pattern(pattern) => names.push(pattern.clone()),
            Query::Name(name) => match deployment(&base, name).await {
                Some(target) => scopes.push(of_target(&base, &target).await?),
                None => names.push(Regex::new(&regex::escape(name)).map_err(|error| CommandError::usage(error.to_string()))?),
            },
            Query::Object(target) => scopes.push(of_target(&base, target).await?),
            Query::Owner { kind, name } => {
                let object = find_object(&base.place.client, namespace_of(&base)?, kind, name).await?;
                scopes.push(Scope { owner: Some(object.uid), ..base.clone() });
            }
        }
    }
    if !names.is_empty() || request.queries.is_empty() {
        scopes.push(Scope { names, labels: places.labels.clone(), ..base });
    }
    Ok(scopes)
}

/// The Deployment of this name, if there is one. Who may not ask means pods.
async fn deployment(scope: &Scope, name: &str) -> Option<devloop_core::target::Target> {
    let namespace = scope.namespace.as_ref()?;
    let api: Api<Deployment> = Api::namespaced(Client::clone(&scope.place.client), namespace);
    match api.get_opt(name).await {
        Ok(Some(_)) => format!("deployment/{name}").parse().ok(),
        Ok(None) => None,
        Err(error) => {
            tracing::info!(%error, name, "it is not known whether this is a Deployment; taken as a pattern of pods");
            None
        }
    }
}

async fn of_target(base: &Scope, target: &devloop_core::target::Target) -> Result<Scope> {
    let selection = resolve(&base.place.client, namespace_of(base)?, target).await?;
    Ok(base.clone().of(&selection))
}

fn namespace_of(scope: &Scope) -> Result<&str> {
    scope.namespace.as_deref().ok_or_else(|| {
        CommandError::usage("an object is in one namespace; --all-namespaces has many")
            .with_hint("name it with --namespace, or use a pattern")
    })
}

/// A container name that none of the pods has is a mistake, not something to wait for.
async fn check_containers(choice: &Choice, scopes: &[Scope]) -> Result<()> {
    if choice.containers.is_empty() {
        return Ok(());
    }
    let listed = join_all(scopes.iter().map(|scope| list_pods(scope, choice))).await;
    // What can't be listed is said when it is to be read.
    let pods: Vec<Pod> = listed.into_iter().flatten().flatten().collect();
    let mut known: Vec<String> = pods.iter().flat_map(containers).map(|container| container.name).collect();
    known.sort();
    known.dedup();
    if known.is_empty() || known.iter().any(|name| choice.wants_container(name)) {
        return Ok(());
    }
    let wanted: Vec<String> = choice.containers.iter().map(|pattern| format!("{:?}", pattern.as_str())).collect();
    Err(CommandError::new(format!("no pod has a container {}", wanted.join(" or ")))).hint(format!("containers: {}", known.join(", ")))
}
