//! Which addresses and names an environment uses on the host. All of them
//! follow from its index, so that two environments never meet.

use std::net::Ipv4Addr;

/// The highest index: how many environments fit on a host, less one.
pub(crate) const MAX_INDEX: u8 = 63;

/// The addresses and host-side names of one environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    index: u8,
}

impl Addresses {
    pub(crate) fn new(index: u8) -> Self {
        Self { index }
    }

    /// The host's end of the link, in a network of four addresses.
    pub(crate) fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.index, 1)
    }

    /// The node's end of the link: the API server, the kubelet and cluster DNS.
    pub(crate) fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.index, 2)
    }

    pub(crate) fn link_cidr(self) -> String {
        format!("10.213.{}.0/30", self.index)
    }

    pub(crate) fn pod_cidr(self) -> String {
        format!("10.214.{}.0/24", self.index)
    }

    pub(crate) fn service_cidr(self) -> String {
        format!("10.215.{}.0/24", self.index)
    }

    /// The address of the Service `kubernetes`: the first of the range.
    pub(crate) fn kubernetes_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 215, self.index, 1)
    }

    /// The host's interface; at most 15 bytes (IFNAMSIZ less the final zero).
    pub(crate) fn host_interface(self) -> String {
        format!("devloop{}", self.index)
    }

    /// The one nftables table on the host.
    pub(crate) fn nft_table(self) -> String {
        format!("devloop_{}", self.index)
    }

    /// The environment's own branch of the cgroup hierarchies, below their root.
    pub(crate) fn cgroup(self, name: &str) -> String {
        format!("devloop/{name}-{}", self.index)
    }

    /// The port that is tried first for the API on loopback.
    pub(crate) fn preferred_api_port(self) -> u16 {
        16_443 + u16::from(self.index)
    }
}

/// An index that no other environment has and whose networks no route of the
/// host covers. The search begins at a place that follows from the name, so
/// that environments with separate state folders seldom want the same one.
pub(crate) fn choose_index(name: &str, taken: &[u8], host_routes: &[(Ipv4Addr, u8)]) -> Option<u8> {
    let count = u16::from(MAX_INDEX) + 1;
    let first = u16::from(blake3::hash(name.as_bytes()).as_bytes()[0]);
    let candidates = (0..count).filter_map(|step| u8::try_from((first + step) % count).ok());
    candidates.into_iter().find(|index| !taken.contains(index) && !overlaps(Addresses::new(*index), host_routes))
}

fn overlaps(addresses: Addresses, routes: &[(Ipv4Addr, u8)]) -> bool {
    let ours = [(addresses.host(), 30), (Ipv4Addr::new(10, 214, addresses.index, 0), 24), (Ipv4Addr::new(10, 215, addresses.index, 0), 24)];
    routes.iter().filter(|(_, length)| *length > 0).any(|(network, length)| {
        ours.iter().any(|(own, own_length)| {
            let shared = u32::MAX.checked_shl(32 - u32::from(*length.min(own_length))).unwrap_or(0);
            u32::from(*network) & shared == u32::from(*own) & shared
        })
    })
}

/// Reads the destinations from `ip -4 -o route show table all`.
pub(crate) fn parse_routes(text: &str) -> Vec<(Ipv4Addr, u8)> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let mut destination = words.next()?;
        if destination.chars().all(|letter| letter.is_ascii_lowercase()) && destination != "default" {
            destination = words.next()?; // local, broadcast, unreachable ...
        }
        let (address, length) = destination.split_once('/').unwrap_or((destination, "32"));
        Some((address.parse().ok()?, length.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_avoids_other_environments_and_routes() {
        let first = choose_index("dev", &[], &[]).unwrap();
        assert_eq!(choose_index("dev", &[first], &[]), Some((first + 1) % (MAX_INDEX + 1)));
        let all_but_two: Vec<u8> = (0..=MAX_INDEX).filter(|index| ![0, 1, 2].contains(index)).collect();
        let routes = parse_routes(
            "default via 192.0.2.1 dev eth0\nlocal 127.0.0.0/8 dev lo\n10.213.0.0/24 dev vpn0\nunreachable 10.214.1.7 dev x\n192.0.2.0/24 dev eth0\n",
        );
        assert_eq!(routes.len(), 4);
        assert_eq!(choose_index("dev", &all_but_two, &routes), Some(2));
        assert_eq!(choose_index("dev", &[], &[(Ipv4Addr::new(10, 0, 0, 0), 8)]), None);
    }

    #[test]
    fn interface_names_fit() {
        assert!(Addresses::new(MAX_INDEX).host_interface().len() <= 15);
    }
}
