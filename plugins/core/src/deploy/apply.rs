//! Server-side apply of manifests
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/>): first
//! all of them in a dry run, then for good.

use super::inventory::Inventory;
use super::kinds::{Kinds, PARALLEL, Place, unknown_kind};
use super::manifest::Manifest;
use super::order::{creates_namespace, defined_by, rank};
use super::set::{ApplySet, HASH_ANNOTATION, Orphan, in_force, orphans};
use super::{FIELD_MANAGER, ObjectId, explain_api};
use crate::cluster::Cluster;
use crate::error::{CommandError, Result};
use crate::target::Target;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::runtime::wait::await_condition;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a definition of a kind may take to be established.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// How to apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Take over fields that someone else owns, instead of failing.
    pub force: bool,
    /// What the objects are to belong to; none leaves no mark on them.
    pub set: Option<ApplySet>,
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
    /// `apps/v1`, ...
    pub api_version: String,
    /// Its name.
    pub name: String,
    /// Its namespace; none for kinds that have none.
    pub namespace: Option<String>,
    /// What applying it did.
    pub change: Change,
    /// Whether its specification is another one now, as `metadata.generation`
    /// tells: for a workload, whether it rolls out.
    pub new_generation: bool,
    /// What the server had; nothing for a new one.
    pub before: Option<Value>,
    /// What it has now, or would have; nothing where that can't be known yet.
    pub after: Option<Value>,
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

