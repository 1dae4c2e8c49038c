//! Environments that are up, or should be.

use crate::doctor::facts::{Cluster, Environment, Facts, Node, Reach, Registry};
use crate::doctor::finding::{Finding, Group, Severity};
use devloop_core::environment::Phase;

const GROUP: Group = Group::Environments;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    match &facts.environments {
        Ok(environments) if environments.is_empty() => vec![Finding::ok(GROUP, "environment", "No environments")],
        Ok(environments) => environments.iter().flat_map(of_one).collect(),
        Err(reason) => vec![Finding::unknown(GROUP, "environment", "Environments", reason)],
    }
}

fn of_one(environment: &Environment) -> Vec<Finding> {
    const ID: &str = "environment";
    let Environment { name, provider, .. } = environment;
    let finding = |severity, title: String| Finding::new(GROUP, ID, severity, title).about(name);
    let mut findings = vec![match (&environment.phase, environment.cluster.as_ref().map(|cluster| &cluster.api)) {
        (Err(reason), _) => finding(Severity::Unknown, format!("Environment {name:?} ({provider}) could not be checked: {reason}"))
            .fix(format!("if it is beyond repair, `kubectl devenv down --name {name}` removes it")),
        (Ok(Phase::Failed), _) => finding(Severity::Warning, format!("Environment {name:?} ({provider}) did not come up the last time"))
            .fix(format!("`kubectl devenv up --name {name}` tries again; `kubectl devenv status --name {name}` says why")),
        (Ok(phase @ (Phase::Stopped | Phase::Stopping)), _) => {
            finding(Severity::Ok, format!("Environment {name:?} ({provider}) is {phase}"))
        }
        (Ok(Phase::Ready | Phase::Starting), Some(Ok(api))) if api.ready => {
            finding(Severity::Ok, format!("Environment {name:?} ({provider}) is up"))
        }
        (Ok(Phase::Starting), _) => finding(Severity::Ok, format!("Environment {name:?} ({provider}) is starting")),
        (Ok(Phase::Ready), Some(Ok(_))) => {
            finding(Severity::Warning, format!("The API server of environment {name:?} says that it is not ready"))
                .fix(format!("`kubectl --context {} get --raw '/readyz?verbose'` says what it waits for", environment.context))
        }
        (Ok(Phase::Ready), Some(Err(reason))) => {
            finding(Severity::Blocks, format!("The API server of environment {name:?} ({provider}) does not answer: {reason}"))
                .fix(restart(environment))
        }
        (Ok(Phase::Ready), None) => finding(Severity::Unknown, format!("Environment {name:?} ({provider}) could not be asked")),
    }];
    if let Some(cluster) = &environment.cluster {
        findings.extend(registries(environment, cluster));
    }
    findings
}

fn restart(environment: &Environment) -> String {
    let name = &environment.name;
    match environment.provider.as_str() {
        "context" => "it is run by others: ask them, or see `kubectl cluster-info`".to_owned(),
        "embedded" => format!(
            "`kubectl devenv logs kube-apiserver --name {name}` says why; `kubectl devenv down --keep --name {name} && kubectl devenv up --name {name}` restarts it with its objects"
        ),
        _ => format!("`kubectl devenv down --keep --name {name} && kubectl devenv up --name {name}` restarts its nodes"),
    }
}

fn registries(environment: &Environment, cluster: &Cluster) -> Vec<Finding> {
    let name = &environment.name;
    let mut findings = Vec::new();
    let registry = match &cluster.registry {
        Ok(registry) => registry.as_ref(),
        // Where the API doesn't answer, that is said already.
        Err(_) if cluster.api.is_err() => None,
        Err(reason) => {
            findings.push(Finding::unknown(GROUP, "registry", &format!("The registry of environment {name:?}"), reason).about(name));
            None
        }
    };
    if let Some(registry) = registry {
        findings.push(here(environment, registry));
    }
    match &cluster.nodes {
        Ok(nodes) => findings.extend(nodes.iter().flat_map(|node| on_node(environment, registry, node))),
        Err(reason) => findings.push(Finding::unknown(GROUP, "node", &format!("The nodes of environment {name:?}"), reason).about(name)),
    }
    findings
}

