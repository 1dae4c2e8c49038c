//! A workload patched for a session and restored: by the API alone, so that it
//! is the same on every cluster.

use crate::clusters::{current, say};
use crate::{Case, shared};
use devloop_core::cluster::{Cluster, client_config, load_kubeconfig};
use devloop_core::deploy::wait_ready;
use devloop_core::image;
use devloop_core::shutdown::Shutdown;
use devloop_core::target::Target;
use devloop_core::workload::{self, Change, Record, Restored};
use devloop_tests::{programs, toolbox};
use serde_json::Value;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("supervise::restarts_in_place_and_leaves_no_trace", leaves_no_trace),
        ("supervise::what_others_changed_meanwhile_stays", others_stay),
        ("supervise::a_stateful_set_keeps_its_revision_and_class", stateful_set),
        ("supervise::what_would_not_roll_out_is_refused", refused),
    ]
}

const NAMESPACE: &str = "supervised";
const AGENT: &str = "devloop.local/devloop-agent:supervise";

/// A Deployment in a namespace with the strictest of the pod security standards.
fn manifest() -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: app, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: app}}}}
  template:
    metadata: {{labels: {{app: app}}}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: app
        image: {image}
        command: [/bin/sh, -c]
        args: ["trap 'echo told; exit 0' TERM; echo started $(GREETING); while :; do sleep 0.05; done"]
        env: [{{name: GREETING, value: hello}}]
        livenessProbe: {{exec: {{command: [/bin/true]}}, periodSeconds: 1}}
        readinessProbe: {{exec: {{command: [/bin/true]}}, periodSeconds: 1}}
        securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
"#,
        image = toolbox::IMAGE
    )
}

fn changes() -> [Change; 2] {
    let container = || "app".to_owned();
    let grace = Duration::from_secs(3);
    [
        Change::Supervise { container: container(), agent_image: AGENT.to_owned(), command: Vec::new(), grace },
        Change::PauseProbes { container: container() },
    ]
}

/// The environment's cluster, as our programs have it, and a runtime to ask it.
struct Work {
    runtime: tokio::runtime::Runtime,
    cluster: Cluster,
    target: Target,
}

impl Work {
    /// With the Deployment running as its manifest says.
    fn new() -> Self {
        let folder = shared().scratch("supervise");
        let agent = image::single_binary(&folder.join("cache"), AGENT, &programs().join("devloop-agent"), "/devloop-agent").unwrap();
        let archive = folder.join("agent.tar");
        agent.write_archive(&vec![true; agent.layers.len()], std::fs::File::create(&archive).unwrap()).unwrap();
        shared().devenv(["load".as_ref(), archive.as_os_str()]).run().ok();

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let context = shared().context();
        let cluster = runtime.block_on(async {
            let config = client_config(load_kubeconfig(Some(&shared().kubeconfig())).unwrap(), &context).await.unwrap();
            let client = kube::Client::try_from(config).unwrap();
            Cluster { client, namespace: NAMESPACE.to_owned(), context: context.clone(), nodes: Vec::new() }
        });
        let work = Self { runtime, cluster, target: "deploy/app".parse().unwrap() };
        shared().apply_manifest(&manifest());
        work.rolled_out();
        work
    }

    fn patch(&self, changes: &[Change]) -> devloop_core::Result<Record> {
        let mut noted = None;
        let applied = self.runtime.block_on(workload::apply(&self.cluster.client, NAMESPACE, &self.target, changes, |record| {
            noted = Some(record.clone());
            Ok(())
        }))?;
        assert_eq!(noted.as_ref(), Some(&applied), "it was told before");
        Ok(applied)
    }

    fn restore(&self, record: &Record) -> Restored {
        self.runtime.block_on(workload::restore(&self.cluster.client, record)).unwrap()
    }

