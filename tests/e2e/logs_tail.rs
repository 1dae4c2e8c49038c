//! `kubectl logs-tail` on real pods.

mod cuts;
mod places;
mod slow;
mod sources;

use crate::{Case, shared};
use devloop_tests::eventually;
use devloop_tests::toolbox::IMAGE;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    let own: Vec<Case> = vec![
        ("logs_tail::every_line_once_across_restarts", restarts),
        ("logs_tail::json_and_raw_of_what_is_there", forms),
        ("logs_tail::bad_requests_are_errors", bad_requests),
        ("logs_tail::records_are_chosen_counted_and_written_to_files", records),
    ];
    [own, places::cases(), cuts::cases()].concat()
}

/// Where nodes can be reached.
pub(crate) fn node_cases() -> Vec<Case> {
    [sources::node_cases(), slow::node_cases()].concat()
}

fn deployment(name: &str, replicas: u32, script: &str) {
    shared().apply_manifest(&format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, args: [\"-c\", {script:?}]}}]
"
    ));
}

/// The container ends itself after 300 numbered lines, several times; each of
/// its lives must be seen whole.
fn restarts() {
    deployment("counter", 2, "i=0; while [ $i -lt 300 ]; do echo line $i of $HOSTNAME; i=$((i+1)); done; sleep 1; exit 1");
    let mut tail = shared().plugin("kubectl-logs_tail", ["--context", &shared().context(), "deploy/counter", "-o", "json"]).start();
    let stdout = tail.child.stdout.take().unwrap();
    let (lines_tx, lines_rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| lines_tx.send(line)));
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(90);
    // Two pods with two lives each: 4 times 300 lines.
    while seen.values().sum::<u32>() < 1200 && std::time::Instant::now() < deadline {
        let Ok(line) = lines_rx.recv_timeout(Duration::from_secs(1)) else { continue };
        let record: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        *seen.entry(record["message"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    tail.signal(Signal::SIGINT);
    let status =
        eventually("logs-tail ends", Duration::from_secs(5), || tail.child.try_wait().unwrap().ok_or_else(|| "still runs".to_owned()));
    assert!(status.success(), "{status}");
    shared().kubectl(["delete", "deployment", "counter", "--wait=false"]).run().ok();
    assert_eq!(seen.len(), 600, "lines of two pods");
    // Every number as often as its neighbours, but for the life that was cut off
    // by our own end.
    let (least, most) = (seen.values().min().unwrap(), seen.values().max().unwrap());
    assert!(*least >= 1 && most - least <= 2, "least {least}, most {most}");
}

fn forms() {
    deployment("talker", 1, "echo first; echo second; sleep 3600");
    shared().kubectl(["rollout", "status", "deployment/talker", "--timeout=60s"]).run().ok();
    let tail = |more: &[&str]| {
        let context = shared().context();
        let arguments = ["--context", &context, "deploy/talker", "--no-follow"].into_iter().chain(more.iter().copied());
        shared().plugin("kubectl-logs_tail", arguments).run().ok()
    };
    assert_eq!(tail(&["-o", "raw"]), "first\nsecond\n");
    assert_eq!(tail(&["-o", "raw", "--tail", "1"]), "second\n");
    let record: serde_json::Value = serde_json::from_str(tail(&["-o", "json"]).lines().next().unwrap()).unwrap();
    assert_eq!(record["container"], "main");
    assert!(record["pod"].as_str().unwrap().starts_with("talker-"), "{record}");
    let text = tail(&[]);
    assert!(text.contains("talker-") && !text.contains('\u{1b}'), "{text}");
    shared().kubectl(["delete", "deployment", "talker", "--wait=false"]).run().ok();
}

fn bad_requests() {
    let context = shared().context();
    let run = |arguments: &[&str]| shared().plugin("kubectl-logs_tail", ["--context", &context].iter().chain(arguments)).run();
    let error = run(&["deploy/nobody"]).fails_with(1);
    assert!(error.contains("deployment/nobody not found") && error.contains("Hint:"), "{error}");
    let error = run(&["-l", "app=nobody", "--no-follow"]).fails_with(1);
    assert!(error.contains("nobody"), "{error}");
    run(&["cron/x"]).fails_with(2);
    let error = shared().plugin("kubectl-logs_tail", ["--context", "nowhere", "deploy/x"]).run().fails_with(1);
    assert!(error.contains("context \"nowhere\" is not in the kubeconfig"), "{error}");
}

/// What is done with lines, over the log of a real pod.
fn records() {
    let script = "echo '{\"level\":\"info\",\"status\":200,\"path\":\"/api/a\"}'; echo '{\"level\":\"error\",\"status\":503,\"path\":\"/api/b\"}'; \
        echo 'panic: no user 1'; echo; echo 'goroutine 1 [running]:'; echo 'main.f(0x1)'; echo '	/m.go:1 +0x1'; \
        echo 'panic: no user 22'; echo; echo 'goroutine 9 [running]:'; echo 'main.f(0x7)'; echo '	/m.go:1 +0x9'; echo ready; sleep 3600";
    deployment("writer", 1, script);
    shared().kubectl(["rollout", "status", "deployment/writer", "--timeout=60s"]).run().ok();
    let context = shared().context();
    let tail = |more: &[&str]| {
        let arguments = ["--context", &context, "deploy/writer", "--no-follow"].into_iter().chain(more.iter().copied());
        shared().plugin("kubectl-logs_tail", arguments).run()
    };
    eventually("all was written", Duration::from_secs(30), || {
        let text = tail(&["-o", "raw"]).ok();
        if text.ends_with("ready\n") { Ok(()) } else { Err(text) }
    });
    assert_eq!(
        tail(&["-o", "raw", "--where", "status >= 500 && path ~ \"^/api\""]).ok(),
        "{\"level\":\"error\",\"status\":503,\"path\":\"/api/b\"}\n"
    );
    assert_eq!(tail(&["--jq", "select(.status) | .path", "-o", "raw"]).ok(), "/api/a\n/api/b\n");
    // A word of a frame brings the whole trace, and what is behind it stays out.
    let trace = tail(&["-o", "raw", "-i", "goroutine 9"]).ok();
    assert_eq!(trace, "panic: no user 22\n\ngoroutine 9 [running]:\nmain.f(0x7)\n\t/m.go:1 +0x9\n");
    let template = "{{with tryParseJSON .Message}}{{$.ContainerName}} {{.level}} {{.status}}{{\"\\n\"}}{{end}}";
    assert_eq!(tail(&["--template", template]).ok(), "main info 200\nmain error 503\n");
    let group: serde_json::Value = serde_json::from_str(&tail(&["--group", "-o", "json"]).ok()).unwrap();
    assert_eq!(group["count"], 2, "{group}");
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(tail(&["--output-dir", folder.path().to_str().unwrap()]).ok(), "");
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(std::fs::read_to_string(&files[0]).unwrap().ends_with("ready\n"));
    let error = tail(&["--where", "status >= "]).fails_with(2);
    assert!(error.contains("status >= \n") && error.contains('^'), "{error}");
    shared().kubectl(["delete", "deployment", "writer", "--wait=false"]).run().ok();
}
