//! The Docker engine, as far as kind depends on it.

use super::machine::{CAP_SYS_RESOURCE, CGROUP_2_FIX, has, needs_cgroup_2};
use crate::doctor::facts::{Docker, Engine as DockerEngine, Facts};
use crate::doctor::finding::{Engine, Finding, Group, Severity};
use devloop_core::docker::Survey;
use devloop_core::ui::human_bytes;

const GROUP: Group = Group::Docker;
const KIND: [Engine; 1] = [Engine::Kind];
const GIB: u64 = 1 << 30;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "docker";
    let blocks = |title: String| Finding::new(GROUP, ID, Severity::Blocks, title).disables(&KIND);
    let engine = match &facts.docker {
        Ok(Docker::Answers(engine)) => engine,
        Ok(Docker::Misconfigured(reason)) => {
            return vec![
                blocks(format!("The settings for Docker lead nowhere: {reason}"))
                    .fix("`unset DOCKER_HOST DOCKER_CONTEXT`, or `docker context use default`"),
            ];
        }
        Ok(Docker::Absent(reason)) => {
            let fix =
                "`systemctl start docker`, or name another engine with DOCKER_HOST; to install it: https://docs.docker.com/engine/install/";
            return vec![
                blocks(format!("No engine: {reason}")).explain("kind's nodes are containers. The embedded engine needs none.").fix(fix),
            ];
        }
        Ok(Docker::Denied(reason)) => {
            let fix = "`sudo usermod -aG docker \"$USER\"` and log in again, or run this with sudo";
            return vec![blocks(format!("No permission: {reason}")).explain("The socket belongs to root and the group docker.").fix(fix)];
        }
        Ok(Docker::TooOld(reason)) => {
            let fix = "install Docker 20.10 or newer: https://docs.docker.com/engine/install/";
            return vec![blocks(format!("Too old: {reason}")).fix(fix)];
        }
        Err(reason) => {
            // An engine that hangs is none for kind, whatever its reason.
            return vec![
                blocks(format!("The engine does not answer: {reason}"))
                    .fix("`systemctl restart docker`; `journalctl -u docker` tells more"),
            ];
        }
    };
    let mut findings = vec![Finding::ok(GROUP, ID, format!("Docker {} answers at {}", engine.version, engine.endpoint)), images(engine)];
    match &engine.survey {
        Ok(survey) => {
            findings.push(image_store(survey));
            findings.extend(cgroups(engine, survey));
            findings.extend(memory(survey));
            findings.extend(privileged(engine, survey));
        }
        Err(reason) => findings.push(Finding::unknown(GROUP, "docker-settings", "Docker's settings", reason)),
    }
    findings
}

fn images(engine: &DockerEngine) -> Finding {
    const ID: &str = "node-image";
    match (&engine.node_images, &engine.can_pull) {
        (Err(reason), _) => Finding::unknown(GROUP, ID, "Node images of kind", reason),
        (Ok(images), _) if !images.is_empty() => Finding::ok(GROUP, ID, format!("Node image of kind: {}", images.join(", "))),
        (Ok(_), Some(Ok(()))) => Finding::ok(GROUP, ID, "A node image of kind can be pulled"),
        (Ok(_), Some(Err(reason))) => {
            Finding::new(GROUP, ID, Severity::Blocks, "There is no node image of kind, and none can be pulled")
                .disables(&KIND)
                .explain(format!("{reason}."))
                .fix("`scripts/kind-node-image` makes one without an image registry; or `docker load` one from elsewhere and set KIND_NODE_IMAGE")
        }
        (Ok(_), None) => Finding::unknown(GROUP, ID, "Node images of kind", "the engine has none, and the registry was not asked"),
    }
}

