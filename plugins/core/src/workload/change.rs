//! Changes of workloads in a cluster.

use super::managers::given_back;
use super::record::undo;
use super::{Change, ObjectIdentity, Patch, Record, Restored, plan};
use crate::cluster::explain;
use crate::deploy::FIELD_MANAGER;
use crate::error::{CommandError, ErrorContext, ErrorHint, Result};
use crate::target::{Kind, Target};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::time::Duration;

/// Others write to a workload as well: its controller, an autoscaler.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Patches a workload. `note` is told what will be changed before it is, so that
/// it can be undone whatever happens; when the object was changed by others
/// meanwhile, it is told again, and the last time counts. Nothing waits for the
/// rollout: [`crate::deploy::wait_ready`] does.
///
/// # Errors
/// When the changes can't be made to this workload, when `note` fails, or when
/// the API server refuses: nothing was changed then.
pub async fn apply(
    client: &Client,
    namespace: &str,
    target: &Target,
    changes: &[Change],
    mut note: impl FnMut(&Record) -> Result<()>,
) -> Result<Record> {
    let (api, name) = patchable(client, namespace, target)?;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let object = found(&api, name, target).await?;
        let patch = plan(&object, changes)?;
        let record = Record { object: patch.object, edits: patch.edits, managers: managers_of(&object) };
        if record.edits.is_empty() {
            return Ok(record);
        }
        let mut changed = object;
        for edit in &record.edits {
            edit.path.set(&mut changed, edit.after.clone());
        }
        note(&record)?;
        match replace(&api, name, changed).await {
            Ok(_) => return Ok(record),
            Err(error) if is_conflict(&error) && attempt < ATTEMPTS => tokio::time::sleep(PAUSE * attempt).await,
            Err(error) => return Err(refused(error, format!("could not patch {target}"))),
        }
    }
}

/// What [`apply`] would change.
///
/// # Errors
/// As [`apply`].
pub async fn preview(client: &Client, namespace: &str, target: &Target, changes: &[Change]) -> Result<Patch> {
    let (api, name) = patchable(client, namespace, target)?;
    Ok(plan(&found(&api, name, target).await?, changes)?)
}

fn patchable<'t>(client: &Client, namespace: &str, target: &'t Target) -> Result<(Api<DynamicObject>, &'t str)> {
    api_of(client, namespace, target)
        .ok_or_else(|| CommandError::new(format!("{target} has no template of pods that could be patched")))
        .hint("name a Deployment, a StatefulSet or a DaemonSet")
}

async fn found(api: &Api<DynamicObject>, name: &str, target: &Target) -> Result<Value> {
    let found = api.get_opt(name).await.map_err(|error| explain(error, format!("could not get {target}")))?;
    found
        .map(value_of)
        .transpose()?
        .ok_or_else(|| CommandError::new(format!("{target} not found")))
        .hint("list what is there with `kubectl get deployments,statefulsets,daemonsets`")
}

/// Undoes what a record tells of, and nothing else. Nothing waits for the
/// rollout. What was undone before stays undone.
///
/// # Errors
/// When the API server can't be asked, or refuses.
pub async fn restore(client: &Client, record: &Record) -> Result<Restored> {
    let ObjectIdentity { namespace, .. } = &record.object;
    let target = record.target()?;
    let Some((api, name)) = api_of(client, namespace, &target) else {
        return Err(CommandError::new(format!("{target} is no workload that was ever patched")));
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let found = api.get_opt(name).await.map_err(|error| explain(error, format!("could not get {target}")))?;
        let Some(object) = found.map(value_of).transpose()? else { return Ok(Restored::Gone) };
        let deleted = !object["metadata"]["deletionTimestamp"].is_null();
        if object["metadata"]["uid"] != record.object.uid.as_str() || deleted {
            return Ok(Restored::Gone);
        }
        let undone = undo(&object, &record.edits);
        let (put_back, left) = (undone.put_back, undone.left);
        if put_back.is_empty() {
            return Ok(Restored::Done { put_back, left });
        }
        match replace(&api, name, undone.object).await {
            Ok(restored) => {
                if left.is_empty() {
                    give_back(&api, name, &value_of(restored)?, &record.managers).await;
                }
                return Ok(Restored::Done { put_back, left });
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Restored::Gone),
            Err(error) if is_conflict(&error) && attempt < ATTEMPTS => tokio::time::sleep(PAUSE * attempt).await,
            Err(error) => return Err(refused(error, format!("could not restore {target}"))),
        }
    }
}

/// The kinds that there is a plan or at least a reason for.
fn api_of<'t>(client: &Client, namespace: &str, target: &'t Target) -> Option<(Api<DynamicObject>, &'t str)> {
    let Target::Object { kind, name } = target else { return None };
    let resource = match kind {
        Kind::Deployment => ApiResource::erase::<Deployment>(&()),
        Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        Kind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        Kind::ReplicaSet => ApiResource::erase::<ReplicaSet>(&()),
        Kind::Pod => ApiResource::erase::<Pod>(&()),
        Kind::Job | Kind::Service => return None,
    };
    Some((Api::namespaced_with(client.clone(), namespace, &resource), name))
}

fn value_of(object: DynamicObject) -> Result<Value> {
    serde_json::to_value(object).context("could not read what the API server says")
}

/// Writes the object back; refused unless it is still the version that was read.
async fn replace(api: &Api<DynamicObject>, name: &str, object: Value) -> kube::Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    api.replace(name, &params, &object).await
}

/// Leaves no trace in who manages the fields. Somebody who is faster has an
/// object that is restored all the same.
async fn give_back(api: &Api<DynamicObject>, name: &str, restored: &Value, before: &[Value]) {
    let mut object = restored.clone();
    for attempt in 1..=ATTEMPTS {
        let metadata = &object["metadata"];
        let Some(managers) = given_back(&managers_of(&object), before) else { return };
        let patch = json!({"metadata": {"resourceVersion": metadata["resourceVersion"], "managedFields": managers}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(name, &params, &kube::api::Patch::Merge(&patch)).await {
            Ok(_) => return,
            Err(error) if is_conflict(&error) => tokio::time::sleep(PAUSE * attempt).await,
            Err(error) => return tracing::debug!(%name, %error, "could not give the fields back to their managers"),
        }
        let Ok(Some(Ok(newer))) = api.get_opt(name).await.map(|found| found.map(value_of)) else { return };
        object = newer;
    }
}

fn managers_of(object: &Value) -> Vec<Value> {
    object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default()
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict")
}

fn refused(error: kube::Error, doing: String) -> CommandError {
    let forbidden = matches!(&error, kube::Error::Api(status) if status.code == 403);
    let command = explain(error, doing);
    if forbidden { command.with_hint("a role must allow get and update on deployments, statefulsets and daemonsets") } else { command }
}
