//! Where the debugger runs: on the node, or in an ephemeral container of the pod.

use crate::choose::{Chosen, Way};
use crate::kit::{Kit, KitFile};
use crate::request::Request;
use devloop_core::agent::{AgentImages, Companion, CompanionFile, Runner};
use devloop_core::cluster::Cluster;
use devloop_core::ephemeral::{self, EphemeralError, Program};
use devloop_core::node::Node;
use devloop_core::{CommandError, Context, Result};
use k8s_openapi::api::core::v1::{Container, Pod};

/// To trace; to read and write the files of `/proc` that are another user's (`auxv`,
/// `mem`); and to halt another user's process, which Delve does by a signal.
const CAPABILITIES: [&str; 3] = ["SYS_PTRACE", "DAC_OVERRIDE", "KILL"];
/// Begins the names of ephemeral containers.
const NAME: &str = "devloop-debug";
/// How long such a container waits for the next session before it ends by itself.
const IDLE_SECONDS: &str = "7200";
/// The folders of devloop on a node.
const NODE_FOLDER: &str = "/var/lib/devloop";

/// Where the agent's commands and the debugger run.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) way: Way,
    pub(crate) runner: Runner,
    /// For the debugger's socket and the symbols.
    folder: String,
    /// The files of debuggers that are there already; unknown of an image that the
    /// user named.
    there: Option<Vec<String>>,
    /// The ephemeral container, where there is one.
    pub(crate) container: Option<Ephemeral>,
}

/// An ephemeral container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ephemeral {
    pub(crate) name: String,
    /// Whether an earlier run started it.
    pub(crate) is_reused: bool,
}

impl Place {
    /// Where the debugger of a process listens.
    pub(crate) fn socket(&self, pid: u32) -> String {
        format!("{}/{pid}.sock", self.folder)
    }

    /// Whether a debugger's file came with the image of the ephemeral container.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.way == Way::Pod && self.there.as_ref().is_none_or(|there| there.iter().any(|path| path == file))
    }

    /// Whether it is known to.
    pub(crate) fn surely_has(&self, file: &str) -> bool {
        self.there.is_some() && self.has(file)
    }

    /// Puts a debugger where it is to run, unless it is there; answers the path of its
    /// file `file`.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) async fn bring(&self, kit: Option<&Kit>, file: &str) -> Result<String> {
        let (Runner::Node { node, .. }, Some(kit)) = (&self.runner, kit) else { return Ok(format!("/{file}")) };
        let failed = |error| CommandError::new(format!("could not bring {} to the {}", kit.name, node.describe())).caused_by(error);
        let folder = format!("{NODE_FOLDER}/debugger-{}", kit.hash);
        let Some((first, others)) = kit.files.split_first() else { return Ok(format!("{folder}/{file}")) };
        let length = tokio::fs::metadata(&first.source).await.map_err(failed)?.len();
        if node.file_size(&format!("{folder}/{}", first.path)).await.map_err(failed)? != Some(length) {
            // The one that is started comes last: where it is, all are.
            for KitFile { source, path, .. } in others.iter().chain([first]) {
                let content = tokio::fs::read(source).await.map_err(failed)?;
                node.write_file(&format!("{folder}/{path}"), &content, 0o755).await.map_err(failed)?;
            }
        }
        Ok(format!("{folder}/{file}"))
    }

    /// What is to be said of the ephemeral container.
    pub(crate) fn introduce(&self) -> Option<String> {
        let Ephemeral { name, is_reused } = self.container.as_ref()?;
        let how = if *is_reused { "using" } else { "started" };
        Some(format!("{how} ephemeral container {name}; Kubernetes can't remove it from the pod, and it is used again"))
    }

    /// Whether memory that is used here may be missed by the app: what runs in a pod is
    /// limited together with it, once all of its containers are.
    pub(crate) fn is_sparing(&self, pod: &Pod) -> bool {
        let limit = |container: &Container| container.resources.as_ref()?.limits.as_ref()?.get("memory").cloned();
        self.way == Way::Pod && pod.spec.as_ref().is_some_and(|spec| spec.containers.iter().all(|container| limit(container).is_some()))
    }

    /// Where a toolbox goes.
    pub(crate) fn toolbox(&self) -> String {
        format!("{}/toolbox", self.folder)
    }

    /// Where symbols go.
    pub(crate) fn symbols(&self, hash: &str) -> String {
        self.file(&format!("symbols-{hash}"))
    }

    /// Where a file of this name goes that is brought by the way.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}

/// What the ephemeral container may do, for messages.
pub(crate) fn capabilities() -> String {
    CAPABILITIES.join(", ")
}

