//! An output that takes lines more slowly than they are written.

use super::sources::{MOST_MEMORY, SOON, lines_of, numbers, peak_memory, pod};
use crate::Case;
use crate::clusters::shared;
use devloop_tests::eventually;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

/// Where nodes can be reached.
pub(super) fn node_cases() -> Vec<Case> {
    vec![
        ("logs_tail::a_slow_terminal_loses_nothing_on_the_node", || slow("node", 700_000)),
        ("logs_tail::a_slow_terminal_loses_nothing_through_the_api", || slow("api", 150_000)),
    ]
}

/// A reader that takes a kilobyte a second while more is written than the kubelet
/// keeps (through the API: than it leaves in one file), and then the rest.
fn slow(via: &str, count: u32) {
    let name = format!("slow-{via}");
    // It waits until it is read: what was written before would be read when there is room.
    pod(&name, &format!("echo \"$HOSTNAME start\"; until [ -e /go ]; do sleep 0.1; done; {}", numbers(count, ":")));
    shared().kubectl(["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).run().ok();
    let context = shared().context();
    let arguments = ["--context", &context, &format!("pod/{name}"), "-o", "raw", "--via", via];
    let mut running = shared().plugin("kubectl-logs_tail", arguments).start();
    let said_rx = lines_of(running.child.stderr.take().unwrap());
    let mut stdout = running.child.stdout.take().unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b" start\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        text.extend_from_slice(&byte);
    }
    shared().kubectl(["exec", &name, "--", "/bin/sh", "-c", ": >/go"]).run().ok();
    let mut said = String::new();
    let waits = eventually("it says how much waits", SOON * 2, || {
        let mut kilobyte = [0; 1024];
        let length = stdout.read(&mut kilobyte).unwrap();
        text.extend_from_slice(&kilobyte[..length]);
        std::thread::sleep(Duration::from_secs(1));
        said.extend(said_rx.try_iter().map(|line| line + "\n"));
        said.lines().find(|line| line.contains("wait for it")).map(str::to_owned).ok_or_else(|| said.clone())
    });
    assert!(waits.contains(if via == "node" { "node " } else { "slow-api/main" }), "{waits}");
    let mut rest = BufReader::new(stdout);
    while !text.ends_with(b" end\n") {
        assert!(rest.read_until(b'\n', &mut text).unwrap() > 0, "{said}");
    }
    assert!(peak_memory(&running) < MOST_MEMORY, "{} MB", peak_memory(&running));
    running.signal(Signal::SIGINT);
    let status = eventually("logs-tail ends", SOON, || running.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned()));
    said.extend(said_rx.iter().map(|line| line + "\n"));
    assert!(status.success() && !said.contains("lost") && said.contains("has caught up"), "{said}");
    shared().kubectl(["delete", "pod", &name, "--wait=false"]).run().ok();
    let text = String::from_utf8(text).unwrap();
    let read: Vec<u32> = text.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    let wrong = read.iter().enumerate().find(|(index, number)| *index as u32 != **number);
    assert!(wrong.is_none() && read.len() == count as usize, "{wrong:?} of {}\n{said}", read.len());
}
