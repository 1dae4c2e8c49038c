//! Which containers of which clusters are read.

use super::sources::{SOON, lines_of, pod, tail};
use crate::Case;
use crate::clusters::shared;
use devloop_tests::eventually;
use devloop_tests::toolbox::IMAGE;
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::path::PathBuf;

pub(super) fn cases() -> Vec<Case> {
    vec![
        ("logs_tail::pods_are_chosen_by_owners_patterns_and_states", chosen),
        ("logs_tail::several_contexts_are_read_at_once", contexts),
        ("logs_tail::jobs_that_a_cronjob_makes_later_are_followed", later_jobs),
    ]
}

/// A `CronJob` that is never due by itself.
fn cronjob(name: &str, script: &str) {
    shared().apply_manifest(&format!(
        "\
apiVersion: batch/v1
kind: CronJob
metadata: {{name: {name}}}
spec:
  schedule: \"0 0 1 1 *\"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, args: [\"-c\", {script:?}]}}]
"
    ));
}

fn run_job(cronjob: &str, job: &str) {
    shared().kubectl(["create", "job", job, &format!("--from=cronjob/{cronjob}")]).run().ok();
}

fn chosen() {
    pod("chosen-one", "echo one; sleep 3600");
    pod("chosen-two", "echo two; exit 3");
    cronjob("chosen-cron", "echo of a job");
    run_job("chosen-cron", "chosen-job");
    let read = |arguments: &[&str]| {
        let text = tail(&[&["--no-follow", "-o", "raw"], arguments].concat());
        let mut lines: Vec<String> = text.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(",")
    };
    let becomes = |arguments: &[&str], expected: &str| {
        eventually(&format!("{arguments:?}"), SOON, || {
            let lines = read(arguments);
            if lines == expected { Ok(()) } else { Err(format!("{lines:?} instead of {expected:?}")) }
        });
    };
    becomes(&["chosen-*"], "of a job,one,two");
    becomes(&["^chosen-(one|two)$"], "one,two");
    becomes(&["chosen-o", "--container-state", "running"], "one");
    becomes(&["chosen", "--container-state", "terminated"], "of a job,two");
    becomes(&["cronjob/chosen-cron"], "of a job");
    becomes(&["job/chosen-job"], "of a job");
    becomes(&["chosen", "--exclude-pod", "one|job"], "two");
    becomes(&["chosen", "-l", "app=chosen-two"], "two");
    becomes(&["chosen", "--field-selector", "metadata.name=chosen-one"], "one");
    becomes(&["^chosen", "-A", "--condition", "ready"], "one");
    becomes(&["chosen-t", "-n", "default,kube-system"], "two");
    assert_eq!(tail(&["chosen", "-c", "nobody", "--no-follow"]).fails_with(1).matches("containers: main").count(), 1);
    let error = tail(&["widget/x", "--no-follow"]).fails_with(2);
    assert!(error.contains("unknown kind \"widget\""), "{error}");
    shared().kubectl(["delete", "pod", "chosen-one", "chosen-two", "--wait=false"]).run().ok();
    shared().kubectl(["delete", "cronjob", "chosen-cron", "--wait=false"]).run().ok();
    shared().kubectl(["delete", "job", "chosen-job", "--wait=false", "--ignore-not-found"]).run().ok();
}

/// A kubeconfig with the cluster under a second name.
fn two_contexts() -> PathBuf {
    let path = shared().scratch("contexts").join("config");
    std::fs::copy(shared().kubeconfig(), &path).unwrap();
    let config = |arguments: &[&str]| {
        let file = path.to_str().unwrap();
        shared().kubectl([&["--kubeconfig", file, "config"], arguments].concat()).run().ok()
    };
    let view: serde_json::Value = serde_json::from_str(&config(&["view", "-o", "json"])).unwrap();
    let contexts = view["contexts"].as_array().unwrap();
    let own = contexts.iter().find(|context| context["name"] == shared().context().as_str()).unwrap();
    let text = |key: &str| own["context"][key].as_str().unwrap().to_owned();
    config(&["set-context", "again", "--cluster", &text("cluster"), "--user", &text("user"), "--namespace", "default"]);
    path
}

/// Each pod is in both; one that can't be reached takes nothing from the others.
fn contexts() {
    pod("twice", "echo once; sleep 3600");
    let kubeconfig = two_contexts();
    let both = format!("{},again", shared().context());
    let run = |contexts: &str, more: &[&str]| {
        let arguments = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--context", contexts, "pod/twice", "--no-follow"];
        shared().plugin("kubectl-logs_tail", arguments.iter().chain(more)).run()
    };
    let seen = eventually("both are read", SOON, || {
        let text = run(&both, &["-o", "json"]).stdout;
        if text.lines().count() == 2 { Ok(text) } else { Err(text) }
    });
    let mut seen: Vec<(String, String)> = seen
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|record| (record["context"].as_str().unwrap().to_owned(), record["message"].as_str().unwrap().to_owned()))
        .collect();
    seen.sort();
    assert_eq!(seen, [("again".to_owned(), "once".to_owned()), (shared().context(), "once".to_owned())]);
    // In one alone, nobody needs its name.
    assert!(!run("again", &["-o", "json"]).ok().contains("\"context\""));
    assert!(run(&both, &[]).ok().contains("again twice"));
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("--server=https://{address}");
    shared().kubectl(["--kubeconfig", kubeconfig.to_str().unwrap(), "config", "set-cluster", "nowhere", &server]).run().ok();
    shared().kubectl(["--kubeconfig", kubeconfig.to_str().unwrap(), "config", "set-context", "away", "--cluster", "nowhere"]).run().ok();
    let said = run(&format!("away,{}", shared().context()), &["-o", "raw"]);
    assert!(said.stdout == "once\n" && said.stderr.contains("the rest goes on"), "{said:?}");
    let error = run("again,nobody", &[]).fails_with(1);
    assert!(error.contains("context \"nobody\" is not in the kubeconfig"), "{error}");
    shared().kubectl(["delete", "pod", "twice", "--wait=false"]).run().ok();
}

fn later_jobs() {
    cronjob("later-cron", "echo from $HOSTNAME");
    run_job("later-cron", "later-one");
    let context = shared().context();
    let mut running = shared().plugin("kubectl-logs_tail", ["--context", &context, "cronjob/later-cron", "-o", "raw"]).start();
    let lines_rx = lines_of(running.child.stdout.take().unwrap());
    assert!(lines_rx.recv_timeout(SOON).unwrap().starts_with("from later-one-"));
    run_job("later-cron", "later-two");
    assert!(lines_rx.recv_timeout(SOON).unwrap().starts_with("from later-two-"));
    running.signal(Signal::SIGINT);
    let status = eventually("logs-tail ends", SOON, || running.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned()));
    assert!(status.success() && lines_rx.iter().next().is_none(), "{status}");
    shared().kubectl(["delete", "cronjob", "later-cron", "--wait=false"]).run().ok();
    shared().kubectl(["delete", "job", "later-one", "later-two", "--wait=false", "--ignore-not-found"]).run().ok();
}