impl AppliedObject {
    /// `deployment/shop`, as kubectl names it.
    pub fn describe(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// Manifests that the server accepted, or would accept: nothing is changed yet.
pub struct Trial {
    cluster: Cluster,
    kinds: Kinds,
    options: ApplyOptions,
    inventory: Option<Inventory>,
    /// In the order in which they are applied.
    tried: Vec<Tried>,
    warnings: Vec<String>,
    applied: Applied,
}

/// One manifest.
struct Tried {
    manifest: Manifest,
    /// None for a kind that another manifest defines.
    place: Option<Place>,
    before: Option<Value>,
    after: Option<Value>,
}

/// Asks the server what would become of the manifests. A mistake in any of them
/// is found here, before one is applied. Objects without a namespace get the
/// cluster's. What is in force already, as a look at the project's objects tells,
/// is not asked for again.
///
/// # Errors
/// When a kind is unknown, the server refuses an object, or can't be asked.
pub async fn try_apply(cluster: &Cluster, manifests: &[Manifest], options: ApplyOptions) -> Result<Trial> {
    let mut ordered: Vec<Manifest> = manifests.to_vec();
    ordered.sort_by_key(|manifest| rank(manifest.kind()));
    let mut options = options;
    let mut warnings = Vec::new();
    let parent = async {
        match &options.set {
            Some(set) => Inventory::parent(&cluster.client, set).await,
            None => Ok(None),
        }
    };
    let borrowed: Vec<&Manifest> = ordered.iter().collect();
    let (kinds, parent) = tokio::try_join!(Kinds::of(&cluster.client, &borrowed), async { Ok(parent.await) })?;
    let mut places = Vec::with_capacity(ordered.len());
    for manifest in &borrowed {
        let kind = kinds.find(manifest);
        if kind.is_none() && !defined_by(&borrowed, manifest) {
            return Err(unknown_kind(manifest));
        }
        places.push(kind.map(|kind| kind.place(cluster, manifest)));
    }
    drop(borrowed);
    let ids: Vec<ObjectId> = ordered.iter().zip(&places).map(|(manifest, place)| id_of(manifest, place.as_ref(), cluster)).collect();
    let inventory = match (parent, &options.set) {
        (Ok(parent), Some(set)) => Some(Inventory::look(cluster, &kinds, set, parent, &ids).await?),
        (Ok(_), None) => None,
        (Err(error), _) => {
            warnings.push(format!("what is applied is not kept track of, so that nothing can be pruned: {}", error.chain().join(": ")));
            options.set = None;
            None
        }
    };
    if let Some(set) = &options.set {
        ordered.iter_mut().for_each(|manifest| set.stamp(manifest, &cluster.namespace));
    }

    // Trying costs no more than a round trip: all are asked at once.
    let borrowed: Vec<&Manifest> = ordered.iter().collect();
    let (all, force) = (&borrowed, options.force);
    let tries = borrowed.iter().zip(&places).zip(&ids).map(|((manifest, place), id)| {
        let member = inventory.as_ref().and_then(|inventory| inventory.members.get(id)).cloned();
        async move {
            let Some(place) = place else { return Ok((None, None)) };
            if let Some(object) = member.filter(|object| in_force(manifest, object)) {
                return Ok((Some(object.clone()), Some(object)));
            }
            match dry_run(place, manifest, force).await {
                // Its namespace is among what is to be applied.
                Err(error) if error.missing_namespace() && creates_namespace(all, place.namespace.as_deref()) => {
                    elsewhere(cluster, place, manifest).await?;
                    Ok((None, None))
                }
                Ok((before, after)) => Ok((before, Some(after))),
                Err(error) => Err(error.explain(manifest)),
            }
        }
    });
    let outcomes: Vec<(Option<Value>, Option<Value>)> = stream::iter(tries).buffered(PARALLEL).try_collect().await?;
    let tried = ordered
        .into_iter()
        .zip(places)
        .zip(outcomes)
        .map(|((manifest, place), (before, after))| Tried { manifest, place, before, after })
        .collect();
    Ok(Trial { cluster: cluster.clone(), kinds, options, inventory, tried, warnings, applied: Applied::default() })
}

fn id_of(manifest: &Manifest, place: Option<&Place>, cluster: &Cluster) -> ObjectId {
    let namespace = match place {
        Some(place) => place.namespace.clone(),
        None => Some(manifest.namespace().unwrap_or(&cluster.namespace).to_owned()),
    };
    ObjectId { group: manifest.group().to_owned(), kind: manifest.kind().to_owned(), namespace, name: manifest.name().to_owned() }
}

impl Trial {
    /// What would become of the objects.
    pub fn outcome(&self) -> Applied {
        Applied { objects: self.tried.iter().map(Tried::outcome).collect() }
    }

    /// What can't be done, though all else can.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Objects that this project applied and that neither these manifests nor the
    /// `others` of the project have any more.
    pub fn orphans(&self, others: &[Manifest]) -> Vec<Orphan> {
        let Some(inventory) = &self.inventory else { return Vec::new() };
        let all = self.tried.iter().map(|tried| id_of(&tried.manifest, tried.place.as_ref(), &self.cluster)).chain(others.iter().map(
            |manifest| {
                let place = self.kinds.find(manifest).map(|kind| kind.place(&self.cluster, manifest));
                id_of(manifest, place.as_ref(), &self.cluster)
            },
        ));
        orphans(&inventory.members, &all.collect::<BTreeSet<ObjectId>>())
    }

    /// Removes objects that the project no longer has, those that need others
    /// first; answers which are gone.
    ///
    /// # Errors
    /// When the server refuses; the error names what was removed by then.
    pub async fn prune(&self, orphans: &[Orphan]) -> Result<Vec<ObjectId>> {
        let Some(inventory) = &self.inventory else { return Ok(Vec::new()) };
        inventory.prune(&self.cluster, &self.kinds, orphans).await
    }

    /// Applies the manifests: what others need before what needs it, and a
    /// definition established before objects of its kind. What would not change is
    /// left alone.
    ///
    /// # Errors
    /// When the server refuses after all; the error names what was applied by then.
    pub async fn commit(&mut self) -> Result<Applied> {
        let mut announced = false;
        let mut start = 0;
        while start < self.tried.len() {
            let now = rank(self.tried[start].manifest.kind());
            let end = start + self.tried[start..].iter().take_while(|next| rank(next.manifest.kind()) == now).count();
            // Not before its namespace, which may be the first rank.
            if now > 0 && !announced {
                self.announce().await?;
                announced = true;
            }
            for index in start..end {
                if self.tried[index].place.is_none() {
                    let kind = self.kinds.wait_for(&self.tried[index].manifest).await?;
                    self.tried[index].place = Some(kind.place(&self.cluster, &self.tried[index].manifest));
                }
            }
            let force = self.options.force;
            let requests = self.tried[start..end].iter().map(|tried| tried.commit(force));
            let results: Vec<Result<AppliedObject>> = stream::iter(requests).buffered(PARALLEL).collect().await;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(object) => self.applied.objects.push(object),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            if let Some(error) = failure {
                let done: Vec<String> =
                    self.applied.objects.iter().filter(|object| object.change != Change::Unchanged).map(AppliedObject::describe).collect();
                return Err(if done.is_empty() { error } else { error.with_hint(format!("applied before that: {}", done.join(", "))) });
            }
            start = end;
        }
        if !announced {
            self.announce().await?;
        }
        Ok(self.applied.clone())
    }

    /// What was applied, also where [`Trial::commit`] failed on the way.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    async fn announce(&self) -> Result<()> {
        match &self.inventory {
            Some(inventory) => inventory.announce(&self.cluster.client).await,
            None => Ok(()),
        }
    }
}

impl Tried {
    fn outcome(&self) -> AppliedObject {
        outcome(&self.manifest, self.place.as_ref(), self.before.as_ref(), self.after.as_ref())
    }