/// The registry from this machine: images are pushed from here.
fn here(environment: &Environment, registry: &Registry) -> Finding {
    const ID: &str = "registry";
    let name = &environment.name;
    match &registry.here {
        Reach::Answers => Finding::ok(GROUP, ID, format!("The registry of environment {name:?} answers at {}", registry.host)),
        Reach::Fails(reason) => Finding::new(
            GROUP,
            ID,
            Severity::Warning,
            format!("The registry of environment {name:?} does not answer at {}: {reason}", registry.host),
        )
        .explain("The cluster's ConfigMap kube-public/local-registry-hosting names it, so that tools will push there.")
        .fix(match environment.provider.as_str() {
            "kind" => format!("`docker start kind-registry`, or `kubectl devenv up --name {name}`; if there is none any more: `kubectl --context {} -n kube-public delete configmap local-registry-hosting`", environment.context),
            _ => format!("`kubectl devenv up --name {name}`; if there is none any more: `kubectl --context {} -n kube-public delete configmap local-registry-hosting`", environment.context),
        }),
    }
    .about(name)
}

fn on_node(environment: &Environment, registry: Option<&Registry>, node: &Node) -> Vec<Finding> {
    let certs = match &node.certs {
        Ok(certs) => certs,
        Err(reason) => {
            return vec![Finding::unknown(GROUP, "certs-d", &format!("Registries of node {:?}", node.name), reason).about(&node.name)];
        }
    };
    let own = registry.map(|registry| registry.from_nodes.as_str());
    let mut findings = Vec::new();
    for (name, endpoints) in certs {
        let failed: Vec<String> = endpoints.iter().filter_map(|(endpoint, reach)| failure(endpoint, reach)).collect();
        // Further endpoints are there for when the first one fails.
        if failed.is_empty() || failed.len() < endpoints.len() {
            continue;
        }
        let why = failed.join("; ");
        findings.push(if own == Some(name.as_str()) {
            unreachable(environment, node, name, &why)
        } else {
            Finding::new(
                GROUP,
                "certs-d",
                Severity::Warning,
                format!("Node {:?} looks for images of {name} where nothing answers: {why}", node.name),
            )
            .about(&node.name)
            .explain(format!(
                "/etc/containerd/certs.d/{name}/hosts.toml is left of a registry that is gone; pulls from {name} fail or take long."
            ))
            .fix(remove_hosts(environment, node, name))
        });
    }
    if let (Some(own), Some(Reach::Fails(reason))) = (own, &node.direct)
        && !certs.contains_key(own)
    {
        findings.push(unreachable(environment, node, own, reason));
    }
    if findings.is_empty() {
        let reachable = own.map(|own| format!("; {own} can be reached")).unwrap_or_default();
        findings
            .push(Finding::ok(GROUP, "certs-d", format!("Registries of node {:?} are in order{reachable}", node.name)).about(&node.name));
    }
    findings
}

fn failure(endpoint: &str, reach: &Reach) -> Option<String> {
    match reach {
        Reach::Answers => None,
        Reach::Fails(reason) => Some(format!("{endpoint} ({reason})")),
    }
}

fn unreachable(environment: &Environment, node: &Node, registry: &str, why: &str) -> Finding {
    let name = &environment.name;
    let fix = match environment.provider.as_str() {
        "kind" => format!("`docker start kind-registry; docker network connect kind kind-registry`, or `kubectl devenv up --name {name}`"),
        _ => format!("`kubectl devenv up --name {name}`"),
    };
    Finding::new(GROUP, "registry-from-node", Severity::Blocks, format!("Node {:?} can't reach the registry {registry}: {why}", node.name))
        .about(&node.name)
        .explain("Pods with images of this registry don't start (ErrImagePull).")
        .fix(fix)
}

fn remove_hosts(environment: &Environment, node: &Node, registry: &str) -> String {
    match environment.provider.as_str() {
        "kind" => format!("`docker exec {} rm -r /etc/containerd/certs.d/{registry}`", node.name),
        _ => format!("`rm -r /etc/containerd/certs.d/{registry}` on the node"),
    }
}
