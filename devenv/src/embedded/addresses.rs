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

    /// The port that is tried first for the API on loopback.
    pub(crate) fn preferred_api_port(self) -> u16 {
        16_443 + u16::from(self.index)
    }
}

/// The lowest index that no other environment has and whose link network no
/// route of the host covers.
pub(crate) fn choose_index(taken: &[u8], host_routes: &[(Ipv4Addr, u8)]) -> Option<u8> {
    (0..=MAX_INDEX).find(|index| !taken.contains(index) && !overlaps(Addresses::new(*index), host_routes))
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
        assert_eq!(choose_index(&[], &[]), Some(0));
        assert_eq!(choose_index(&[0, 2], &[]), Some(1));
        let routes = parse_routes(
            "default via 192.0.2.1 dev eth0\nlocal 127.0.0.0/8 dev lo\n10.213.0.0/24 dev vpn0\nunreachable 10.214.1.7 dev x\n192.0.2.0/24 dev eth0\n",
        );
        assert_eq!(routes.len(), 4);
        assert_eq!(choose_index(&[], &routes), Some(2));
        assert_eq!(choose_index(&[], &[(Ipv4Addr::new(10, 0, 0, 0), 8)]), None);
    }

    #[test]
    fn interface_names_fit() {
        assert!(Addresses::new(MAX_INDEX).host_interface().len() <= 15);
    }
}
