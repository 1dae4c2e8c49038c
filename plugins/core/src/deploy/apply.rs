//! Server-side apply of manifests
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/>).

use super::explain_api;
use super::manifest::Manifest;
use crate::cluster::Cluster;
use crate::error::{CommandError, Result};
use crate::target::Target;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::core::{ApiResource, GroupVersion};
use kube::discovery::{ApiGroup, Scope, pinned_group};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Who owns the fields that are applied.
pub const FIELD_MANAGER: &str = "devloop";

/// Requests to the API server at the same time.
const PARALLEL: usize = 8;

/// How to apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Take over fields that someone else owns, instead of failing.
    pub force: bool,
    /// Ask the server what would happen, change nothing.
    pub dry_run: bool,
}

/// What became of the objects, in the order in which they were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each manifest.
    pub objects: Vec<AppliedObject>,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedObject {
    /// `Deployment`, ...
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace; none for kinds that have none.
    pub namespace: Option<String>,
    /// What applying it did.
    pub change: Change,
    /// Whether its specification is another one now, as `metadata.generation`
    /// tells: for a workload, whether it rolls out.
    pub new_generation: bool,
}

/// What applying an object did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Created,
    /// It is another than before.
    Configured,
    /// It was like that.
    Unchanged,
}

impl Applied {
    /// The object that a target points at, if it is one of them.
    pub fn find(&self, target: &Target) -> Option<&AppliedObject> {
        let Target::Object { kind, name } = target else { return None };
        self.objects.iter().find(|object| object.kind.eq_ignore_ascii_case(kind.name()) && object.name == *name)
    }
}

/// Applies manifests; fields of others are left alone. See [`apply_with`].
///
/// # Errors
/// As [`apply_with`].
pub async fn apply(cluster: &Cluster, manifests: &[Manifest]) -> Result<Applied> {
    apply_with(cluster, manifests, ApplyOptions::default()).await
}

/// Applies manifests: configuration before the workloads that use it. All of them
/// are tried in a dry run first, so that a mistake in one changes nothing.
/// Objects without a namespace get the cluster's.
///
/// # Errors
/// When a kind is unknown, the server refuses an object, or can't be asked. If it
/// refuses after the dry run, the error names what was applied by then.
pub async fn apply_with(cluster: &Cluster, manifests: &[Manifest], options: ApplyOptions) -> Result<Applied> {
    let mut ordered: Vec<&Manifest> = manifests.iter().collect();
    ordered.sort_by_key(|manifest| rank(manifest.kind()));
    let mut kinds = Kinds { client: &cluster.client, groups: HashMap::new() };
    let mut prepared = Vec::with_capacity(ordered.len());
    kinds.fetch_all(&ordered).await?;
    for manifest in &ordered {
        let kind = kinds.find(manifest);
        if kind.is_none() && !defined_by(&ordered, manifest) {
            return Err(unknown_kind(manifest));
        }
        prepared.push(kind.map(|kind| kind.prepare(cluster, manifest)));
    }

    // Trying costs no more than a round trip: all are asked at once.
    let tries = prepared.iter().zip(&ordered).map(|(prepared, manifest)| async move {
        let Some(prepared) = prepared else { return Ok(None) };
        match prepared.dry_run(manifest, options.force).await {
            // Its namespace is among what is to be applied.
            Err(error) if error.missing_namespace() && creates_namespace(manifests, prepared.namespace.as_deref()) => Ok(None),
            outcome => outcome.map(Some).map_err(|error| error.explain(manifest)),
        }
    });
    let tried: Vec<Option<Tried>> = stream::iter(tries).buffered(PARALLEL).try_collect().await?;
    if options.dry_run {
        let objects = prepared
            .iter()
            .zip(&tried)
            .zip(&ordered)
            .map(|((prepared, tried), manifest)| {
                let namespace = prepared.as_ref().and_then(|prepared| prepared.namespace.clone());
                let (before, after) = tried.as_ref().map_or((None, None), |tried| (tried.before.as_ref(), Some(&tried.after)));
                outcome(manifest, namespace, before, after)
            })
            .collect();
        return Ok(Applied { objects });
    }

    let mut applied = Applied::default();
    let mut start = 0;
    while start < ordered.len() {
        // Objects of one rank don't wait for each other.
        let end = start + ordered[start..].iter().take_while(|next| rank(next.kind()) == rank(ordered[start].kind())).count();
        for index in start..end {
            if prepared[index].is_none() {
                prepared[index] = Some(kinds.wait_for(ordered[index]).await?.prepare(cluster, ordered[index]));
            }
        }
        let requests = (start..end).filter_map(|index| {
            let (prepared, manifest) = (prepared[index].as_ref()?, ordered[index]);
            let before = tried[index].as_ref().and_then(|tried| tried.before.as_ref());
            Some(async move {
                let after = prepared.patch(manifest, options.force, false).await.map_err(|error| Refused(error).explain(manifest))?;
                Ok::<_, CommandError>(outcome(manifest, prepared.namespace.clone(), before, Some(&after)))
            })
        });
        let results: Vec<Result<AppliedObject>> = stream::iter(requests).buffered(PARALLEL).collect().await;
        let mut failure = None;
        for result in results {
            match result {
                Ok(object) => applied.objects.push(object),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            let done: Vec<String> =
                applied.objects.iter().map(|object| format!("{}/{}", object.kind.to_lowercase(), object.name)).collect();
            return Err(if done.is_empty() { error } else { error.with_hint(format!("applied before that: {}", done.join(", "))) });
        }
        start = end;
    }
    Ok(applied)
}

/// What must be there first comes first.
fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount"
        | "Secret"
        | "ConfigMap"
        | "PersistentVolume"
        | "PersistentVolumeClaim"
        | "StorageClass"
        | "PriorityClass"
        | "ResourceQuota"
        | "LimitRange"
        | "NetworkPolicy"
        | "Role"
        | "ClusterRole" => 2,
        "RoleBinding" | "ClusterRoleBinding" => 3,
        "Service" => 4,
        "Pod" | "ReplicaSet" | "ReplicationController" | "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob" => 6,
        "HorizontalPodAutoscaler" | "Ingress" | "PodDisruptionBudget" | "APIService" => 7,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 8,
        _ => 5,
    }
}

