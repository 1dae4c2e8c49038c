//! What was worked out about the services, and why. Pure.

use crate::place::{Place, Routes};
use crate::pods;
use crate::services::Found;
use devloop_core::Result;
use devloop_core::project::{Build, RestartBy};
use k8s_openapi::api::core::v1::Pod;

/// The lines about a service, its pods as they are now.
pub(crate) fn lines(found: &Found, pods: &[Pod], routes: &Routes) -> Vec<String> {
    let service = &found.service;
    let mut lines = vec![format!("{} in {}", service.name, found.root.display())];
    lines.push(format!("  target: {}, container {}", found.selection.target, found.container));
    for reason in &found.reasons {
        lines.push(format!("  {}", reason.what));
        lines.push(format!("      because {}", reason.why));
    }
    for rule in &service.reload {
        let on = if rule.on.is_empty() { "all files".to_owned() } else { rule.on.join(", ") };
        lines.push(format!("  reload: {on} -> {}", crate::reload::describe(&rule.action)));
    }
    if service.reload.is_empty() {
        lines.push(
            "  reload: guessed from what runs: interpreters start again for their own files, nginx rereads its configuration".to_owned(),
        );
    }
    if service.restart.by == RestartBy::Supervisor {
        lines.push("  restart: by a supervisor, with SIGTERM first".to_owned());
    }
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(running) = pods::running(pod, &found.container) else {
            lines.push(format!("  pod {name}: does not run"));
            continue;
        };
        lines.push(match routes.place(name, &found.container, &running) {
            Ok((place, why)) => format!("  pod {name}: by an agent in {place}, since {why}"),
            Err(error) => format!("  pod {name}: {error}"),
        });
    }
    lines.extend(suggestions(service.build.as_ref()).into_iter().map(|suggestion| format!("  suggestion: {suggestion}")));
    lines
}

/// What was worked out about a service, in short.
pub(crate) fn summary(found: &Found) -> String {
    let decided: Vec<String> = found.reasons.iter().map(|reason| format!("  {}", reason.what)).collect();
    format!("{}, worked out (--explain says why):\n{}", found.service.name, decided.join("\n"))
}

/// What a session would change in the cluster, but for workloads.
///
/// # Errors
/// When no way that was allowed leads to a pod.
pub(crate) fn changes(found: &Found, pods: &[Pod], routes: &Routes) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(running) = pods::running(pod, &found.container) else { continue };
        let (place, _) = routes.place(name, &found.container, &running)?;
        lines.push(match place {
            Place::Node(node) => {
                format!("pod {name}: an agent on node {node} writes into container {}, and puts it back at the end", found.container)
            }
            Place::Pod { .. } => format!(
                "pod {name}: gets an ephemeral container (root; SYS_PTRACE, DAC_OVERRIDE, CHOWN, FOWNER, KILL), whose agent writes into container {}, and puts it back at the end",
                found.container
            ),
        });
    }
    if lines.is_empty() {
        lines.push(format!("{}: no pod of {} runs", found.service.name, found.selection.target));
    }
    Ok(lines)
}

/// What would make builds faster; nothing of it is forced.
fn suggestions(build: Option<&Build>) -> Vec<&'static str> {
    match build {
        Some(Build::Cargo(cargo)) => {
            let mut suggestions = vec![
                "a fast linker halves most incremental builds: `rustflags = [\"-C\", \"link-arg=-fuse-ld=mold\"]` (or lld) in .cargo/config.toml",
                "`debug = \"line-tables-only\"` in the profile keeps backtraces and links faster",
            ];
            if cargo.profile.as_deref().is_some_and(|profile| profile != "dev") {
                suggestions.push("`incremental = true` in the profile: it is on in `dev` only");
            }
            suggestions
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::args::Via;
    use devloop_core::detect::Reason;
    use devloop_core::project::{CargoBuild, DeploySpec, ReloadAction, ReloadRule, RestartSpec, Service};
    use devloop_core::target::{PodSelection, SelectionParams, Target};
    use serde_json::json;

    #[test]
    fn what_was_decided_is_told_with_the_reason() {
        let target: Target = "deploy/web".parse().unwrap();
        let service = Service {
            name: "web".to_owned(),
            build: Some(Build::Cargo(CargoBuild { package: "web".to_owned(), binary: "web".to_owned(), profile: None, manifest: None })),
            image: None,
            binary: Some("/app/web".to_owned()),
            sync: Vec::new(),
            reload: vec![ReloadRule { on: vec!["*.conf".to_owned()], action: ReloadAction::Signal("HUP".to_owned()) }],
            restart: RestartSpec::default(),
            deploy: DeploySpec::of(target.clone(), None),
        };
        let reason =
            Reason { what: "binary: /app/web".to_owned(), why: "it runs there, and cargo builds a binary of that name".to_owned() };
        let params = SelectionParams::Labels("app=web".to_owned());
        let selection = PodSelection { target, params };
        let found =
            Found { root: "/w".into(), service, selection, container: "web".to_owned(), reasons: vec![reason], is_worked_out: true };
        let pod = |name: &str, node: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": name, "uid": "u"}, "spec": {"containers": [], "nodeName": node},
                "status": {"containerStatuses": [{"name": "web", "containerID": "containerd://c", "image": "", "imageID": "",
                    "ready": true, "restartCount": 0, "state": {"running": {}}}]},
            }))
            .unwrap()
        };
        let routes = Routes { via: Via::Auto, reachable: vec!["one".to_owned()] };
        insta::assert_snapshot!(lines(&found, &[pod("web-1", "one"), pod("web-2", "two")], &routes).join("\n"));
        insta::assert_snapshot!(summary(&found), @r"
        web, worked out (--explain says why):
          binary: /app/web
        ");
    }
}
