//! What stock kubectl expects of a cluster.

use crate::{Case, shared};
use devloop_tests::eventually;
use devloop_tests::toolbox::IMAGE;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("kubectl::cronjob_is_scheduled", start_cronjob),
        ("kubectl::services_and_cluster_dns", services_and_dns),
        ("kubectl::node_port_and_pod_address_from_the_host", node_port),
        ("kubectl::exec_passes_streams_and_exit_codes", exec),
        ("kubectl::attach_talks_to_the_process", attach),
        ("kubectl::logs_now_and_of_the_previous_container", logs),
        ("kubectl::port_forward", port_forward),
        ("kubectl::cp_both_ways", cp),
        ("kubectl::ephemeral_container_sees_its_target", ephemeral),
        ("kubectl::config_map_and_secret_volumes", volumes),
        ("kubectl::probes_restart_and_gate", probes),
        ("kubectl::job_completes", job),
        ("kubectl::service_account_speaks_to_the_api", service_account),
        ("kubectl::memory_limit_is_enforced", memory_limit),
        ("kubectl::rollout_and_scale", rollout),
    ]
}

pub(crate) fn late_cases() -> Vec<Case> {
    vec![("kubectl::cronjob_ran", cronjob_ran)]
}

/// A pod that runs a shell script, under a name of its own.
fn pod(name: &str, script: &str, more: &str) {
    shared().apply_manifest(&format!(
        "\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Always
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    args: [\"-c\", {script:?}]
{more}"
    ));
}

fn ready(name: &str) {
    shared().kubectl(["wait", "--for=condition=Ready", "pod", name, "--timeout=60s"]).run().ok();
}

fn kubectl(arguments: &[&str]) -> String {
    shared().kubectl(arguments).run().ok()
}

fn remove(names: &[&str]) {
    let arguments = ["delete", "--wait=false", "--ignore-not-found"];
    shared().kubectl(arguments.iter().chain(names)).run().ok();
}

const HTTPD: &str = "mkdir -p /www && echo hello from $HOSTNAME > /www/index.html && exec httpd -f -p 8080 -h /www";

fn services_and_dns() {
    pod("web", HTTPD, "");
    kubectl(&["expose", "pod", "web", "--port=80", "--target-port=8080"]);
    pod("client", "sleep 3600", "");
    ready("web");
    ready("client");
    let address = kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    // By the full name and by the short one, through the pod's resolv.conf.
    for name in ["web.default.svc.cluster.local", "web"] {
        let looked_up = eventually("the Service has a name", SOON, || {
            let said = shared().kubectl(["exec", "client", "--", "nslookup", name]).run();
            if said.stdout.contains(&address) { Ok(said.stdout) } else { Err(said.stdout + &said.stderr) }
        });
        assert!(looked_up.contains("web.default.svc.cluster.local"), "{looked_up}");
    }
    for url in ["http://web.default.svc.cluster.local", "http://web"] {
        let from_client = eventually("the Service answers", SOON, || {
            let said = shared().kubectl(["exec", "client", "--", "get", url]).run();
            if said.status.success() { Ok(said.stdout) } else { Err(said.stderr) }
        });
        assert_eq!(from_client, "hello from web\n");
    }
    // A pod that reaches itself through its own Service.
    // It may be on another node, whose rules follow a moment later.
    let from_itself = eventually("the Service answers its own pod", SOON, || {
        let said = shared().kubectl(["exec", "web", "--", "get", "http://web.default.svc"]).run();
        if said.status.success() { Ok(said.stdout) } else { Err(said.stderr) }
    });
    assert_eq!(from_itself, "hello from web\n");
    shared().kubectl(["exec", "client", "--", "nslookup", "nothing.default.svc.cluster.local"]).run().fails_with(1);
    remove(&["pod/web", "pod/client", "service/web"]);
}

fn http_get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn node_port() {
    pod("np", HTTPD, "");
    kubectl(&["expose", "pod", "np", "--port=80", "--target-port=8080", "--type=NodePort"]);
    ready("np");
    let port = kubectl(&["get", "service", "np", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let node = kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}"]);
    let pod_address = kubectl(&["get", "pod", "np", "-o", "jsonpath={.status.podIP}"]);
    for address in [format!("{pod_address}:8080"), format!("{node}:{port}")] {
        let answer = eventually("the pod answers the host", SOON, || http_get(&address).map_err(|error| format!("{address}: {error}")));
        assert!(answer.ends_with("hello from np\n"), "{answer}");
    }
    remove(&["pod/np", "service/np"]);
}

fn exec() {
    pod("exec", "sleep 3600", "");
    ready("exec");
    let said = shared().kubectl(["exec", "exec", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]).run();
    assert_eq!(said.stdout, "out\n");
    // kubectl itself may put a line about an empty frame before it.
    assert!(said.stderr.lines().any(|line| line == "err"), "{}", said.stderr);
    assert_eq!(said.status.code(), Some(42));
    let echoed = shared().kubectl(["exec", "-i", "exec", "--", "cat"]).input("through stdin").run().ok();
    assert_eq!(echoed, "through stdin");
    remove(&["pod/exec"]);
}

fn attach() {
    shared().apply_manifest(&format!(
        "\
apiVersion: v1
kind: Pod
metadata: {{name: attach}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - {{name: main, image: {IMAGE}, imagePullPolicy: Never, stdin: true, stdinOnce: true, args: [\"-c\", \"read line; echo got $line\"]}}
"
    ));
    ready("attach");
    let said = shared().kubectl(["attach", "-i", "attach"]).input("a line\n").run();
    assert!(said.stdout.contains("got a line"), "stdout: {}\nstderr: {}", said.stdout, said.stderr);
    remove(&["pod/attach"]);
}

fn logs() {
    pod("logs", "echo started; sleep 2; exit 1", "");
    eventually("the container restarts", SOON, || {
        let restarts = kubectl(&["get", "pod", "logs", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]);
        if restarts.parse::<u32>().unwrap_or(0) > 0 { Ok(()) } else { Err(format!("{restarts} restarts")) }
    });
    assert_eq!(kubectl(&["logs", "logs", "--previous"]), "started\n");
    remove(&["pod/logs"]);
}

fn port_forward() {
    pod("pf", HTTPD, "");
    ready("pf");
    let mut forward = shared().kubectl(["port-forward", "pod/pf", ":8080"]).start();
    let mut first = [0; 64];
    let count = forward.child.stdout.as_mut().unwrap().read(&mut first).unwrap();
    let line = String::from_utf8_lossy(&first[..count]).into_owned();
    let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line}"));
    for _ in 0..3 {
        let answer = http_get(address).unwrap();
        assert!(answer.ends_with("hello from pf\n"), "{answer}");
    }
    drop(forward);
    remove(&["pod/pf"]);
}

fn cp() {
    pod("cp", "sleep 3600", "");
    ready("cp");
    let folder = shared().scratch("cp");
    let content: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(folder.join("there"), &content).unwrap();
    kubectl(&["cp", folder.join("there").to_str().unwrap(), "cp:/there"]);
    kubectl(&["cp", "cp:/there", folder.join("back").to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(folder.join("back")).unwrap(), content);
    remove(&["pod/cp"]);
}

fn ephemeral() {
    pod("eph", "sleep 3600", "");
    ready("eph");
    let arguments = [
        "debug",
        "eph",
        "--image",
        IMAGE,
        "--image-pull-policy=Never",
        "--target=main",
        "-c",
        "debugger",
        "--",
        "sh",
        "-c",
        "cat /proc/1/cmdline; echo; sleep 60",
    ];
    kubectl(&arguments);
    let seen = eventually("the ephemeral container runs", SOON, || {
        let said = shared().kubectl(["logs", "eph", "-c", "debugger"]).run();
        if said.stdout.is_empty() { Err(said.stderr) } else { Ok(said.stdout) }
    });
    assert!(seen.contains("sleep\u{0}3600"), "{seen:?}");
    remove(&["pod/eph"]);
}

fn volumes() {
    kubectl(&["create", "configmap", "settings", "--from-literal=color=blue"]);
    kubectl(&["create", "secret", "generic", "password", "--from-literal=word=swordfish"]);
    pod(
        "vol",
        "sleep 3600",
        "    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: password, mountPath: /password}
    - {name: scratch, mountPath: /scratch}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: password, secret: {secretName: password, defaultMode: 256}}
  - {name: scratch, emptyDir: {medium: Memory}}
",
    );
    ready("vol");
    let shown =
        kubectl(&["exec", "vol", "--", "sh", "-c", "cat /settings/color /password/word && echo kept > /scratch/file && cat /scratch/file"]);
    assert_eq!(shown, "blueswordfishkept\n");
    remove(&["pod/vol", "configmap/settings", "secret/password"]);
}

fn probes() {
    pod(
        "probe",
        "echo > /alive; sleep 3600",
        "    readinessProbe: {exec: {command: [test, -e, /ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, -e, /alive]}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}
",
    );
    kubectl(&["wait", "--for=jsonpath={.status.containerStatuses[0].started}=true", "pod/probe", "--timeout=60s"]);
    let condition = ["get", "pod", "probe", "-o", "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}"];
    assert_eq!(kubectl(&condition), "False");
    kubectl(&["exec", "probe", "--", "sh", "-c", "echo > /ready"]);
    ready("probe");
    kubectl(&["exec", "probe", "--", "rm", "/alive"]);
    eventually("the liveness probe restarts the container", SOON, || {
        let restarts = kubectl(&["get", "pod", "probe", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]);
        if restarts == "1" { Ok(()) } else { Err(format!("{restarts} restarts")) }
    });
    remove(&["pod/probe"]);
}

fn job() {
    shared().apply_manifest(&format!(
        "\
apiVersion: batch/v1
kind: Job
metadata: {{name: sums}}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: main, image: {IMAGE}, imagePullPolicy: Never, args: [\"-c\", \"echo $((20 + 22))\"]}}]
"
    ));
    kubectl(&["wait", "--for=condition=Complete", "job/sums", "--timeout=60s"]);
    assert_eq!(kubectl(&["get", "job", "sums", "-o", "jsonpath={.status.succeeded}"]), "3");
    assert_eq!(kubectl(&["logs", "-l", "job-name=sums"]), "42\n42\n42\n");
    remove(&["job/sums"]);
}

fn start_cronjob() {
    kubectl(&["create", "cronjob", "tick", "--image", IMAGE, "--schedule=* * * * *", "--", "echo", "ticked"]);
    kubectl(&[
        "patch",
        "cronjob",
        "tick",
        "-p",
        r#"{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"name":"tick","imagePullPolicy":"Never"}]}}}}}}"#,
    ]);
    assert_eq!(kubectl(&["get", "cronjob", "tick", "-o", "jsonpath={.spec.schedule}"]), "* * * * *");
}

fn cronjob_ran() {
    eventually("the CronJob has run a Job", Duration::from_secs(90), || {
        let succeeded =
            kubectl(&["get", "jobs", "-o", "jsonpath={.items[?(@.metadata.ownerReferences[0].name==\"tick\")].status.succeeded}"]);
        if succeeded.starts_with('1') { Ok(()) } else { Err(format!("succeeded: {succeeded:?}")) }
    });
    remove(&["cronjob/tick"]);
}

fn service_account() {
    pod("sa", "sleep 3600", "");
    ready("sa");
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount && test -s ca.crt && test -s token && cat namespace && nslookup kubernetes.default.svc.cluster.local";
    let shown = kubectl(&["exec", "sa", "--", "sh", "-c", script]);
    assert!(shown.starts_with("default"), "{shown}");
    let forbidden = shared().kubectl(["auth", "can-i", "list", "pods", "--as=system:serviceaccount:default:default"]).run();
    assert_eq!(forbidden.stdout.trim(), "no");
    remove(&["pod/sa"]);
}

fn memory_limit() {
    let script = "head -c 100000000 /dev/zero | tail -c 100000000 > /dev/null; echo ended with $?; sleep 3600";
    pod("hungry", script, "    resources: {limits: {memory: 24Mi}}\n");
    // The kernel ends what asks for too much: that process, or, with control
    // groups version 2, all of the container.
    let reason = "jsonpath={.status.containerStatuses[0].lastState.terminated.reason}";
    eventually("the hungry process is ended", SOON, || {
        let said = shared().kubectl(["logs", "hungry"]).run();
        let ended = shared().kubectl(["get", "pod", "hungry", "-o", reason]).run().ok();
        if said.stdout.lines().any(|line| line == "ended with 137") || ended == "OOMKilled" {
            Ok(())
        } else {
            Err(said.stdout + &said.stderr + &ended)
        }
    });
    remove(&["pod/hungry"]);
}

fn rollout() {
    kubectl(&["create", "deployment", "roll", "--image", IMAGE, "--replicas=2", "--", "sleep", "3600"]);
    kubectl(&[
        "patch",
        "deployment",
        "roll",
        "-p",
        r#"{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"toolbox","imagePullPolicy":"Never"}]}}}}"#,
    ]);
    kubectl(&["rollout", "status", "deployment/roll", "--timeout=60s"]);
    kubectl(&["scale", "deployment/roll", "--replicas=3"]);
    kubectl(&["rollout", "restart", "deployment/roll"]);
    kubectl(&["rollout", "status", "deployment/roll", "--timeout=60s"]);
    assert_eq!(kubectl(&["get", "deployment", "roll", "-o", "jsonpath={.status.readyReplicas}"]), "3");
    remove(&["deployment/roll"]);
}
