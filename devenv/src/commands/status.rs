//! `kubectl devenv status`.

use crate::provider::{NodeSnapshot, Providers, Snapshot};
use crate::request::{EnvironmentName, Which};
use devloop_core::ExitStatus;
use devloop_core::environment::{ComponentStatus, Directories};
use devloop_core::error::{CommandError, ErrorHint, Result};
use devloop_core::output::{self, Format};

/// Prints the environments; one that was named and isn't there is a failure.
pub(super) async fn run(providers: &Providers, directories: &Directories, which: Which, format: Format) -> Result<ExitStatus> {
    let snapshots = match which {
        Which::One(name) => {
            let snapshot = providers.of(&name).snapshot(&name).await?;
            let missing = || CommandError::new(format!("there is no environment {:?}", name.as_str()));
            vec![snapshot.ok_or_else(missing).hint(format!("bring it up with `kubectl devenv up --name {name}`"))?]
        }
        Which::All => {
            let names = directories.environment_names()?;
            let mut snapshots = Vec::new();
            for name in names.iter().filter_map(|name| name.parse::<EnvironmentName>().ok()) {
                snapshots.extend(providers.of(&name).snapshot(&name).await?);
            }
            snapshots
        }
    };
    output::print(format, &snapshots, || render(&snapshots))?;
    Ok(ExitStatus::Success)
}

fn render(snapshots: &[Snapshot]) -> String {
    if snapshots.is_empty() {
        return "No environments; bring one up with `kubectl devenv up`".to_owned();
    }
    let environment = |snapshot: &Snapshot| {
        let record = &snapshot.record;
        vec![record.name.clone(), record.provider.clone(), snapshot.status.phase.to_string(), record.context.clone(), record.server.clone()]
    };
    let mut text = output::table(&["NAME", "PROVIDER", "PHASE", "CONTEXT", "API"], &snapshots.iter().map(environment).collect::<Vec<_>>());
    for snapshot in snapshots {
        for (header, rows) in [(COMPONENT_HEADER, component_rows(snapshot)), (NODE_HEADER, node_rows(snapshot))] {
            if !rows.is_empty() {
                text.push_str("\n\n");
                text.push_str(&output::table(&header, &rows));
            }
        }
        if let Some(failure) = &snapshot.status.failure {
            text.push_str(&format!("\n\n{}: {} {}", snapshot.record.name, failure.component, failure.message));
        }
    }
    text
}

const COMPONENT_HEADER: [&str; 6] = ["NAME", "COMPONENT", "STATE", "PID", "RESTARTS", "LAST EXIT"];
const NODE_HEADER: [&str; 6] = ["NAME", "NODE", "ROLE", "STATE", "READY", "VERSION"];

fn component_rows(snapshot: &Snapshot) -> Vec<Vec<String>> {
    // The import of the sandbox image is a task, not a component.
    let components = snapshot.status.components.iter().filter(|(name, _)| *name != "pause-image");
    let row = |(name, component): (&String, &ComponentStatus)| {
        let state = if component.pid > 0 { "running" } else { "stopped" };
        let last = component.last_exit.clone().unwrap_or_default();
        let (pid, restarts) = (component.pid.to_string(), component.restarts.to_string());
        vec![snapshot.record.name.clone(), name.clone(), state.to_owned(), pid, restarts, last]
    };
    components.map(row).collect()
}

fn node_rows(snapshot: &Snapshot) -> Vec<Vec<String>> {
    let row = |node: &NodeSnapshot| {
        let ready = node.ready.map_or("unknown", |ready| if ready { "yes" } else { "no" });
        let version = node.version.clone().unwrap_or_default();
        vec![snapshot.record.name.clone(), node.name.clone(), node.role.clone(), node.state.clone(), ready.to_owned(), version]
    };
    snapshot.nodes.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::environment::{EnvironmentRecord, EnvironmentStatus, Failure, Phase};

    #[test]
    fn status_reads_as_a_table() {
        let record = EnvironmentRecord {
            name: "default".into(),
            provider: "embedded".into(),
            context: "devloop-default".into(),
            server: "https://127.0.0.1:16443".into(),
            ..EnvironmentRecord::default()
        };
        let restarted = ComponentStatus { pid: 42, restarts: 1, last_exit: Some("killed by SIGKILL".into()) };
        let status =
            EnvironmentStatus { phase: Phase::Ready, components: [("etcd".to_owned(), restarted)].into(), ..EnvironmentStatus::default() };
        insta::assert_snapshot!(render(&[Snapshot { record, status, nodes: Vec::new() }]), @r"
        NAME      PROVIDER   PHASE   CONTEXT           API
        default   embedded   ready   devloop-default   https://127.0.0.1:16443

        NAME      COMPONENT   STATE     PID   RESTARTS   LAST EXIT
        default   etcd        running   42    1          killed by SIGKILL
        ");
    }

    #[test]
    fn nodes_are_listed_as_far_as_they_are_known() {
        let record = EnvironmentRecord {
            name: "dev".into(),
            provider: "kind".into(),
            context: "kind-dev".into(),
            server: "https://127.0.0.1:41234".into(),
            ..EnvironmentRecord::default()
        };
        let node = NodeSnapshot {
            name: "dev-control-plane".into(),
            role: "control-plane".into(),
            state: "running".into(),
            ready: Some(true),
            version: Some("v1.34.4".into()),
        };
        let stopped = NodeSnapshot { name: "dev-worker".into(), role: "worker".into(), state: "exited".into(), ready: None, version: None };
        let failure = Failure { component: "dev-worker".into(), message: "is not running".into() };
        let status = EnvironmentStatus { phase: Phase::Failed, failure: Some(failure), ..EnvironmentStatus::default() };
        let snapshot = Snapshot { record, status, nodes: vec![node, stopped] };
        insta::assert_snapshot!(render(std::slice::from_ref(&snapshot)), @r"
        NAME   PROVIDER   PHASE    CONTEXT    API
        dev    kind       failed   kind-dev   https://127.0.0.1:41234

        NAME   NODE                ROLE            STATE     READY     VERSION
        dev    dev-control-plane   control-plane   running   yes       v1.34.4
        dev    dev-worker          worker          exited    unknown

        dev: dev-worker is not running
        ");
        insta::assert_json_snapshot!(snapshot, @r#"
        {
          "name": "dev",
          "provider": "kind",
          "context": "kind-dev",
          "server": "https://127.0.0.1:41234",
          "created": "",
          "previousContext": null,
          "status": {
            "phase": "failed",
            "supervisorPid": 0,
            "supervisorStart": 0,
            "updated": "",
            "components": {},
            "milestonesMs": {},
            "failure": {
              "component": "dev-worker",
              "message": "is not running"
            }
          },
          "nodes": [
            {
              "name": "dev-control-plane",
              "role": "control-plane",
              "state": "running",
              "ready": true,
              "version": "v1.34.4"
            },
            {
              "name": "dev-worker",
              "role": "worker",
              "state": "exited",
              "ready": null,
              "version": null
            }
          ]
        }
        "#);
    }
}