/// Puts the agent on the node.
///
/// # Errors
/// When there is no usable agent, or it can't be put there.
pub(crate) async fn on_node(node: &Node) -> Result<Place> {
    let runner = Runner::on_node(node).await?;
    Ok(Place { way: Way::Node, runner, folder: format!("{NODE_FOLDER}/debug"), there: None, container: None })
}

/// Starts an ephemeral container beside the chosen one, or takes that of an earlier
/// run: with no more than the capabilities that it takes, or, where the namespace forbids that, as the
/// process's own user, which needs nothing.
///
/// # Errors
/// When the namespace's policy, the API or the image are against it.
pub(crate) async fn in_pod(
    context: &Context,
    request: &Request,
    cluster: &Cluster,
    chosen: &Chosen,
    pod: &Pod,
    kits: &[Kit],
) -> Result<Place> {
    let mut images = AgentImages::new(cluster.client.clone(), request.debug_image.clone());
    let files = kits.iter().flat_map(|kit| &kit.files);
    let there = request.debug_image.is_none().then(|| files.clone().map(|file| file.path.clone()).collect::<Vec<_>>());
    let companions =
        files.map(|file| CompanionFile { source: file.source.clone(), path: format!("/{}", file.path), is_alone: file.is_alone });
    images = images.with(Companion { image: NAME.to_owned(), files: companions.collect() });
    let image = images.short_reference().await?;
    let user = request.user.or(chosen.user).filter(|user| *user != 0);
    let (root, own) = (program(&image, &chosen.container, None), user.map(|user| program(&image, &chosen.container, Some(user))));
    let place = |program: &Program, name: String, is_reused| Place {
        way: Way::Pod,
        runner: Runner::Pod {
            client: cluster.client.clone(),
            namespace: cluster.namespace.clone(),
            pod: chosen.pod.clone(),
            container: name.clone(),
        },
        folder: folder_of(program.user),
        there: there.clone(),
        container: Some(Ephemeral { name, is_reused }),
    };
    for program in std::iter::once(&root).chain(&own) {
        if let Some(name) = ephemeral::running(pod, program) {
            return Ok(place(program, name, true));
        }
    }
    let step = context.ui.step(format!("starting an ephemeral container in pod {}", chosen.pod));
    let node = cluster.nodes.iter().find(|node| Some(node.name()) == chosen.node.as_deref());
    let image = images.for_pod_on(node).await?;
    let start = async |program: &Program| {
        let program = Program { image: image.clone(), ..program.clone() };
        Runner::start_container(&cluster.client, &cluster.namespace, &chosen.pod, &program).await
    };
    let (program, started) = match (start(&root).await, &own) {
        (Err(EphemeralError::Policy { message, .. }), Some(own)) => {
            tracing::info!(message, "the namespace forbids SYS_PTRACE; trying as the process's own user");
            (own, start(own).await)
        }
        (started, _) => (&root, started),
    };
    let name = started.map_err(|error| explain(error, own.is_some()))?;
    step.clear();
    Ok(place(program, name, false))
}

fn program(image: &str, target: &str, user: Option<i64>) -> Program {
    Program {
        name: NAME.to_owned(),
        image: image.to_owned(),
        arguments: vec!["idle".to_owned(), IDLE_SECONDS.to_owned()],
        target: target.to_owned(),
        capabilities: if user.is_none() { CAPABILITIES.map(str::to_owned).into() } else { Vec::new() },
        user,
    }
}

/// Only root can write into the image's own root; `/dev/shm` is there for all.
fn folder_of(user: Option<i64>) -> String {
    match user {
        None => "/run/devloop-debug".to_owned(),
        Some(user) => format!("/dev/shm/devloop-debug-{user}"),
    }
}

fn explain(error: EphemeralError, has_user: bool) -> CommandError {
    let is_policy = matches!(error, EphemeralError::Policy { .. });
    let hint = error.hint();
    let mut command = CommandError::new("no debugger can be started in the pod").caused_by(error);
    if is_policy && !has_user {
        command = command.with_hint("where root is forbidden, name the user that the process runs as with --user");
    }
    match hint {
        Some(hint) => command.with_hint(hint),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::ui::render_error;

    #[test]
    fn the_container_has_the_least_that_works() {
        let (root, own) = (program("i", "web", None), program("i", "web", Some(1000)));
        assert_eq!((root.capabilities.as_slice(), root.user), (CAPABILITIES.map(str::to_owned).as_slice(), None));
        assert_eq!((own.capabilities.len(), own.user), (0, Some(1000)));
    }

    #[test]
    fn a_policy_is_named_with_both_ways_around_it() {
        let error = EphemeralError::Policy { namespace: "shop".to_owned(), message: "violates PodSecurity \"restricted\"".to_owned() };
        insta::assert_snapshot!(render_error(&explain(error, false)));
    }
}