    fn rolled_out(&self) {
        let (_never, shutdown) = Shutdown::manual();
        let ready = wait_ready(&self.cluster, &self.target, Duration::from_secs(60), &shutdown);
        self.runtime.block_on(ready).unwrap();
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Another test begins with a new one.
        shared().kubectl(["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true"]).run();
    }
}

fn kubectl(arguments: &[&str]) -> String {
    shared().kubectl(["-n", NAMESPACE]).args(arguments).run().ok()
}

/// The Deployment without what any change of it leaves: a version, a time.
fn essence() -> Value {
    let mut object: Value = serde_json::from_str(&kubectl(&["get", "deployment", "app", "-o", "json", "--show-managed-fields"])).unwrap();
    object.as_object_mut().unwrap().remove("status");
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["generation", "resourceVersion"] {
        metadata.remove(field);
    }
    metadata["annotations"].as_object_mut().unwrap().remove("deployment.kubernetes.io/revision");
    let managers = metadata["managedFields"].as_array_mut().unwrap();
    // The controller's own entry tells of the status.
    managers.retain(|entry| entry["subresource"].is_null());
    for entry in managers {
        entry.as_object_mut().unwrap().remove("time");
    }
    object
}

fn template() -> String {
    kubectl(&["get", "deployment", "app", "-o", "jsonpath={.spec.template}"])
}

fn running_set() -> String {
    kubectl(&["get", "replicasets", "-o", "jsonpath={range .items[?(@.spec.replicas>0)]}{.metadata.name}{end}"])
}

