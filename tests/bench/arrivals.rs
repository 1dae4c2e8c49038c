//! New pods of a kind node, known by their addresses as soon as its kernel has them:
//! the API tells of them up to a second later.

use crate::measure::serves;
use devloop_tests::program::{Program, Running};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(120);

/// What comes to be at a node.
#[derive(Debug)]
pub(crate) struct Arrivals {
    addresses_rx: Receiver<Ipv4Addr>,
    _monitor: Running,
}

impl Arrivals {
    /// Of pods of this node from now on.
    pub(crate) fn at(node: &str) -> Self {
        let mut monitor = Program::new("docker").args(["exec", node, "ip", "-4", "monitor", "route"]).start();
        let output = BufReader::new(monitor.child.stdout.take().unwrap());
        let (addresses_tx, addresses_rx) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // A route to one address: `10.244.0.7 dev veth… scope host`.
                if let Some(Ok(address)) = line.split_whitespace().next().map(str::parse)
                    && addresses_tx.send(address).is_err()
                {
                    return;
                }
            }
        });
        Self { addresses_rx, _monitor: monitor }
    }

    /// Asks those that came until one answers `wanted`; answers how long that took.
    pub(crate) fn until_one_serves(&self, port: u16, path: &str, wanted: &str, since: Instant) -> Duration {
        let mut pods: Vec<String> = Vec::new();
        loop {
            pods.extend(self.addresses_rx.try_iter().map(|address| format!("{address}:{port}")));
            // The newest is the one that is waited for, mostly.
            if pods.iter().rev().any(|pod| serves(pod, path, wanted)) {
                return since.elapsed();
            }
            assert!(since.elapsed() < LIMIT, "none of {pods:?} answered {wanted:?}");
            std::thread::sleep(PAUSE);
        }
    }
}
