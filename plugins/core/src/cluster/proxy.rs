//! Which requests go through the user's proxy: by the rules of kubectl, that is
//! of Go's `net/http`. An API server on loopback is never asked through one.

use crate::cluster::guard::is_loopback;
use kube::config::Cluster;
use std::net::IpAddr;

/// The proxy for an API server: what its kubeconfig entry says, else what the
/// environment says, unless that excepts the server.
pub(super) fn of_server(server: &str, entry: Option<&Cluster>, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(explicit) = entry.and_then(|cluster| cluster.proxy_url.clone()).filter(|proxy| !proxy.is_empty()) {
        return Some(explicit);
    }
    let exceptions = set("NO_PROXY").or_else(|| set("no_proxy")).unwrap_or_default();
    if excepts(&exceptions, server) {
        return None;
    }
    set("HTTPS_PROXY").or_else(|| set("https_proxy"))
}

/// Whether a `NO_PROXY` list excepts a URL. Loopback always is.
pub fn excepts(list: &str, url: &str) -> bool {
    if is_loopback(url) {
        return true;
    }
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| entry == "*" || matches(entry, host, port))
}

fn matches(entry: &str, host: &str, port: Option<&str>) -> bool {
    let address = host.parse::<IpAddr>().ok();
    if let (Some((network, bits)), Some(address)) = (entry.split_once('/'), address) {
        let parsed = network.parse::<IpAddr>().ok().zip(bits.parse::<u32>().ok());
        return parsed.is_some_and(|(network, bits)| contains(network, bits, address));
    }
    // An entry may name a port; an IPv6 address has colons of its own.
    let (entry, entry_port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, Some(port)),
        _ => (entry, None),
    };
    if entry_port.is_some() && entry_port != port {
        return false;
    }
    if let Some(address) = address {
        return entry.trim_matches(['[', ']']).parse() == Ok(address);
    }
    let (entry, host) = (entry.trim_start_matches('*').to_ascii_lowercase(), host.to_ascii_lowercase());
    match entry.strip_prefix('.') {
        Some(domain) => host.ends_with(&entry) && !domain.is_empty(),
        None => host == entry || host.ends_with(&format!(".{entry}")),
    }
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exceptions_are_read_as_go_reads_them() {
        let far = "https://api.example.com:6443";
        for list in ["api.example.com", ".example.com", "example.com", "*.example.com", "*", "x, EXAMPLE.com", "api.example.com:6443"] {
            assert!(excepts(list, far), "{list}");
        }
        for list in ["", "ample.com", "api.example.com:443", ".api.example.com", "10.0.0.0/8", ",", "."] {
            assert!(!excepts(list, far), "{list}");
        }
        assert!(excepts("", "https://127.0.0.1:6443") && excepts("", "https://[::1]:6443"));
        assert!(excepts("10.0.0.0/8", "https://10.213.0.2:6443") && excepts("10.213.0.2", "https://10.213.0.2:6443"));
        assert!(excepts("fd00::/8", "https://[fd00::1]:6443") && !excepts("10.0.0.0/8", "https://11.0.0.1"));
        assert!(excepts("0.0.0.0/0", "https://11.0.0.1") && !excepts("11.0.0.0/33", "https://11.0.0.1"));
    }

    #[test]
    fn a_kubeconfigs_own_proxy_wins_and_loopback_needs_none() {
        let variable = |name: &str| (name == "HTTPS_PROXY").then(|| "http://proxy:3128".to_owned());
        assert_eq!(of_server("https://127.0.0.1:6443", None, &variable), None);
        assert_eq!(of_server("https://far:6443", None, &variable).as_deref(), Some("http://proxy:3128"));
        let entry = Cluster { proxy_url: Some("http://own:1".into()), ..Cluster::default() };
        assert_eq!(of_server("https://127.0.0.1:6443", Some(&entry), &variable).as_deref(), Some("http://own:1"));
        assert_eq!(of_server("https://far:6443", None, &|_| None), None);
    }

    proptest! {
        #[test]
        fn any_list_and_url_are_read(list in ".{0,30}", url in ".{0,30}") {
            let _ = excepts(&list, &url);
        }
    }
}
