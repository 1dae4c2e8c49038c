//! The kernel, what this process may do, disks and memory.

use crate::doctor::facts::{Capabilities, Disk, Facts, Inotify, Known, Machine, Memory, Space};
use crate::doctor::finding::{Engine, Finding, Group, Severity};
use devloop_core::ui::human_bytes;

const GROUP: Group = Group::Machine;
const EMBEDDED: [Engine; 1] = [Engine::Embedded];

pub(super) const CAP_SYS_ADMIN: u32 = 21;
pub(super) const CAP_SYS_RESOURCE: u32 = 24;

/// Capabilities of `capabilities(7)` that something needs, with what doesn't
/// work without them. Containers get those of the first part from runc, which
/// fails when it can't give them.
const NEEDED: [(u32, &str, &str); 15] = [
    (0, "CAP_CHOWN", "containers don't start"),
    (1, "CAP_DAC_OVERRIDE", "containers don't start"),
    (3, "CAP_FOWNER", "containers don't start"),
    (4, "CAP_FSETID", "containers don't start"),
    (5, "CAP_KILL", "containers don't start"),
    (6, "CAP_SETGID", "containers don't start"),
    (7, "CAP_SETUID", "containers don't start"),
    (8, "CAP_SETPCAP", "containers don't start"),
    (10, "CAP_NET_BIND_SERVICE", "containers don't start"),
    (13, "CAP_NET_RAW", "containers don't start"),
    (18, "CAP_SYS_CHROOT", "containers don't start"),
    (27, "CAP_MKNOD", "containers don't start"),
    (12, "CAP_NET_ADMIN", "nodes get no network"),
    (19, "CAP_SYS_PTRACE", "`kubectl hot-reload` can't swap a running program"),
    (21, "CAP_SYS_ADMIN", "nodes can't mount or make namespaces"),
];

/// What kind recommends
/// (<https://kind.sigs.k8s.io/docs/user/known-issues/#pod-errors-due-to-too-many-open-files>).
const RECOMMENDED_WATCHES: u64 = 524_288;
const RECOMMENDED_INSTANCES: u64 = 512;
/// Less than this was seen to run out with a few nodes.
const FEW_WATCHES: u64 = 65_536;
const FEW_INSTANCES: u64 = 256;
/// What the components of one node hold.
const INSTANCES_OF_A_NODE: u64 = 16;

const GIB: u64 = 1 << 30;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = match &facts.machine {
        Ok(machine) => {
            let mut findings = vec![privilege(machine), inotify(&machine.inotify), memory(&machine.memory)];
            findings.extend(capabilities(machine));
            findings.extend(cgroups(&machine.cgroup_version, &facts.embedded_version));
            findings
        }
        Err(reason) => vec![Finding::unknown(GROUP, "machine", "The machine", reason)],
    };
    match &facts.disks {
        Ok(disks) => findings.extend(disks.iter().map(disk)),
        Err(reason) => findings.push(Finding::unknown(GROUP, "disk", "Disk space", reason)),
    }
    findings
}

fn privilege(machine: &Machine) -> Finding {
    const ID: &str = "privilege";
    if !machine.supported {
        return Finding::new(GROUP, ID, Severity::Blocks, "This is not Linux on x86_64 or aarch64")
            .disables(&EMBEDDED)
            .explain("The embedded engine's nodes are processes of this machine.")
            .fix("use kind: `kubectl devenv up --provider kind`");
    }
    let admin = machine.capabilities.as_ref().is_ok_and(|sets| has(sets.effective, CAP_SYS_ADMIN));
    if machine.root && (admin || machine.capabilities.is_err()) {
        return Finding::ok(GROUP, ID, "Runs as root");
    }
    Finding::new(GROUP, ID, Severity::Blocks, if machine.root { "Root without CAP_SYS_ADMIN" } else { "Not root" })
        .disables(&EMBEDDED)
        .explain("The embedded engine makes namespaces, mounts and control groups.")
        .fix("run it with `sudo --preserve-env=KUBECONFIG,HOME`, or in a privileged container")
}

