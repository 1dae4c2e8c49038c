//! What `kubectl devenv` prints, without a cluster: stdout, stderr and exit
//! code together, in an environment that nothing leaks into.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::process::Command;

/// Runs the program with folders of its own; answers all that a user sees.
fn run(arguments: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-devenv"))
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", "/usr/bin:/bin")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&home.path().display().to_string(), "[HOME]");
    let code = output.status.code().map_or_else(|| "none".to_owned(), |code| code.to_string());
    format!("exit code: {code}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn help() {
    insta::assert_snapshot!(run(&["--help"]));
}

#[test]
fn help_of_commands() {
    insta::assert_snapshot!(run(&["up", "--help"]));
    insta::assert_snapshot!(run(&["load", "--help"]));
    insta::assert_snapshot!(run(&["prune", "--help"]));
    insta::assert_snapshot!(run(&["doctor", "--help"]));
}

#[test]
fn no_environment() {
    insta::assert_snapshot!(run(&["status"]));
    insta::assert_snapshot!(run(&["status", "--name", "nobody"]));
    insta::assert_snapshot!(run(&["status", "-o", "json"]));
    insta::assert_snapshot!(run(&["logs", "etcd"]));
    insta::assert_snapshot!(run(&["kubeconfig"]));
    insta::assert_snapshot!(run(&["load", "image.tar"]));
}

#[test]
fn bad_requests() {
    insta::assert_snapshot!(run(&["up", "--name", "Not_A_Name"]));
    insta::assert_snapshot!(run(&["up", "--provider", "kind", "--port", "80"]));
    insta::assert_snapshot!(run(&["up", "--provider", "context", "--context", "nobody"]));
    insta::assert_snapshot!(run(&["up", "--allow-context"]));
    insta::assert_snapshot!(run(&["up", "--provider", "nonsense"]));
    let said = run(&["node-init"]);
    assert!(said.starts_with("exit code: 2") && said.contains("started by `kubectl devenv up` only"), "{said}");
}

#[test]
fn diagnostics_as_json() {
    let said = run(&["status", "--name", "nobody", "-vv", "--log-format", "json"]);
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON in {said}"));
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    for field in ["timestamp", "level", "target", "threadName"] {
        assert!(event[field].is_string(), "{field} is missing: {line}");
    }
    assert!(event["fields"]["error"].as_str().unwrap().contains("there is no environment"), "{line}");
}
