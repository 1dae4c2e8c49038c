//! A network between us and the API server that is cut again and again.

use super::places::OwnKubeconfig;
use super::sources::{SOON, collect, numbers, pod};
use crate::Case;
use crate::clusters::shared;
use devloop_tests::eventually;
use nix::sys::signal::Signal;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![("logs_tail::every_number_once_while_connections_are_cut", every_number_once)]
}

/// Passes connections on to a server, until they are cut.
struct Network {
    address: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Network {
    /// Ends with the process: a thread that waits for connections has no other end.
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let open = Arc::new(Mutex::new(Vec::new()));
        let its = Arc::clone(&open);
        std::thread::spawn(move || {
            for here in listener.incoming().map_while(Result::ok) {
                let there = TcpStream::connect(&server).unwrap();
                let copies = [&here, &there].map(|stream| stream.try_clone().unwrap());
                its.lock().unwrap().extend([&here, &there].map(|stream| stream.try_clone().unwrap()));
                let [here_too, there_too] = copies;
                std::thread::spawn(move || pass(here, there));
                std::thread::spawn(move || pass(there_too, here_too));
            }
        });
        Self { address, open }
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    // A cut is what this is for.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// Through the API, in the middle of lines, of answers and of requests.
fn every_number_once() {
    let count = 20_000;
    for name in ["cut-a", "cut-b"] {
        pod(name, &numbers(count, "sleep 0.2"));
    }
    let own = OwnKubeconfig::new("cuts");
    let network = Network::to(own.server.trim_start_matches("https://").to_owned());
    own.config(&["set-cluster", &own.cluster, &format!("--server=https://{}", network.address)]);
    let context = shared().context();
    let mut running = own.plugin(&["--context", &context, "^cut-", "-o", "raw", "--via", "api"]).start();
    let read = collect(&mut running);
    eventually("both are read to their ends", SOON * 2, || {
        network.cut();
        // Long enough to get on: what was read of the last second is read again.
        std::thread::sleep(Duration::from_secs(3));
        let read = read.lock().unwrap();
        let at_end = read.values().filter(|numbers| numbers.last() == Some(&u32::MAX)).count();
        if at_end == 2 { Ok(()) } else { Err(format!("{:?}", read.iter().map(|(pod, numbers)| (pod, numbers.len())).collect::<Vec<_>>())) }
    });
    running.signal(Signal::SIGINT);
    let status = eventually("logs-tail ends", SOON, || running.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned()));
    assert!(status.success(), "{status}");
    shared().kubectl(["delete", "pod", "cut-a", "cut-b", "--wait=false"]).run().ok();
    let expected: Vec<u32> = (0..count).chain([u32::MAX]).collect();
    for (pod, numbers) in read.lock().unwrap().iter() {
        assert!(*numbers == expected, "{pod}: {} numbers", numbers.len());
    }
}
