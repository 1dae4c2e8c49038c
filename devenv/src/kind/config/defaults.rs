//! What a cluster to develop on is better with, where the user says nothing.

use super::{Config, sequence};
use serde_yaml_ng::{Mapping, Value};

/// What of the machine decides about defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Its processes can't have CAP_SYS_RESOURCE: a kubelet that wants to raise
    /// its limits ends.
    pub(crate) lacks_sys_resource: bool,
    /// The engine's containers are in a version 1 hierarchy, which kubelets from
    /// 1.35 on refuse unless told otherwise.
    pub(crate) cgroup_v1: bool,
    /// kind applies a containerd patch only where its version fits.
    pub(crate) versioned_patches: bool,
}

const RESTART_GATE: &str = "KubeletCrashLoopBackOffMax";

/// How often the kubelet looks at every pod anew: half a minute sooner than by
/// default do changed ConfigMaps show in volumes.
const SYNC_FREQUENCY: &str = "10s";

/// How long a container that keeps ending waits at most; five minutes by
/// default, which is long for somebody who has just mended it.
const RESTART_PERIOD: &str = "5s";

/// Each of some forty controllers asks for its own token at the start; by the
/// default rate of 20 requests a second the last of them begin seconds late.
/// Only in the form that kind writes today: in the next one, arguments are a
/// list, which a patch would replace.
const CONTROLLER_RATE: &str = "\
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
controllerManager:
  extraArgs:
    kube-api-qps: \"200\"
    kube-api-burst: \"400\"
";

/// Adds the defaults, for nodes of these versions of Kubernetes (major, minor),
/// as far as they are known. A patch of the user's comes after ours, so that it
/// has the last word.
pub(crate) fn add_defaults(config: &mut Config, machine: &Machine, versions: &[Option<(u32, u32)>]) {
    if machine.lacks_sys_resource
        && let Some(gates) = config.mapping_mut("featureGates")
    {
        gates.entry("KubeletInUserNamespace".into()).or_insert(true.into());
    }
    let patch = kubelet_patch(config, machine, versions);
    let patches = sequence(&mut config.root, "kubeadmConfigPatches");
    patches.insert(0, patch.into());
    patches.insert(0, CONTROLLER_RATE.into());
    add_registry_folder(config, machine.versioned_patches);
}

fn kubelet_patch(config: &Config, machine: &Machine, versions: &[Option<(u32, u32)>]) -> String {
    let mut patch = format!("kind: KubeletConfiguration\nsyncFrequency: {SYNC_FREQUENCY}\n");
    let all = |oldest: (u32, u32)| versions.iter().all(|version| version.is_some_and(|version| version >= oldest));
    let any = |oldest: (u32, u32)| versions.iter().any(|version| version.is_some_and(|version| version >= oldest));
    // The field is refused while its gate is off, which came in 1.32 and is on
    // from 1.35.
    if all((1, 32)) && !decides_about_restarts(config) {
        patch.push_str(&format!("crashLoopBackOff: {{maxContainerRestartPeriod: {RESTART_PERIOD}}}\n"));
        if !all((1, 35)) {
            patch.push_str(&format!("featureGates: {{{RESTART_GATE}: true}}\n"));
        }
    }
    // The field came in 1.31.
    if machine.cgroup_v1 && any((1, 35)) && all((1, 31)) {
        patch.push_str("failCgroupV1: false\n");
    }
    patch
}

/// Whether the user's own gates, there or in a patch, may turn that one off.
fn decides_about_restarts(config: &Config) -> bool {
    let gates = config.root.get("featureGates").and_then(Value::as_mapping);
    gates.is_some_and(|gates| [RESTART_GATE, "AllAlpha", "AllBeta"].iter().any(|name| gates.contains_key(name)))
        || mentions(
            &config.root,
            &["kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902", "nodes"],
            &[RESTART_GATE, "AllAlpha", "AllBeta"],
        )
}

/// Node images of kind 0.27 and later have this folder set; older ones, and
/// others, need it for a local registry. With mirrors of the user's own it would
/// be refused.
fn add_registry_folder(config: &mut Config, versioned: bool) {
    let own = ["registry.mirrors", "registry.configs", "config_path", "/registry"];
    if mentions(&config.root, &["containerdConfigPatches", "containerdConfigPatchesJSON6902"], &own) {
        return;
    }
    let patch =
        |version: &str, plugin: &str| format!("{version}[plugins.\"{plugin}\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n");
    let second = "io.containerd.grpc.v1.cri";
    let patches = if versioned {
        vec![patch("version = 2\n", second), patch("version = 3\n", "io.containerd.cri.v1.images")]
    } else {
        vec![patch("", second)]
    };
    let list = sequence(&mut config.root, "containerdConfigPatches");
    for (index, patch) in patches.into_iter().enumerate() {
        list.insert(index, patch.into());
    }
}

fn mentions(root: &Mapping, keys: &[&str], words: &[&str]) -> bool {
    fn any_text(value: &Value, words: &[&str]) -> bool {
        match value {
            Value::String(text) => words.iter().any(|word| text.contains(word)),
            Value::Sequence(items) => items.iter().any(|item| any_text(item, words)),
            Value::Mapping(mapping) => mapping.values().any(|value| any_text(value, words)),
            _ => false,
        }
    }
    keys.iter().any(|key| root.get(key).is_some_and(|value| any_text(value, words)))
}

/// The version of Kubernetes that a node image's name tells, as in
/// `kindest/node:v1.34.0@sha256:…`.
pub(crate) fn version_of_image(image: &str) -> Option<(u32, u32)> {
    let name = image.split('@').next()?;
    let tag = name.rsplit('/').next()?.split_once(':')?.1;
    let mut numbers = tag.strip_prefix('v')?.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
