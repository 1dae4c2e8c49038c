//! What the command line offers beside a session with a devloop.yaml.

use super::served;
use crate::rebuild::{ask, shop};
use crate::{Case, shared};
use devloop_tests::session::Session;
use devloop_tests::shop::Shop;
use nix::sys::signal::Signal;
use serde_json::Value;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("hot_reload::without_a_file_it_is_worked_out_and_explained", no_file),
        ("hot_reload::status_tells_what_runs_where", status),
        ("hot_reload::nothing_is_changed_by_a_dry_run", dry_run),
        ("hot_reload::probes_are_paused_and_come_back", pause_probes),
        ("hot_reload::supervised_app_ends_before_it_starts_again", supervise),
        ("hot_reload::bad_requests_are_errors", bad_requests),
    ]
}

/// The shop's deployment as a user has it who never heard of devloop.yaml.
fn bare() -> Shop {
    let bare = Shop::copy(&shared(), "bare");
    std::fs::remove_file(bare.folder.join("devloop.yaml")).unwrap();
    bare
}

fn template() -> String {
    shared().kubectl(["get", "deployment", "shop", "-o", "jsonpath={.spec.template}"]).run().ok()
}

fn no_file() {
    // Deployed, if nobody did before.
    shop();
    let bare = bare();
    let run = |more: &[&str]| {
        let arguments = bare.context().into_iter().chain(more.iter().map(|word| (*word).to_owned()));
        shared().plugin("kubectl-hot_reload", arguments).current_dir(&bare.folder)
    };
    let explained = run(&["deploy/shop", "--explain"]).run().ok();
    assert!(explained.contains("build: cargo, binary shop of package shop\n      because "), "{explained}");
    let yaml = run(&["init", "deploy/shop", "--stdout"]).run().ok();
    assert!(yaml.contains("binary: /app/shop") && !bare.folder.join("devloop.yaml").exists(), "{yaml}");
    let before = ask("/api/version");
    let mut session = Session::start(run(&["deploy/shop", "-o", "json"]));
    bare.greet("worked out");
    session.wait_for("swapped");
    served("/api/version", "worked out");
    assert!(session.end(Signal::SIGINT).success());
    served("/api/version", before.trim());
    run(&["init", "deploy/shop"]).run().ok();
    assert_eq!(std::fs::read_to_string(bare.folder.join("devloop.yaml")).unwrap(), yaml);
    let refused = run(&["init", "deploy/shop"]).run().fails_with(2);
    assert!(refused.contains("is there already") && refused.contains("--force"), "{refused}");
}

fn status() {
    let said = || -> Value {
        let text = shared().plugin("kubectl-hot_reload", ["status", "-o", "json"]).run().ok();
        serde_json::from_str(&text).unwrap()
    };
    let mut session = shop().hot_reload(&[]);
    std::fs::write(shop().folder.join("static/status.txt"), "status").unwrap();
    session.wait_for("synced");
    let (pod, _) = shop().pod();
    let sessions = devloop_tests::eventually("the status tells of the pod", super::SOON, || {
        let sessions = said();
        let found = sessions[0]["services"][0]["pods"]
            .as_array()
            .is_some_and(|pods| pods.iter().any(|entry| entry["name"] == pod.as_str() && entry["inSync"] == true && entry["lag"] == 0));
        if found { Ok(sessions) } else { Err(sessions.to_string()) }
    });
    assert_eq!(sessions[0]["services"][0]["name"], "shop", "{sessions}");
    assert!(sessions[0]["services"][0]["pods"][0]["digest"].as_str().is_some_and(|digest| digest.len() == 64), "{sessions}");
    std::fs::remove_file(shop().folder.join("static/status.txt")).unwrap();
    session.wait_for("synced");
    assert!(session.end(Signal::SIGTERM).success());
    assert_eq!(said(), Value::Array(Vec::new()));
}

fn dry_run() {
    let before = template();
    let arguments =
        shop().context().into_iter().chain(shop().file()).chain(["--dry-run", "--supervise", "--pause-probes"].map(str::to_owned));
    let said = shared().plugin("kubectl-hot_reload", arguments).run().ok();
    assert!(said.contains("puts it back at the end") && said.contains("livenessProbe"), "{said}");
    assert_eq!(template(), before);
}

fn pause_probes() {
    let before = template();
    assert!(before.contains("livenessProbe"), "{before}");
    let session = shop().hot_reload(&["--pause-probes"]);
    assert!(!template().contains("livenessProbe"));
    assert!(session.end(Signal::SIGINT).success());
    assert_eq!(template(), before);
    shared().kubectl(["rollout", "status", "deployment/shop", "--timeout=60s"]).run().ok();
    // What a killed session left, the next one puts back.
    drop(shop().hot_reload(&["--pause-probes"]));
    assert_ne!(template(), before);
    let said = shared().plugin("kubectl-hot_reload", shop().context().into_iter().chain(["undo".to_owned()])).run();
    assert!(said.status.success() && said.stderr.contains("deployment/shop is as it was"), "{}", said.stderr);
    assert_eq!(template(), before);
    shared().kubectl(["rollout", "status", "deployment/shop", "--timeout=60s"]).run().ok();
}

fn supervise() {
    let (before, greeting) = (template(), shop().greeting());
    let mut session = shop().hot_reload(&["--supervise"]);
    let (pod, _) = shop().pod();
    shop().greet("supervised");
    session.wait_for("swapped");
    served("/api/version", "supervised");
    assert_eq!(shop().pod().0, pod);
    shop().greet(&greeting);
    session.wait_for("swapped");
    assert!(session.end(Signal::SIGINT).success());
    assert_eq!(template(), before);
    shared().kubectl(["rollout", "status", "deployment/shop", "--timeout=60s"]).run().ok();
}

fn bad_requests() {
    let fails = |words: &[&str], code: i32, text: &str| {
        let arguments = shop().context().into_iter().chain(words.iter().map(|word| (*word).to_owned()));
        // Far from this repository, where there is much to be found.
        let nowhere = tempfile::tempdir().unwrap();
        let said = shared().plugin("kubectl-hot_reload", arguments).current_dir(nowhere.path()).run().fails_with(code);
        assert!(said.contains(text), "{words:?}: {said}");
    };
    fails(&[], 2, "deploy/web");
    fails(&["deploy/nobody"], 1, "not found");
    fails(&["deploy/shop"], 2, "could not tell which files here belong to the container");
    fails(&["cron/x"], 2, "unknown kind");
    fails(&["shop", "status"], 2, "comes before a command");
    fails(&["deploy/shop", "--probe-path", "x"], 2, "absolute path");
}