/// Whether one of the manifests defines the kind of another.
fn defined_by(all: &[&Manifest], manifest: &Manifest) -> bool {
    let group = manifest.api_version().rsplit_once('/').map_or("", |(group, _)| group);
    all.iter().any(|other| {
        other.kind() == "CustomResourceDefinition"
            && other.object["spec"]["group"] == group
            && other.object["spec"]["names"]["kind"] == manifest.kind()
    })
}

fn creates_namespace(all: &[Manifest], namespace: Option<&str>) -> bool {
    all.iter().any(|other| other.kind() == "Namespace" && Some(other.name()) == namespace)
}

fn unknown_kind(manifest: &Manifest) -> CommandError {
    CommandError::new(format!("{}: the cluster has no kind {} in {}", manifest.place(), manifest.kind(), manifest.api_version()))
        .with_hint("check the spelling against `kubectl api-resources`, or install the CustomResourceDefinition first")
}

fn outcome(manifest: &Manifest, namespace: Option<String>, before: Option<&Value>, after: Option<&Value>) -> AppliedObject {
    let generation = |object: &Value| object["metadata"]["generation"].as_i64();
    let (change, new_generation) = match (before, after) {
        (Some(before), Some(after)) => (
            if essence(before) == essence(after) { Change::Unchanged } else { Change::Configured },
            generation(before) != generation(after),
        ),
        _ => (Change::Created, true),
    };
    AppliedObject { kind: manifest.kind().to_owned(), name: manifest.name().to_owned(), namespace, change, new_generation }
}

/// An object without what changes by itself.
fn essence(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
        // The Deployment controller counts its revisions there.
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("deployment.kubernetes.io/revision");
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

/// The kinds that the server has, asked once for each group and version.
struct Kinds<'a> {
    client: &'a Client,
    groups: HashMap<String, Option<ApiGroup>>,
}

