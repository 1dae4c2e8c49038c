//! Contexts that lead nowhere.

use crate::doctor::facts::{Docker, Facts, KubeContext, Kubeconfig};
use crate::doctor::finding::{Engine, Finding, Group, Severity};
use devloop_core::cluster::guard::is_loopback;
use devloop_core::environment::CONTEXT_PREFIX;

const GROUP: Group = Group::Kubeconfig;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "kubeconfig";
    let config = match &facts.kubeconfig {
        Ok(config) => config,
        Err(reason) => {
            return vec![
                Finding::new(GROUP, ID, Severity::Blocks, format!("The kubeconfig can't be used: {reason}"))
                    .disables(&Engine::ALL)
                    .explain("Neither kubectl nor devloop can find a cluster, or add one.")
                    .fix("repair the file, or choose another one with KUBECONFIG"),
            ];
        }
    };
    let mut findings: Vec<Finding> = config.contexts.iter().filter_map(|context| dangling(context, config, facts)).collect();
    findings.extend(current(config));
    if findings.is_empty() {
        findings.push(Finding::ok(GROUP, ID, format!("The kubeconfig is in order (contexts: {})", config.contexts.len())));
    }
    findings
}

fn current(config: &Kubeconfig) -> Option<Finding> {
    let current = config.current.as_deref().filter(|current| !current.is_empty())?;
    if config.contexts.iter().any(|context| context.name == current) {
        return None;
    }
    let fix = "`kubectl config use-context CONTEXT`, or `kubectl config unset current-context`; `kubectl config get-contexts` lists them";
    Some(
        Finding::new(GROUP, "current-context", Severity::Warning, format!("The current context {current:?} does not exist"))
            .about(current)
            .fix(fix),
    )
}

fn dangling(context: &KubeContext, config: &Kubeconfig, facts: &Facts) -> Option<Finding> {
    const ID: &str = "dangling-context";
    let name = &context.name;
    let warn = |title: String| Finding::new(GROUP, ID, Severity::Warning, title).about(name);
    let Some(server) = &context.server else {
        return Some(
            warn(format!("Context {name:?} names cluster {:?}, which is not there", context.cluster))
                .fix(format!("`kubectl config delete-context {}`", quote(name))),
        );
    };
    if let (Some(user), false) = (&context.user, context.user_is_there) {
        return Some(warn(format!("Context {name:?} names user {user:?}, who is not there")).fix(format!(
            "`kubectl config delete-context {}`, or `kubectl config set-credentials {}`",
            quote(name),
            quote(user)
        )));
    }
    let delete = || delete(context, config);
    if !is_loopback(server) {
        return None;
    }
    let environments = facts.environments.as_ref().ok()?;
    if environments.iter().any(|environment| environment.context == *name) {
        return None;
    }
    if let Some(environment) = name.strip_prefix(CONTEXT_PREFIX) {
        return Some(warn(format!("Context {name:?} is of environment {environment:?}, which is gone")).fix(delete()));
    }
    let cluster = name.strip_prefix("kind-")?;
    // An engine that doesn't answer may well have it.
    let Ok(Docker::Answers(engine)) = &facts.docker else { return None };
    let clusters = engine.clusters.as_ref().ok()?;
    (!clusters.contains_key(cluster)).then(|| {
        warn(format!("Context {name:?} is of kind cluster {cluster:?}, which Docker at {} does not have", engine.endpoint)).fix(delete())
    })
}

/// The commands that remove a context, and what no other context needs.
fn delete(context: &KubeContext, config: &Kubeconfig) -> String {
    let others = || config.contexts.iter().filter(|other| other.name != context.name);
    let mut commands = vec![format!("kubectl config delete-context {}", quote(&context.name))];
    if !others().any(|other| other.cluster == context.cluster) {
        commands.push(format!("kubectl config delete-cluster {}", quote(&context.cluster)));
    }
    if let Some(user) = context.user.as_deref().filter(|user| !others().any(|other| other.user.as_deref() == Some(*user))) {
        commands.push(format!("kubectl config delete-user {}", quote(user)));
    }
    format!("`{}`", commands.join(" && "))
}

/// For a shell.
fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
