//! Docker's packet filter, where there is one, lets nothing through the host
//! that isn't Docker's. The chain `DOCKER-USER` is there for others to say what
//! else may pass (<https://docs.docker.com/engine/network/packet-filtering-firewalls/>).

use super::host_network::run;
use devloop_core::error::Result;

const CHAIN: &str = "DOCKER-USER";
const FROM_AND_TO: [&str; 2] = ["-i", "-o"];

/// Lets an environment's traffic pass through the host.
///
/// # Errors
/// When the chain is there and takes no rule.
pub(super) fn allow(interface: &str) -> Result<()> {
    let Some(rules) = rules() else { return Ok(()) };
    for direction in FROM_AND_TO {
        if !rules.lines().any(|rule| is_ours(rule, direction, interface)) {
            run("iptables", &["--wait", "-I", CHAIN, direction, interface, "-j", "ACCEPT"], "")?;
        }
    }
    Ok(())
}

/// Takes back what [`allow`] added.
///
/// # Errors
/// When a rule that is there can't be removed.
pub(super) fn withdraw(interface: &str) -> Result<()> {
    let Some(rules) = rules() else { return Ok(()) };
    for direction in FROM_AND_TO {
        for _ in rules.lines().filter(|rule| is_ours(rule, direction, interface)) {
            run("iptables", &["--wait", "-D", CHAIN, direction, interface, "-j", "ACCEPT"], "")?;
        }
    }
    Ok(())
}

/// The chain's rules; `None` where there is no such chain, or no iptables.
fn rules() -> Option<String> {
    run("iptables", &["--wait", "-S", CHAIN], "").ok()
}

fn is_ours(rule: &str, direction: &str, interface: &str) -> bool {
    rule.trim_end() == format!("-A {CHAIN} {direction} {interface} -j ACCEPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_interfaces_own_rules_are_ours() {
        assert!(is_ours("-A DOCKER-USER -i devloop1 -j ACCEPT", "-i", "devloop1"));
        for other in ["-A DOCKER-USER -i devloop12 -j ACCEPT", "-A DOCKER-USER -i devloop1 -j DROP", "-A DOCKER-USER -o devloop1 -j ACCEPT"]
        {
            assert!(!is_ours(other, "-i", "devloop1"), "{other}");
        }
    }
}
