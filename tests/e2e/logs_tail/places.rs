//! Which containers of which clusters are read.

use super::sources::{SOON, lines_of, pod, tail};
use crate::Case;
use crate::clusters::shared;
use devloop_tests::eventually;
use devloop_tests::program::{Program, Said};
use devloop_tests::toolbox::IMAGE;
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::path::PathBuf;

pub(super) fn cases() -> Vec<Case> {
    vec![
        ("logs_tail::pods_are_chosen_by_owners_patterns_and_states", chosen),
        ("logs_tail::several_contexts_are_read_at_once", contexts),
        ("logs_tail::what_may_not_be_read_is_said_and_the_rest_goes_on", forbidden),
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

/// A copy of the kubeconfig, to be changed.
pub(super) struct OwnKubeconfig {
    path: PathBuf,
    pub(super) cluster: String,
    pub(super) server: String,
    user: String,
}

impl OwnKubeconfig {
    pub(super) fn new(name: &str) -> Self {
        let path = shared().scratch(name).join("config");
        std::fs::copy(shared().kubeconfig(), &path).unwrap();
        let mut own = Self { path, cluster: String::new(), server: String::new(), user: String::new() };
        let view: serde_json::Value = serde_json::from_str(&own.config(&["view", "-o", "json"])).unwrap();
        let named = |list: &str, name: &str| view[list].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone();
        let context = named("contexts", &shared().context());
        own.cluster = context["context"]["cluster"].as_str().unwrap().to_owned();
        own.user = context["context"]["user"].as_str().unwrap().to_owned();
        own.server = named("clusters", &own.cluster)["cluster"]["server"].as_str().unwrap().to_owned();
        own
    }

    pub(super) fn config(&self, arguments: &[&str]) -> String {
        shared().kubectl([&["--kubeconfig", self.path.to_str().unwrap(), "config"], arguments].concat()).run().ok()
    }

    pub(super) fn plugin(&self, arguments: &[&str]) -> Program {
        let own = ["--kubeconfig", self.path.to_str().unwrap()];
        shared().plugin("kubectl-logs_tail", own.iter().chain(arguments))
    }

    fn tail(&self, arguments: &[&str]) -> Said {
        self.plugin(arguments).run()
    }
}

/// Each pod is in both; one that can't be reached takes nothing from the others.
fn contexts() {
    pod("twice", "echo once; sleep 3600");
    let own = OwnKubeconfig::new("contexts");
    own.config(&["set-context", "again", "--cluster", &own.cluster, "--user", &own.user, "--namespace", "default"]);
    let both = format!("{},again", shared().context());
    let run = |contexts: &str, more: &[&str]| own.tail(&[&["--context", contexts, "pod/twice", "--no-follow"], more].concat());
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
    own.config(&["set-cluster", "nowhere", &server]);
    own.config(&["set-context", "away", "--cluster", "nowhere", "--user", &own.user]);
    let said = run(&format!("away,{}", shared().context()), &["-o", "raw"]);
    assert!(said.stdout == "once\n" && said.stderr.contains("the rest goes on"), "{said:?}");
    let error = run("again,nobody", &[]).fails_with(1);
    assert!(error.contains("context \"nobody\" is not in the kubeconfig"), "{error}");
    shared().kubectl(["delete", "pod", "twice", "--wait=false"]).run().ok();
}

/// A user who may read one of two namespaces.
fn forbidden() {
    pod("seen", "echo seen; sleep 3600");
    shared().apply_manifest(
        "\
apiVersion: v1
kind: ServiceAccount
metadata: {name: limited}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: limited}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: limited, namespace: default}]
",
    );
    let own = OwnKubeconfig::new("limited");
    let token = shared().kubectl(["create", "token", "limited"]).run().ok();
    own.config(&["set-credentials", "limited", "--token", token.trim()]);
    own.config(&["set-context", "limited", "--cluster", &own.cluster, "--user", "limited", "--namespace", "default"]);
    let run = |more: &[&str]| own.tail(&[&["--context", "limited", "seen", "--no-follow", "-o", "raw"], more].concat());
    let said = eventually("what may be read is read", SOON, || {
        let said = run(&["-n", "default,kube-system"]);
        if said.stdout == "seen\n" { Ok(said) } else { Err(format!("{said:?}")) }
    });
    let warnings: Vec<&str> = said.stderr.lines().filter(|line| line.contains("the rest goes on")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("kube-system"), "{}", said.stderr);
    let error = run(&["-n", "kube-system"]).fails_with(1);
    assert!(error.contains("not allowed to list the pods") && error.contains("kubectl auth can-i"), "{error}");
    shared().kubectl(["delete", "pod/seen", "serviceaccount/limited", "rolebinding/limited", "--wait=false"]).run().ok();
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
