//! What an environment must leave alone on the host, as text to compare.

use crate::program::Program;
use std::collections::BTreeMap;

/// The parts of the host's state that a cluster could touch.
pub type HostState = BTreeMap<&'static str, String>;

/// Reads the host's mounts, packet filter, interfaces, routes, cgroups and
/// kernel settings.
pub fn state() -> HostState {
    let run = |program: &str, arguments: &[&str]| Program::new(program).args(arguments).run().stdout;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let settings = [
        "kernel/panic",
        "kernel/panic_on_oops",
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "net/ipv4/ip_forward",
        "net/netfilter/nf_conntrack_max",
        "kernel/hostname",
    ];
    let setting = |name: &&str| format!("{name}={}", std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default());
    [
        ("mounts", mounts),
        ("nftables", run("nft", &["--stateless", "list", "ruleset"])),
        ("iptables", run("iptables-legacy-save", &[])),
        ("links", links()),
        ("routes", run("ip", &["-4", "route", "show", "table", "main"])),
        ("cgroups", run("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-type", "d", "-path", "*devloop*"])),
        ("settings", settings.iter().map(setting).collect()),
    ]
    .into()
}

/// The names of the interfaces, sorted.
pub fn links() -> String {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.join("\n")
}