fn image_store(survey: &Survey) -> Finding {
    const ID: &str = "image-store";
    if !survey.containerd_image_store {
        return Finding::ok(GROUP, ID, "Images are kept by Docker itself");
    }
    Finding::new(GROUP, ID, Severity::Warning, "Images are kept by containerd (Docker's containerd image store)")
        .affects(&KIND)
        .explain(
            "`docker save` then writes the index of a multi-platform image without the layers of other platforms, and `kind load docker-image` \
             ends with \"content digest not found\".",
        )
        .fix(
            "`docker pull --platform linux/amd64 IMAGE` before loading it; or turn it off: `{\"features\": {\"containerd-snapshotter\": false}}` \
             in /etc/docker/daemon.json, then `systemctl restart docker`",
        )
}

fn cgroups(engine: &DockerEngine, survey: &Survey) -> Option<Finding> {
    const ID: &str = "docker-cgroups";
    let refusing: Vec<&str> = engine
        .node_images
        .iter()
        .flatten()
        .filter(|image| image.rsplit(':').next().is_some_and(|tag| tag.starts_with('v') && needs_cgroup_2(tag)))
        .map(String::as_str)
        .collect();
    match survey.cgroup_version {
        None => Some(Finding::unknown(GROUP, ID, "Docker's control groups", "the engine does not say which version it has")),
        Some(1) if survey.rootless => Some(
            Finding::new(GROUP, ID, Severity::Blocks, "Docker is rootless with control groups version 1")
                .disables(&KIND)
                .explain("Rootless kind needs version 2 to limit its nodes.")
                .fix(CGROUP_2_FIX),
        ),
        Some(1) if !refusing.is_empty() => Some(
            Finding::new(
                GROUP,
                ID,
                Severity::Warning,
                format!("Docker has control groups version 1, which {} refuses", refusing.join(", ")),
            )
            .affects(&KIND)
            .explain("Kubelets from 1.35 on end at once there unless `failCgroupV1: false` is set.")
            .fix(CGROUP_2_FIX),
        ),
        Some(version) => Some(Finding::ok(GROUP, ID, format!("Docker has control groups version {version}"))),
    }
}

fn memory(survey: &Survey) -> Option<Finding> {
    const ID: &str = "docker-memory";
    let memory = survey.memory?;
    let text = format!("Docker has {} of memory", human_bytes(memory));
    Some(if memory < 2 * GIB {
        Finding::new(GROUP, ID, Severity::Warning, text)
            .affects(&KIND)
            .explain("A node takes about 1 GiB at rest.")
            .fix("give the machine that Docker runs on 4 GiB or more (Docker Desktop: Settings, Resources)")
    } else {
        Finding::ok(GROUP, ID, text)
    })
}

/// kind's nodes are privileged containers: runc gives them every capability
/// that it knows, and fails when the engine may not.
fn privileged(engine: &DockerEngine, survey: &Survey) -> Option<Finding> {
    const ID: &str = "docker-capabilities";
    if survey.rootless {
        return None;
    }
    let bounding = match &engine.bounding {
        Ok(bounding) => *bounding,
        // An engine elsewhere knows best itself.
        Err(_) => return None,
    };
    if has(bounding, CAP_SYS_RESOURCE) {
        return Some(Finding::ok(GROUP, ID, "Docker can start privileged containers"));
    }
    let explanation = "The engine's bounding set lacks CAP_SYS_RESOURCE.";
    Some(match survey.default_runtime.as_str() {
        "runc" | "io.containerd.runc.v2" => {
            Finding::new(GROUP, ID, Severity::Blocks, "Docker can't start privileged containers: CAP_SYS_RESOURCE is missing")
                .disables(&KIND)
                .explain(format!("{explanation} runc ends with \"unable to apply caps\"."))
                .fix("`scripts/with-docker COMMAND` runs an engine with a runtime that asks for no more than there is")
        }
        runtime => Finding::ok(GROUP, ID, format!("Docker does without CAP_SYS_RESOURCE, by its runtime {runtime:?}"))
            .explain(format!("{explanation} Nodes run with the feature gate KubeletInUserNamespace.")),
    })
}