fn capabilities(machine: &Machine) -> Vec<Finding> {
    const ID: &str = "capabilities";
    let bounding = match &machine.capabilities {
        Ok(Capabilities { bounding, .. }) => *bounding,
        Err(reason) => return vec![Finding::unknown(GROUP, ID, "Capabilities", reason)],
    };
    let missing: Vec<_> = NEEDED.iter().filter(|(number, ..)| !has(bounding, *number)).collect();
    let mut findings: Vec<Finding> = missing
        .iter()
        .map(|(number, name, consequence)| {
            let finding = Finding::new(GROUP, ID, Severity::Warning, format!("{name} can't be had here: {consequence}")).about(*name);
            // Swapping programs is not what clusters are made of.
            let finding = if *number == 19 { finding } else { finding.disables(&EMBEDDED) };
            finding
                .explain("The bounding set of this process lacks it, so that not even root can use it: usually a container that is not privileged.")
                .fix(format!("start the container that this runs in with `--privileged` or `--cap-add {name}`"))
        })
        .collect();
    if !has(bounding, CAP_SYS_RESOURCE) {
        let finding = Finding::ok(GROUP, ID, "CAP_SYS_RESOURCE can't be had here; embedded nodes do without it");
        findings.push(finding.about("CAP_SYS_RESOURCE").explain(
            "Limits can't be raised and OOM scores not lowered: kubelets run with the feature gate KubeletInUserNamespace, which `kubectl devenv up` sees to.",
        ));
    } else if missing.is_empty() {
        findings.push(Finding::ok(GROUP, ID, "Every capability that nodes need can be had"));
    }
    findings
}

fn cgroups(version: &Known<u8>, embedded_version: &str) -> Vec<Finding> {
    const ID: &str = "cgroups";
    match version {
        Err(reason) => vec![Finding::unknown(GROUP, ID, "Control groups", reason)],
        Ok(1) if needs_cgroup_2(embedded_version) => {
            vec![
                Finding::new(
                    GROUP,
                    ID,
                    Severity::Blocks,
                    format!("Control groups are version 1, which the kubelet of {embedded_version} refuses"),
                )
                .disables(&EMBEDDED)
                .fix(CGROUP_2_FIX),
            ]
        }
        Ok(1) => vec![
            Finding::ok(GROUP, ID, "Control groups are version 1")
                .explain(format!("Good enough for Kubernetes {embedded_version}; kubelets from 1.35 on refuse it unless told otherwise.")),
        ],
        Ok(version) => vec![Finding::ok(GROUP, ID, format!("Control groups are version {version}"))],
    }
}

pub(super) const CGROUP_2_FIX: &str =
    "boot with the kernel parameter `systemd.unified_cgroup_hierarchy=1`, or use nodes of Kubernetes 1.34 or older";

/// Whether this version of Kubernetes refuses control groups version 1 by
/// default.
pub(super) fn needs_cgroup_2(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+', '@']).map(|number| number.parse::<u32>().unwrap_or_default());
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    (major, minor) >= (1, 35)
}

