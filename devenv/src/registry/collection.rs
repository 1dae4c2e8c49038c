//! Freeing what no tag of a registry refers to, by the registry's own collector.
//!
//! The collector knows nothing of pushes, and the registry remembers what it has:
//! so nobody writes while it runs, and the registry starts afresh afterwards.

use super::container::{self, DATA};
use super::convention::CONTAINER;
use super::{VOLUME, lock};
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount, MountType};
use bollard::query_parameters::{CreateContainerOptions, LogsOptions, StartContainerOptions, StopContainerOptions, WaitContainerOptions};
use devloop_core::Context;
use devloop_core::docker::{DockerError, Engine};
use devloop_core::environment::Directories;
use devloop_core::error::{CommandError, ErrorContext, Result};
use futures::StreamExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a collection may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const COLLECTOR: &str = "kind-registry-collector";

/// What a collection finds, or has freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collection {
    /// Digests of blobs that nothing refers to.
    pub(crate) blobs: Vec<String>,
    /// Their size, where the registry's files can be read.
    pub(crate) bytes: Option<u64>,
}

impl Collection {
    /// Reads what the collector says; `data` is the registry's folder here.
    pub(crate) fn of(said: &str, data: Option<&Path>) -> Self {
        let mut blobs: Vec<String> = said
            .lines()
            .filter_map(|line| Some(line.split_once("blob eligible for deletion: ")?.1.trim().to_owned()))
            .filter(|digest| digest.starts_with("sha256:"))
            .collect();
        blobs.sort();
        blobs.dedup();
        let bytes = data.map(|data| blobs.iter().filter_map(|digest| blob(data, digest)?.metadata().ok()).map(|file| file.len()).sum());
        Self { blobs, bytes }
    }
}

fn blob(data: &Path, digest: &str) -> Option<PathBuf> {
    let hex = digest.strip_prefix("sha256:")?;
    Some(data.join("docker/registry/v2/blobs/sha256").join(hex.get(..2)?).join(hex).join("data"))
}

/// The collector's arguments. Manifests without a tag are collected unless there
/// is an index (an image of several architectures): the collector would take
/// the index's parts for such manifests.
pub(crate) fn arguments(dry_run: bool, has_index: bool, config: &str) -> Vec<String> {
    let mut arguments = vec!["garbage-collect".to_owned()];
    arguments.extend(dry_run.then(|| "--dry-run".to_owned()));
    arguments.extend((!has_index).then(|| "--delete-untagged".to_owned()));
    arguments.push(config.to_owned());
    arguments
}

