//! Proxies and clocks.

use crate::doctor::facts::{Docker, Facts, Proxy};
use crate::doctor::finding::{Engine, Finding, Group, Severity};
use devloop_core::cluster::no_proxy_excepts;

const GROUP: Group = Group::Network;

/// What has to be reached directly: a name, a URL of that kind, and the entry
/// that excepts all of its kind.
const DIRECT: [(&str, &str, &str, Engine); 5] = [
    ("the embedded engine's nodes", "http://10.213.0.2", "10.213.0.0/16", Engine::Embedded),
    ("its pods", "http://10.214.0.2", "10.214.0.0/16", Engine::Embedded),
    ("its Services", "http://10.215.0.2", "10.215.0.0/16", Engine::Embedded),
    ("names in the cluster", "http://web.default.svc.cluster.local", ".cluster.local", Engine::Kind),
    ("the local registry", "http://kind-registry:5000", "kind-registry", Engine::Kind),
];

/// Certificates that were just made are not valid yet on a clock that is behind
/// by more.
const SKEW_SECONDS: i64 = 5;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = proxy(&facts.proxy);
    findings.extend(clocks(facts));
    findings
}

fn proxy(proxy: &Proxy) -> Vec<Finding> {
    const ID: &str = "proxy";
    if proxy.proxies.is_empty() {
        return vec![Finding::ok(GROUP, ID, "No proxy is set")];
    }
    let names: Vec<&str> = proxy.proxies.iter().map(|(name, _)| name.as_str()).collect();
    let mut findings = Vec::new();
    let caught: Vec<_> = DIRECT.iter().filter(|(_, url, ..)| !no_proxy_excepts(&proxy.exceptions, url)).collect();
    // Go and devloop always except loopback; curl and others read the list.
    let listed = |name: &str| {
        let covers = |entry: &str| entry == name || entry == "*" || (entry == "127.0.0.0/8" && name == "127.0.0.1");
        proxy.exceptions.split([',', ' ']).any(|entry| covers(entry.trim()))
    };
    let loopback: Vec<&str> = ["localhost", "127.0.0.1"].into_iter().filter(|name| !listed(name)).collect();
    if caught.is_empty() && loopback.is_empty() {
        findings.push(Finding::ok(GROUP, ID, format!("A proxy is set ({}), and clusters are excepted", names.join(", "))));
    } else {
        let mut entries: Vec<&str> = caught.iter().map(|(_, _, entry, _)| *entry).collect();
        let mut what: Vec<&str> = caught.iter().map(|(what, ..)| *what).collect();
        if !loopback.is_empty() {
            what.insert(0, "loopback");
            entries.splice(0..0, loopback);
        }
        let mut engines: Vec<Engine> = caught.iter().map(|(_, _, _, engine)| *engine).collect();
        engines.sort();
        engines.dedup();
        let separator = if proxy.exceptions.trim().is_empty() { "" } else { "," };
        findings.push(
            Finding::new(
                GROUP,
                ID,
                Severity::Warning,
                format!("A proxy is set ({}) that also gets what is meant for clusters", names.join(", ")),
            )
            .affects(&engines)
            .explain(format!("NO_PROXY does not except {}. Requests there end at the proxy, which does not know them.", what.join(", ")))
            .fix(format!("`export NO_PROXY={}{separator}{}` (and no_proxy)", proxy.exceptions.trim(), entries.join(","))),
        );
    }
    for (name, value) in proxy.proxies.iter().filter(|(_, value)| is_on_loopback(value)) {
        findings.push(
            Finding::new(
                GROUP,
                "proxy-on-loopback",
                Severity::Warning,
                format!("{name} names a proxy on loopback, where nodes can't reach it"),
            )
            .about(name)
            .affects(&[Engine::Kind])
            .explain("kind hands proxy settings on to its nodes; on a node, loopback is the node itself, and pulls fail.")
            .fix(format!(
                "let the proxy listen at the address of Docker's bridge, and name that in {name} (now {})",
                without_password(value)
            )),
        );
    }
    findings
}

fn is_on_loopback(proxy: &str) -> bool {
    let url = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
    devloop_core::cluster::guard::is_loopback(&url)
}

/// What is shown may end up in a bug report.
fn without_password(proxy: &str) -> String {
    match (proxy.split_once("://"), proxy.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => proxy.to_owned(),
    }
}

fn clocks(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "clock";
    let mut clocks: Vec<(String, i64)> = Vec::new();
    if let Ok(Docker::Answers(engine)) = &facts.docker {
        clocks.extend(engine.clock_ahead.map(|ahead| ("Docker's machine".to_owned(), ahead)));
    }
    for environment in facts.environments.iter().flatten() {
        let api = environment.cluster.as_ref().and_then(|cluster| cluster.api.as_ref().ok());
        clocks.extend(api.and_then(|api| api.clock_ahead).map(|ahead| (format!("environment {:?}", environment.name), ahead)));
    }
    if clocks.is_empty() {
        return Vec::new();
    }
    let wrong: Vec<Finding> =
        clocks.iter().filter(|(_, ahead)| ahead.saturating_abs() > SKEW_SECONDS).map(|(whose, ahead)| skewed(ID, whose, *ahead)).collect();
    if wrong.is_empty() {
        return vec![Finding::ok(
            GROUP,
            ID,
            format!("Clocks agree: {}", clocks.iter().map(|(whose, _)| whose.as_str()).collect::<Vec<_>>().join(", ")),
        )];
    }
    wrong
}

fn skewed(id: &'static str, whose: &str, ahead: i64) -> Finding {
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::new(GROUP, id, Severity::Warning, format!("The clock of {whose} is {} s {direction} this machine's", ahead.saturating_abs()))
        .about(whose)
        .explain("Certificates are not valid yet, or not any more, and logs can't be compared.")
        .fix("`timedatectl set-ntp true` on both; Docker Desktop and WSL: restart the virtual machine, whose clock stops while the machine sleeps")
}
