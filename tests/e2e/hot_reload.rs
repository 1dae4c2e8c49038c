//! `kubectl hot-reload`: on the shop, which the other plugins' tests share, and on
//! each kind of image that there is an example of.

mod apps;
pub(crate) mod commands;
mod many_pods;
mod matrix;
mod stage;
mod storms;

use crate::Named;
use crate::clusters::Cluster;
use crate::rebuild::{ask, get, shop};
use crate::{Case, shared};
use devloop_tests::eventually;
use nix::sys::signal::Signal;
use stage::Way;
pub(crate) use stage::leave;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("hot_reload::saved_files_are_served_and_removed_ones_are_not", files),
        ("hot_reload::code_is_swapped_in_place", swap),
        ("hot_reload::code_that_does_not_compile_keeps_the_old", does_not_compile),
        ("hot_reload::replaced_pod_is_brought_up_to_date", replaced_pod),
        ("hot_reload::file_deleted_while_it_is_copied", vanishing_file),
        ("hot_reload::ctrl_c_ends_it_and_the_app_runs_on", ctrl_c),
        ("hot_reload::wrong_target_is_an_error", wrong_target),
    ]
}

/// Each kind of image by each way to it, on the clusters where that makes a
/// difference; storms; and several pods, also on several nodes.
pub(crate) fn matrix(cluster: Cluster) -> Vec<Named> {
    const BOTH: &[Way] = &[Way::Node, Way::Api];
    match cluster {
        Cluster::Embedded => [matrix::cases(cluster, BOTH), storms::cases(cluster, BOTH), many_pods::cases(cluster, Way::Node)]
            .into_iter()
            .flatten()
            .collect(),
        Cluster::Kind => [matrix::cases(cluster, BOTH), storms::cases(cluster, &[Way::Node])].into_iter().flatten().collect(),
        Cluster::Kind3 => many_pods::cases(cluster, Way::Node),
        Cluster::Api => many_pods::cases(cluster, Way::Api),
    }
}

fn served(path: &str, text: &str) {
    eventually(&format!("{path} serves {text:?}"), SOON, || {
        // A pod that was just replaced is not behind the Service yet.
        let said = get(path).run();
        if said.stdout.contains(text) { Ok(()) } else { Err(said.stdout + &said.stderr) }
    });
}

fn files() {
    let mut session = shop().hot_reload(&["--probe-path", "/healthz"]);
    let (pod, _) = shop().pod();
    shop().edit("static/index.html", "<h1>Shop</h1>", "<h1>Shop, edited</h1>");
    let event = session.wait_for("synced");
    assert!(event["phasesMs"]["deliver"].as_f64().is_some(), "{event}");
    served("/", "<h1>Shop, edited</h1>");
    // A folder that comes with its files, all at once.
    let folder = shop().folder.join("static/new/deep");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..50 {
        std::fs::write(folder.join(format!("{number}.txt")), format!("file {number}")).unwrap();
    }
    served("/new/deep/0.txt", "file 0");
    served("/new/deep/49.txt", "file 49");
    std::fs::remove_file(folder.join("7.txt")).unwrap();
    eventually("the removed file is not served", SOON, || {
        let said = shared().kubectl(["get", "--raw", "/api/v1/namespaces/default/services/shop:80/proxy/new/deep/7.txt"]).run();
        if said.status.success() { Err(said.stdout) } else { Ok(()) }
    });
    assert_eq!(shop().pod().0, pod);
    std::fs::remove_dir_all(shop().folder.join("static/new")).unwrap();
}

fn restarts() -> String {
    let (pod, _) = shop().pod();
    shared().kubectl(["get", "pod", &pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]).run().ok()
}

fn swap() {
    let (before, greeting) = (restarts(), shop().greeting());
    let mut session = shop().hot_reload(&["--probe-path", "/healthz"]);
    let (pod, _) = shop().pod();
    for number in 0..3 {
        shop().greet(&format!("swapped {number}"));
        let event = session.wait_for("swapped");
        for phase in ["compile", "deliver", "swap", "served"] {
            assert!(event["phasesMs"][phase].as_f64().is_some(), "{phase} is missing: {event}");
        }
        served("/api/version", &format!("swapped {number}"));
        // The same process: in a container of its own it is number 1.
        served("/api/version", "\"pid\":1");
    }
    assert_eq!(shop().pod().0, pod);
    assert_eq!(restarts(), before);
    shop().greet(&greeting);
    session.wait_for("swapped");
}

fn does_not_compile() {
    let greeting = shop().greeting();
    let mut session = shop().hot_reload(&[]);
    shop().edit("src/greeting.rs", "pub(crate) const", "pub(crate) konst");
    let event = session.wait_for("build-failed");
    assert!(event["message"].as_str().unwrap().contains("expected one of"), "{event}");
    assert!(ask("/api/version").contains(&greeting));
    shop().edit("src/greeting.rs", "pub(crate) konst", "pub(crate) const");
    shop().greet("fixed");
    session.wait_for("swapped");
    served("/api/version", "fixed");
    shop().greet(&greeting);
    session.wait_for("swapped");
}

fn replaced_pod() {
    let mut session = shop().hot_reload(&[]);
    shop().edit("static/index.html", "<h1>Shop, edited</h1>", "<h1>Shop, in every pod</h1>");
    session.wait_for("synced");
    let (old, _) = shop().pod();
    shared().kubectl(["delete", "pod", &old, "--wait=true"]).run().ok();
    session.wait_for("pod-added");
    let (new, _) = shop().pod();
    assert_ne!(old, new);
    served("/", "<h1>Shop, in every pod</h1>");
    shop().edit("static/index.html", "<h1>Shop, in every pod</h1>", "<h1>Shop</h1>");
    session.wait_for("synced");
}

fn vanishing_file() {
    let session = shop().hot_reload(&[]);
    let path = shop().folder.join("static/vanishing.bin");
    for _ in 0..20 {
        std::fs::write(&path, vec![7; 2_000_000]).unwrap();
        std::thread::sleep(Duration::from_millis(3));
        std::fs::remove_file(&path).unwrap();
    }
    // The session lives, and what counts is the end: the file is gone.
    std::fs::write(shop().folder.join("static/after.txt"), "after").unwrap();
    served("/after.txt", "after");
    eventually("the vanished file is not served", SOON, || {
        let said = shared().kubectl(["get", "--raw", "/api/v1/namespaces/default/services/shop:80/proxy/vanishing.bin"]).run();
        if said.status.success() { Err("still there".to_owned()) } else { Ok(()) }
    });
    std::fs::remove_file(shop().folder.join("static/after.txt")).unwrap();
    drop(session);
}

fn ctrl_c() {
    let session = shop().hot_reload(&[]);
    let status = session.end(Signal::SIGINT);
    assert!(status.success(), "{status}");
    assert!(ask("/healthz").contains("ok"), "{}", ask("/healthz"));
}

fn wrong_target() {
    let arguments = shop().context().into_iter().chain(shop().file()).chain(["nobody".to_owned()]);
    let said = shared().plugin("kubectl-hot_reload", arguments).run();
    assert!(!said.status.success());
    assert!(said.stderr.contains("nobody"), "{}", said.stderr);
}