/// Whether a registry has an index of several manifests.
pub(crate) fn has_index(data: &Path) -> bool {
    const MAX_MANIFEST: u64 = 1 << 20;
    let folders = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    folders(data.join("docker/registry/v2/blobs/sha256")).flat_map(folders).map(|folder| folder.join("data")).any(|path| {
        let small = path.metadata().is_ok_and(|file| file.len() <= MAX_MANIFEST);
        let content = if small { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
        content.first() == Some(&b'{')
            && serde_json::from_slice::<serde_json::Value>(&content).is_ok_and(|json| json["manifests"].is_array())
    })
}

/// Our container, how its collector is called, and where its data is.
struct Target {
    image: String,
    program: &'static str,
    config: String,
    data: Option<PathBuf>,
}

impl Target {
    /// `None` when there is none, or it is stopped or not ours.
    async fn find(engine: &Engine, directories: &Directories) -> Result<Option<Self>> {
        let Some(inspected) = container::inspect(engine, CONTAINER).await? else { return Ok(None) };
        let running = inspected.state.as_ref().and_then(|state| state.running).unwrap_or_default();
        if !running || !container::is_ours(&inspected, &directories.state) {
            return Ok(None);
        }
        let Some(target) = Self::of(&inspected) else { return Ok(None) };
        let volume = engine.client().inspect_volume(VOLUME).await.map_err(DockerError::request(format!("inspect volume {VOLUME}")))?;
        // Only root on the engine's machine can look into it.
        let data = Some(PathBuf::from(volume.mountpoint)).filter(|data| container::is_local(engine) && data.read_dir().is_ok());
        Ok(Some(Self { data, ..target }))
    }

    fn argv(&self, dry_run: bool) -> Vec<String> {
        // What can't be seen may be there.
        let has_index = self.data.as_deref().is_none_or(has_index);
        std::iter::once(self.program.to_owned()).chain(arguments(dry_run, has_index, &self.config)).collect()
    }

    fn of(inspected: &ContainerInspectResponse) -> Option<Self> {
        let config = inspected.config.as_ref()?;
        let image = config.image.clone()?;
        let program = if image.starts_with(super::local_image::NAME) { "docker-registry" } else { "registry" };
        let file = config.cmd.as_ref()?.last()?.clone();
        Some(Self { image, program, config: file, data: None })
    }
}

/// What a collection of our container's images would free; `None` when there is
/// no such container that runs.
///
/// # Errors
/// When the engine or the collector fails.
pub(crate) async fn preview_container(engine: &Engine, directories: &Directories) -> Result<Option<Collection>> {
    let Some(target) = Target::find(engine, directories).await? else { return Ok(None) };
    let looking = async { engine.exec(CONTAINER, target.argv(true)).await.map_err(std::io::Error::other)?.output().await };
    let output = tokio::time::timeout(PATIENCE, looking).await.context("the registry's collector takes too long")?;
    let output = output.context("could not run the registry's collector")?;
    if output.code != 0 {
        return Err(CommandError::new(format!("the registry's collector failed: {}", output.stderr.trim())));
    }
    Ok(Some(Collection::of(&String::from_utf8_lossy(&output.stdout), target.data.as_deref())))
}

/// Stops our container, lets a collector work on its volume, and starts it again
/// whatever came of that. Not to be interrupted.
///
/// # Errors
/// When the engine or the collector fails.
pub(crate) async fn collect_container(context: &Context, engine: &Engine, directories: &Directories) -> Result<()> {
    let _lock = lock(context, directories).await?;
    let Some(target) = Target::find(engine, directories).await? else { return Ok(()) };
    let stop = StopContainerOptions { t: Some(5), ..StopContainerOptions::default() };
    let stopped = engine.client().stop_container(CONTAINER, Some(stop)).await;
    stopped.map_err(DockerError::request(format!("stop container {CONTAINER}")))?;
    let collected = run_collector(engine, &target).await;
    let started = engine.client().start_container(CONTAINER, None::<StartContainerOptions>).await;
    let removed = container::remove(engine, COLLECTOR).await;
    started.map_err(DockerError::request(format!("start container {CONTAINER}")))?;
    removed?;
    collected
}

async fn run_collector(engine: &Engine, target: &Target) -> Result<()> {
    // One that a killed run left.
    container::remove(engine, COLLECTOR).await?;
    let argv = target.argv(false);
    let mount = Mount { target: Some(DATA.to_owned()), source: Some(VOLUME.to_owned()), typ: Some(MountType::VOLUME), ..Mount::default() };
    let body = ContainerCreateBody {
        image: Some(target.image.clone()),
        entrypoint: Some(argv[..1].to_vec()),
        cmd: Some(argv[1..].to_vec()),
        env: Some(vec!["REGISTRY_STORAGE_DELETE_ENABLED=true".to_owned()]),
        host_config: Some(HostConfig { mounts: Some(vec![mount]), network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let client = engine.client();
    let options = CreateContainerOptions { name: Some(COLLECTOR.to_owned()), ..CreateContainerOptions::default() };
    client.create_container(Some(options), body).await.map_err(DockerError::request(format!("create container {COLLECTOR}")))?;
    let started = client.start_container(COLLECTOR, None::<StartContainerOptions>).await;
    started.map_err(DockerError::request(format!("start container {COLLECTOR}")))?;
    let ended = tokio::time::timeout(PATIENCE, client.wait_container(COLLECTOR, None::<WaitContainerOptions>).next()).await;
    match ended.context("the registry's collector takes too long")? {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => {
            let options = LogsOptions { stderr: true, tail: "5".to_owned(), ..LogsOptions::default() };
            let lines = client.logs(COLLECTOR, Some(options)).filter_map(|line| async move { Some(line.ok()?.to_string()) });
            let said: String = lines.collect().await;
            Err(CommandError::new(format!("the registry's collector failed: {}", said.trim())).caused_by(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eligible_blobs_are_read_from_what_the_collector_says() {
        let folder = tempfile::tempdir().unwrap();
        let digest = format!("sha256:ab{}", "0".repeat(62));
        let said = format!(
            "team/x\nteam/x: marking manifest sha256:11 \n\n3 blobs marked, 1 blobs and 0 manifests eligible for deletion\n\
             blob eligible for deletion: {digest}\nblob eligible for deletion: {digest}\nblob eligible for deletion: nonsense\n"
        );
        let path = blob(folder.path(), &digest).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, [0; 1234]).unwrap();
        assert_eq!(Collection::of(&said, Some(folder.path())), Collection { blobs: vec![digest], bytes: Some(1234) });
        assert_eq!(Collection::of("", None), Collection::default());
    }

    #[test]
    fn parts_of_an_index_are_never_taken_for_manifests_without_a_tag() {
        let folder = tempfile::tempdir().unwrap();
        let path = blob(folder.path(), &format!("sha256:cd{}", "0".repeat(62))).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, r#"{"layers": []}"#).unwrap();
        assert!(!has_index(folder.path()));
        std::fs::write(&path, r#"{"manifests": []}"#).unwrap();
        assert!(has_index(folder.path()));
        assert_eq!(arguments(true, true, "c"), ["garbage-collect", "--dry-run", "c"]);
        assert_eq!(arguments(false, false, "c"), ["garbage-collect", "--delete-untagged", "c"]);
    }
}