fn inotify(inotify: &Known<Inotify>) -> Finding {
    const ID: &str = "inotify";
    let limits = match inotify {
        Ok(limits) => limits,
        Err(reason) => return Finding::unknown(GROUP, ID, "Limits of inotify", reason),
    };
    let text = format!("{} watches, {} instances ({} in use)", limits.watches, limits.instances, limits.used);
    let fix = format!(
        "`sudo sysctl fs.inotify.max_user_watches={} fs.inotify.max_user_instances={}`, and the same in /etc/sysctl.d/99-inotify.conf to keep it",
        limits.watches.max(RECOMMENDED_WATCHES),
        limits.instances.max(RECOMMENDED_INSTANCES)
    );
    if limits.instances.saturating_sub(limits.used) < INSTANCES_OF_A_NODE {
        return Finding::new(GROUP, ID, Severity::Blocks, format!("No inotify instances are left: {text}"))
            .disables(&Engine::ALL)
            .explain("The components of a node watch files, and fail with \"too many open files\".")
            .fix(fix);
    }
    if limits.watches < FEW_WATCHES || limits.instances < FEW_INSTANCES {
        return Finding::new(GROUP, ID, Severity::Warning, format!("Limits of inotify are low: {text}"))
            .affects(&Engine::ALL)
            .explain(
                "Enough for a node; with several, or with editors and watchers beside them, programs fail with \"too many open files\".",
            )
            .fix(fix);
    }
    Finding::ok(GROUP, ID, format!("Limits of inotify: {text}"))
}

fn memory(memory: &Known<Memory>) -> Finding {
    const ID: &str = "memory";
    let Memory { available, total } = match memory {
        Ok(memory) => *memory,
        Err(reason) => return Finding::unknown(GROUP, ID, "Memory", reason),
    };
    let text = format!("{} of {} is available", human_bytes(available), human_bytes(total));
    let explanation = "A cluster takes about 1 GiB at rest, besides what runs on it.";
    let fix = "end what isn't needed (`ps aux --sort=-rss | head`), or give this machine more";
    if available < GIB / 2 {
        return Finding::new(GROUP, ID, Severity::Blocks, format!("Too little memory: {text}"))
            .disables(&Engine::ALL)
            .explain(explanation)
            .fix(fix);
    }
    if available < 2 * GIB {
        return Finding::new(GROUP, ID, Severity::Warning, format!("Little memory: {text}"))
            .affects(&Engine::ALL)
            .explain(explanation)
            .fix(fix);
    }
    Finding::ok(GROUP, ID, format!("Memory: {text}"))
}

fn disk(disk: &Disk) -> Finding {
    const ID: &str = "disk";
    let docker = disk.what == "Docker";
    let engine = [if docker { Engine::Kind } else { Engine::Embedded }];
    let Space { free, total, free_files, total_files } = match &disk.space {
        Ok(space) => *space,
        Err(reason) => return Finding::unknown(GROUP, ID, &format!("Space for {} ({})", disk.what, disk.path), reason).about(&disk.path),
    };
    let text = format!("{}: {} of {} is free in {}", disk.what, human_bytes(free), human_bytes(total), disk.path);
    let fix = match disk.what {
        "Docker" => "`docker system prune`, and `docker volume prune` for what clusters of kind left".to_owned(),
        "state" => "`kubectl devenv prune`, or set XDG_STATE_HOME to a folder on another disk".to_owned(),
        _ => "`kubectl devenv prune`, or set XDG_CACHE_HOME to a folder on another disk".to_owned(),
    };
    let finding = if free < GIB {
        Finding::new(GROUP, ID, Severity::Blocks, format!("No space for {text}"))
            .disables(&engine)
            .explain("Below 1 GiB nothing is started that would end half way.")
            .fix(fix)
    } else if total_files > 0 && free_files < total_files / 50 {
        Finding::new(GROUP, ID, Severity::Warning, format!("Few files can be made for {text}, but only {free_files} files (`df -i`)"))
            .affects(&engine)
            .fix(fix)
    } else if free < 5 * GIB {
        Finding::new(GROUP, ID, Severity::Warning, format!("Little space for {text}"))
            .affects(&engine)
            .explain("Images and build results need a few GiB.")
            .fix(fix)
    } else {
        Finding::ok(GROUP, ID, format!("Space for {text}"))
    };
    finding.about(&disk.path)
}

pub(super) fn has(set: u64, number: u32) -> bool {
    set.checked_shr(number).is_some_and(|bits| bits & 1 == 1)
}