/// The pod's name, how often its container was restarted, and its log.
fn pod() -> (String, String, String) {
    let pods = kubectl(&["get", "pods", "-o", "json"]);
    let pods: Value = serde_json::from_str(&pods).unwrap();
    let alive: Vec<&Value> =
        pods["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect();
    assert_eq!(alive.len(), 1, "{pods}");
    let name = alive[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let log = kubectl(&["logs", &name, "-c", "app"]);
    (name, alive[0]["status"]["containerStatuses"][0]["restartCount"].to_string(), log)
}

fn leaves_no_trace() {
    let work = Work::new();
    let (before, set) = (essence(), running_set());
    let begin = Instant::now();
    let record = work.patch(&changes()).unwrap();
    let patched = begin.elapsed();
    work.rolled_out();
    let rolled_out = begin.elapsed();
    assert_ne!(running_set(), set);

    let (name, _, log) = pod();
    assert_eq!(log, "started hello\n");
    let first = kubectl(&["exec", &name, "-c", "app", "--", "/bin/cat", "/proc/1/cmdline"]);
    let words: Vec<&str> = first.split('\0').take(7).collect();
    assert_eq!(words, ["/devloop/devloop-agent", "supervise", "--grace", "3", "--", "/bin/sh", "-c"]);
    let signal = devloop_agent::supervise::RESTART_SIGNAL;
    kubectl(&["exec", &name, "-c", "app", "--", "/bin/sh", "-c", &format!("kill -{signal} 1")]);
    let told = "started hello\ntold\nstarted hello\n";
    let deadline = Instant::now() + Duration::from_secs(30);
    let restarted = loop {
        let now = pod();
        if now.2 == told || Instant::now() > deadline {
            break now;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(restarted, (name, "0".to_owned(), told.to_owned()), "the same pod, the same container, a new process");

    let again = work.patch(&changes()).unwrap_err();
    assert!(again.to_string().contains("runs under the supervisor already"), "{again}");
    let begin = Instant::now();
    let Restored::Done { put_back, left } = work.restore(&record) else { panic!("it is there") };
    let undone = begin.elapsed();
    assert_eq!((put_back.len(), left), (record.edits.len(), Vec::new()));
    assert_eq!(essence(), before);
    work.rolled_out();
    let back = begin.elapsed();
    assert_eq!(running_set(), set, "the ReplicaSet that there was");
    assert_eq!(work.restore(&record), Restored::Done { put_back: Vec::new(), left: Vec::new() });
    say(&format!(
        "supervise on {}: patched in {patched:.2?}, rolled out in {rolled_out:.2?}; restored in {undone:.2?}, rolled out in {back:.2?}",
        current().name()
    ));
}

fn others_stay() {
    let work = Work::new();
    let original = template();
    let record = work.patch(&changes()).unwrap();
    kubectl(&["set", "env", "deployment/app", "GREETING=bye"]);
    kubectl(&["scale", "deployment/app", "--replicas=0"]);
    let probe = r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","livenessProbe":{"exec":{"command":["/bin/false"]}}}]}}}}"#;
    kubectl(&["patch", "deployment/app", "-p", probe]);
    let Restored::Done { left, .. } = work.restore(&record) else { panic!("it is there") };
    assert_eq!(left, ["spec.template.spec.containers[app].livenessProbe: somebody else changed it"]);
    let expected: Value = serde_json::from_str(&original.replace("hello", "bye")).unwrap();
    let mut now: Value = serde_json::from_str(&template()).unwrap();
    assert_eq!(now["spec"]["containers"][0]["livenessProbe"]["exec"]["command"][0], "/bin/false");
    now["spec"]["containers"][0]["livenessProbe"] = expected["spec"]["containers"][0]["livenessProbe"].clone();
    assert_eq!(now, expected);
    assert_eq!(kubectl(&["get", "deployment", "app", "-o", "jsonpath={.spec.replicas}"]), "0");
    kubectl(&["delete", "deployment", "app"]);
    assert_eq!(work.restore(&record), Restored::Gone);
    // Another of the same name is none of ours.
    shared().apply_manifest(&manifest());
    let made = template();
    assert_eq!(work.restore(&record), Restored::Gone);
    assert_eq!(template(), made);
}

fn stateful_set() {
    let mut work = Work::new();
    work.target = "sts/db".parse().unwrap();
    let limits = "{cpu: 50m, memory: 16Mi}";
    shared().apply_manifest(&format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: db}}}}
  serviceName: db
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: {image}
        args: [-c, "while :; do sleep 0.05; done"]
        resources: {{requests: {limits}, limits: {limits}}}
        securityContext:
          {{allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 1000, capabilities: {{drop: [ALL]}}, seccompProfile: {{type: RuntimeDefault}}}}
"#,
        image = toolbox::IMAGE
    ));
    work.rolled_out();
    let state = || kubectl(&["get", "statefulset", "db", "-o", "jsonpath={.spec.template} {.status.updateRevision}"]);
    let class = || kubectl(&["get", "pod", "db-0", "-o", "jsonpath={.status.qosClass}"]);
    let before = (state(), class());
    let unknown = work.patch(&changes()).unwrap_err();
    assert!(unknown.to_string().contains("is said by its image"), "{unknown}");
    let mut changes = changes();
    if let Change::Supervise { command, .. } = &mut changes[0] {
        *command = ["/bin/sh", "-c", "while :; do sleep 0.05; done"].map(str::to_owned).into();
    }
    let record = work.patch(&changes).unwrap();
    work.rolled_out();
    assert_eq!((class().as_str(), before.1.as_str()), ("Guaranteed", "Guaranteed"));
    work.restore(&record);
    work.rolled_out();
    assert_eq!(state(), before.0);
}

fn refused() {
    let work = Work::new();
    let before = essence();
    kubectl(&["rollout", "pause", "deployment/app"]);
    let error = work.patch(&changes()).unwrap_err();
    assert!(error.to_string().contains("are paused"), "{error}");
    kubectl(&["rollout", "resume", "deployment/app"]);
    let mut missing = changes();
    if let Change::PauseProbes { container } = &mut missing[1] {
        "other".clone_into(container);
    }
    let error = work.patch(&missing).unwrap_err();
    assert_eq!(error.hints(), ["its containers: app"]);
    assert_eq!(essence()["spec"], before["spec"]);
}
