//! An environment leaves the host as it found it, and other environments alone.

use crate::Case;
use devloop_tests::environment::Environment;
use devloop_tests::host;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![("isolation::host_is_untouched_and_two_run_side_by_side", host_is_untouched)]
}

fn host_is_untouched() {
    let first = Environment::new("own", "first");
    let second = first.sibling("second");
    let before = host::state();
    first.up();
    second.up();
    let during = host::state();
    assert_eq!(before["mounts"], during["mounts"], "mounts of the host changed");
    // Docker's chain for others is the one place that is written to.
    let rules =
        |state: &host::HostState| state["iptables"].lines().filter(|rule| !rule.contains("DOCKER-USER")).collect::<Vec<_>>().join("\n");
    assert_eq!(rules(&before), rules(&during), "packet filter of the host changed");
    let new_links: Vec<&str> = during["links"].lines().filter(|link| !before["links"].lines().any(|old| old == *link)).collect();
    assert_eq!(new_links.len(), 2, "{new_links:?}");
    assert!(new_links.iter().all(|link| link.starts_with("devloop")), "{new_links:?}");
    let tables = |state: &host::HostState| state["nftables"].lines().filter(|line| line.starts_with("table")).count();
    assert_eq!(tables(&during), tables(&before) + 2);
    let settings = |state: &host::HostState| {
        state["settings"].lines().filter(|line| !line.starts_with("net/ipv4/ip_forward")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(settings(&before), settings(&during));
    // Each has its own objects.
    first.kubectl(["create", "configmap", "only-here"]).run().ok();
    second.kubectl(["get", "configmap", "only-here"]).run().fails_with(1);
    only_loopback_serves_the_api_and_the_registry(&first);
    // The credentials are the owner's alone.
    for path in [first.kubeconfig(), first.directory().root().join("node/etc/kubernetes/pki/admin.key")] {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
    second.down();
    first.kubectl(["get", "configmap", "only-here"]).run().ok();
    first.down();
    assert_eq!(before, host::state(), "something is left on the host");
    assert!(!first.kubeconfig().exists(), "the kubeconfig held nothing but our contexts");
    assert!(!first.directory().root().exists());
}

fn only_loopback_serves_the_api_and_the_registry(environment: &Environment) {
    let record = environment.directory().record().unwrap().unwrap();
    let (port, registry) = (record.embedded.unwrap().api_port, record.registry_port.unwrap());
    let ports = [port, registry];
    assert!(ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok()));
    let addresses = devloop_tests::program::Program::new("ip").args(["-4", "-o", "addr", "show", "scope", "global"]).run().ok();
    let others = addresses.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()?.parse::<Ipv4Addr>().ok());
    for address in others {
        for port in ports {
            let reached = TcpStream::connect_timeout(&(address, port).into(), Duration::from_millis(300));
            assert!(reached.is_err(), "port {port} of the API or the registry is open on {address}");
        }
    }
    // Nobody without a certificate sees anything.
    let server = format!("https://127.0.0.1:{port}");
    let anonymous = ["--kubeconfig", "/dev/null", "--server", &server, "--insecure-skip-tls-verify", "get", "pods", "-A"];
    let said = devloop_tests::program::Program::new("kubectl").args(anonymous).input("\n\n").run();
    assert!(!said.status.success(), "{}", said.stdout);
}
