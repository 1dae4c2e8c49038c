//! `kubectl devenv status`.

use crate::provider::{Providers, Snapshot};
use crate::request::{EnvironmentName, Which};
use devloop_core::ExitStatus;
use devloop_core::environment::Directories;
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
        vec![
            record.name.clone(),
            record.provider.clone(),
            snapshot.status.phase.to_string(),
            record.context.clone(),
            format!("https://127.0.0.1:{}", record.api_port),
        ]
    };
    let mut text = output::table(&["NAME", "PROVIDER", "PHASE", "CONTEXT", "API"], &snapshots.iter().map(environment).collect::<Vec<_>>());
    for snapshot in snapshots.iter().filter(|snapshot| !snapshot.status.components.is_empty()) {
        let rows: Vec<Vec<String>> = snapshot
            .status
            .components
            .iter()
            // The import of the sandbox image is a task, not a component.
            .filter(|(name, _)| *name != "pause-image")
            .map(|(name, component)| {
                let state = if component.pid > 0 { "running" } else { "stopped" };
                let last = component.last_exit.clone().unwrap_or_default();
                vec![
                    snapshot.record.name.clone(),
                    name.clone(),
                    state.to_owned(),
                    component.pid.to_string(),
                    component.restarts.to_string(),
                    last,
                ]
            })
            .collect();
        text.push_str("\n\n");
        text.push_str(&output::table(&["NAME", "COMPONENT", "STATE", "PID", "RESTARTS", "LAST EXIT"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::environment::{ComponentStatus, EnvironmentRecord, EnvironmentStatus, Phase};

    #[test]
    fn status_reads_as_a_table() {
        let record = EnvironmentRecord {
            name: "default".into(),
            provider: "embedded".into(),
            context: "devloop-default".into(),
            api_port: 16_443,
            index: 0,
            created: "2026-01-01T00:00:00Z".into(),
            previous_context: None,
        };
        let restarted = ComponentStatus { pid: 42, restarts: 1, last_exit: Some("killed by SIGKILL".into()) };
        let status =
            EnvironmentStatus { phase: Phase::Ready, components: [("etcd".to_owned(), restarted)].into(), ..EnvironmentStatus::default() };
        insta::assert_snapshot!(render(&[Snapshot { record, status }]), @r"
        NAME      PROVIDER   PHASE   CONTEXT           API
        default   embedded   ready   devloop-default   https://127.0.0.1:16443

        NAME      COMPONENT   STATE     PID   RESTARTS   LAST EXIT
        default   etcd        running   42    1          killed by SIGKILL
        ");
    }
}