impl Kinds<'_> {
    async fn fetch_all(&mut self, manifests: &[&Manifest]) -> Result<()> {
        let mut versions: Vec<&str> = manifests.iter().map(|manifest| manifest.api_version()).collect();
        versions.sort_unstable();
        versions.dedup();
        let fetched: Vec<(String, Option<ApiGroup>)> =
            stream::iter(versions.into_iter().map(|version| fetch(self.client, version))).buffered(PARALLEL).try_collect().await?;
        self.groups.extend(fetched);
        Ok(())
    }

    fn find(&self, manifest: &Manifest) -> Option<KindOnServer> {
        let group = self.groups.get(manifest.api_version())?.as_ref()?;
        let version = manifest.api_version().rsplit('/').next()?;
        let found = group.versioned_resources(version).into_iter().find(|(resource, _)| resource.kind == manifest.kind())?;
        Some(KindOnServer { resource: found.0, namespaced: found.1.scope == Scope::Namespaced })
    }

    /// Waits until the server serves a kind whose definition was just applied.
    async fn wait_for(&mut self, manifest: &Manifest) -> Result<KindOnServer> {
        let started = Instant::now();
        loop {
            let (version, group) = fetch(self.client, manifest.api_version()).await?;
            self.groups.insert(version, group);
            match self.find(manifest) {
                Some(kind) => return Ok(kind),
                None if started.elapsed() > Duration::from_secs(15) => return Err(unknown_kind(manifest)),
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn fetch(client: &Client, version: &str) -> Result<(String, Option<ApiGroup>)> {
    let Ok(parsed) = version.parse::<GroupVersion>() else { return Ok((version.to_owned(), None)) };
    match pinned_group(client, &parsed).await {
        Ok(group) => Ok((version.to_owned(), Some(group))),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok((version.to_owned(), None)),
        Err(error) => Err(explain_api(error, format!("could not ask the cluster for its kinds in {version}"))),
    }
}

struct KindOnServer {
    resource: ApiResource,
    namespaced: bool,
}

impl KindOnServer {
    fn prepare(&self, cluster: &Cluster, manifest: &Manifest) -> Prepared {
        let namespace = self.namespaced.then(|| manifest.namespace().unwrap_or(&cluster.namespace).to_owned());
        let api = match &namespace {
            Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &self.resource),
            None => Api::all_with(cluster.client.clone(), &self.resource),
        };
        Prepared { api, namespace }
    }
}

/// An object's place on the server.
struct Prepared {
    api: Api<DynamicObject>,
    namespace: Option<String>,
}

/// What the server has and what it would have.
struct Tried {
    before: Option<Value>,
    after: Value,
}

impl Prepared {
    async fn dry_run(&self, manifest: &Manifest, force: bool) -> Result<Tried, Refused> {
        let before = async { self.api.get_opt(manifest.name()).await.map_err(Refused) };
        let after = async { self.patch(manifest, force, true).await.map_err(Refused) };
        let (before, after) = tokio::try_join!(before, after)?;
        Ok(Tried { before: before.and_then(|object| serde_json::to_value(object).ok()), after })
    }

    async fn patch(&self, manifest: &Manifest, force: bool, dry_run: bool) -> Result<Value, kube::Error> {
        let params = PatchParams {
            dry_run,
            force,
            field_manager: Some(FIELD_MANAGER.to_owned()),
            // As kubectl does: an unknown field is a mistake.
            field_validation: Some(ValidationDirective::Strict),
        };
        let mut object = manifest.object.clone();
        if let Some(namespace) = &self.namespace {
            object["metadata"]["namespace"] = namespace.as_str().into();
        }
        let applied = self.api.patch(manifest.name(), &params, &Patch::Apply(&object)).await?;
        serde_json::to_value(applied).map_err(kube::Error::SerdeError)
    }
}

/// A request that was not carried out.
struct Refused(kube::Error);

impl Refused {
    fn missing_namespace(&self) -> bool {
        matches!(&self.0, kube::Error::Api(status) if status.code == 404 && status.message.contains("namespaces"))
    }

    fn explain(self, manifest: &Manifest) -> CommandError {
        let hint = match &self.0 {
            kube::Error::Api(status) => match status.code {
                409 => Some("someone else manages these fields; take them over with --force-conflicts"),
                404 if status.message.contains("namespaces") => Some("create the namespace first, or choose another with -n"),
                422 if status.message.contains("immutable") => Some("such a field can't be changed; delete the object and run again"),
                _ => None,
            },
            _ => None,
        };
        let error = explain_api(self.0, format!("could not apply {} of {}", manifest.describe(), manifest.place()));
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}