    async fn commit(&self, force: bool) -> Result<AppliedObject> {
        let expected = self.outcome();
        let same_managers =
            || self.before.as_ref().zip(self.after.as_ref()).is_some_and(|(before, after)| managers(before) == managers(after));
        if expected.change == Change::Unchanged && same_managers() {
            return Ok(expected);
        }
        let Some(place) = &self.place else { return Err(unknown_kind(&self.manifest)) };
        let after = patch(place, &self.manifest, force, false).await.map_err(|error| Refused(error).explain(&self.manifest))?;
        if self.manifest.kind() == "CustomResourceDefinition" {
            established(place, &self.manifest).await?;
        }
        Ok(outcome(&self.manifest, Some(place), self.before.as_ref(), Some(&after)))
    }
}

/// Waits until objects of a kind can be made.
async fn established(place: &Place, manifest: &Manifest) -> Result<()> {
    let is_established = |object: Option<&DynamicObject>| {
        let conditions = object.and_then(|object| object.data["status"]["conditions"].as_array());
        conditions.is_some_and(|all| all.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True"))
    };
    match tokio::time::timeout(ESTABLISHED, await_condition(place.api.clone(), manifest.name(), is_established)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            Err(CommandError::new(format!("could not wait for {} of {}", manifest.describe(), manifest.place())).caused_by(error))
        }
        Err(_) => Err(CommandError::new(format!("{} of {} is not established", manifest.describe(), manifest.place()))
            .with_hint(format!("see its conditions with `kubectl describe crd {}`", manifest.name()))),
    }
}

fn outcome(manifest: &Manifest, place: Option<&Place>, before: Option<&Value>, after: Option<&Value>) -> AppliedObject {
    let generation = |object: &Value| object["metadata"]["generation"].as_i64();
    let (change, new_generation) = match (before, after) {
        (Some(before), Some(after)) => (
            if essence(before) == essence(after) { Change::Unchanged } else { Change::Configured },
            generation(before) != generation(after),
        ),
        _ => (Change::Created, true),
    };
    AppliedObject {
        kind: manifest.kind().to_owned(),
        api_version: manifest.api_version().to_owned(),
        name: manifest.name().to_owned(),
        namespace: place.and_then(|place| place.namespace.clone()),
        change,
        new_generation,
        before: before.cloned(),
        after: after.cloned(),
    }
}

/// Who manages which fields, without when they came to.
fn managers(object: &Value) -> Vec<Value> {
    let mut managers = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    for entry in managers.iter_mut().filter_map(Value::as_object_mut) {
        entry.remove("time");
    }
    managers
}

/// An object without what changes by itself, and without our own notes.
pub(super) fn essence(object: &Value) -> Value {
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
            annotations.remove(HASH_ANNOTATION);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

async fn dry_run(place: &Place, manifest: &Manifest, force: bool) -> Result<(Option<Value>, Value), Refused> {
    let before = async { place.api.get_opt(manifest.name()).await.map_err(Refused) };
    let after = async { patch(place, manifest, force, true).await.map_err(Refused) };
    let (before, after) = tokio::try_join!(before, after)?;
    Ok((before.and_then(|object| serde_json::to_value(object).ok()), after))
}

/// Lets the server check an object whose namespace is not there yet, as if it
/// were for another namespace under another name. Only what is wrong with the
/// object itself counts.
async fn elsewhere(cluster: &Cluster, place: &Place, manifest: &Manifest) -> Result<()> {
    let mut other = manifest.clone();
    other.object["metadata"]["name"] = "devloop-dry-run".into();
    let there =
        Place { api: place.kind.api(&cluster.client, Some("default")), kind: place.kind.clone(), namespace: Some("default".to_owned()) };
    match patch(&there, &other, true, true).await {
        Err(kube::Error::Api(status)) if status.code == 400 || status.code == 422 => {
            Err(Refused(kube::Error::Api(status)).explain(manifest))
        }
        _ => Ok(()),
    }
}

async fn patch(place: &Place, manifest: &Manifest, force: bool, dry_run: bool) -> Result<Value, kube::Error> {
    let params = PatchParams {
        dry_run,
        force,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        // As kubectl does: an unknown field is a mistake.
        field_validation: Some(ValidationDirective::Strict),
    };
    let mut object = manifest.object.clone();
    if let Some(namespace) = &place.namespace {
        object["metadata"]["namespace"] = namespace.as_str().into();
    }
    let applied = place.api.patch(manifest.name(), &params, &Patch::Apply(&object)).await?;
    serde_json::to_value(applied).map_err(kube::Error::SerdeError)
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
