//! The decision, over what is known.

use crate::request::{EnvironmentName, KindOptions, ProviderChoice, UpRequest};
use devloop_core::error::{CommandError, ErrorHint, Result};
use std::collections::BTreeMap;

/// Every environment that has a record, with its engine.
pub(super) type Records = BTreeMap<EnvironmentName, ProviderChoice>;

/// What this machine can run.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// The kind cluster that kubectl's current context leads to.
    pub(super) current_kind: Option<String>,
    /// What speaks for kind; or what it lacks.
    pub(super) kind: Result<String, String>,
    /// What the embedded engine lacks.
    pub(super) embedded: Result<(), String>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The engine, never [`ProviderChoice::Auto`].
    pub(super) provider: ProviderChoice,
    /// The environment.
    pub(super) name: EnvironmentName,
    /// Why, unless that is obvious.
    pub(super) said: Option<String>,
}

/// The engine that the user's flags call for, if they do. `variable` is what
/// `KIND_NODE_IMAGE` says, which is a preference and no choice of kind.
pub(super) fn wanted(request: &UpRequest, variable: Option<&str>) -> Result<Option<ProviderChoice>> {
    let of_kind = kind_flag(&request.kind, variable);
    let of_context = if request.context.is_some() { Some("--context") } else { request.allow_context.as_ref().map(|_| "--allow-context") };
    let refuse = |flag: &str, engine: &str, other: &str| {
        Err(CommandError::usage(format!("{flag} is an option of {engine} clusters, and can't go with {other}")))
            .hint(format!("leave {flag} out, or choose `--provider {engine}` alone"))
    };
    match (request.provider, of_kind, of_context) {
        (_, Some(flag), Some(other)) => refuse(flag, "kind", other),
        (ProviderChoice::Embedded, Some(flag), _) => refuse(flag, "kind", "--provider embedded"),
        (ProviderChoice::Context, Some(flag), _) => refuse(flag, "kind", "--provider context"),
        (ProviderChoice::Embedded, _, Some(flag)) => refuse(flag, "context", "--provider embedded"),
        (ProviderChoice::Kind, _, Some(flag)) => refuse(flag, "context", "--provider kind"),
        (ProviderChoice::Auto, Some(_), None) => Ok(Some(ProviderChoice::Kind)),
        (ProviderChoice::Auto, None, Some(_)) => Ok(Some(ProviderChoice::Context)),
        (ProviderChoice::Auto, None, None) => Ok(None),
        (explicit, _, _) => Ok(Some(explicit)),
    }
}

/// The first flag that only kind understands.
fn kind_flag(options: &KindOptions, variable: Option<&str>) -> Option<&'static str> {
    let flags = [
        ("--control-planes", options.control_planes.is_some()),
        ("--workers", options.workers.is_some()),
        ("--node-image", options.node_image.is_some() && options.node_image.as_deref() != variable),
        ("--config", options.config.is_some()),
        ("--mount", !options.mounts.is_empty()),
        ("--port", !options.ports.is_empty()),
        ("--feature-gate", !options.feature_gates.is_empty()),
    ];
    flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
}

/// What follows from the user's words and the records alone.
pub(super) fn by_record(request: &UpRequest, wanted: Option<ProviderChoice>, records: &Records) -> Result<Option<Decision>> {
    let decision = |provider| Some(Decision { provider, name: request.name.clone(), said: None });
    match (wanted, records.get(&request.name)) {
        (Some(wanted), Some(recorded)) if wanted != *recorded => {
            let message = format!("environment {:?} is one of {}, not of {}", request.name.as_str(), engine(*recorded), engine(wanted));
            Err(CommandError::new(message)).hint(format!(
                "choose another name with --name, or take that one down first with `kubectl devenv down --name {}`",
                request.name
            ))
        }
        (Some(wanted), _) => Ok(decision(wanted)),
        (None, Some(recorded)) if request.named => Ok(decision(*recorded)),
        (None, _) => Ok(None),
    }
}

/// What follows when no engine is asked for and something is up.
pub(super) fn by_running(request: &UpRequest, running: &Records) -> Option<Decision> {
    if let Some(provider) = running.get(&request.name) {
        return Some(Decision { provider: *provider, name: request.name.clone(), said: None });
    }
    let mut all = running.iter();
    let (Some((name, provider)), None, false) = (all.next(), all.next(), request.named) else { return None };
    let said = format!("Using environment {:?}, which is up; for another one, name it with --name", name.as_str());
    Some(Decision { provider: *provider, name: name.clone(), said: Some(said) })
}

/// The best engine for an environment that isn't up.
pub(super) fn best(request: &UpRequest, records: &Records, machine: &Machine) -> Result<Decision> {
    let name = || request.name.clone();
    if let Some(adopted) = adoptable(request, records, machine) {
        let said = format!("Using kind cluster {:?}, which is kubectl's current context", adopted.as_str());
        return Ok(Decision { provider: ProviderChoice::Kind, name: adopted, said: Some(said) });
    }
    if let Some(recorded) = records.get(&request.name) {
        return Ok(Decision { provider: *recorded, name: name(), said: None });
    }
    match (&machine.kind, &machine.embedded) {
        (Ok(reason), _) => Ok(Decision { provider: ProviderChoice::Kind, name: name(), said: Some(format!("Using kind: {reason}")) }),
        (Err(lacking), Ok(())) => {
            Ok(Decision { provider: ProviderChoice::Embedded, name: name(), said: Some(format!("Using embedded: {lacking}")) })
        }
        (Err(kind), Err(embedded)) => Err(CommandError::new("no engine can bring up a cluster on this machine"))
            .hint(format!("for kind: {kind}"))
            .hint(format!("for embedded: {embedded}"))
            .hint("for a cluster that others run: name its context with `--provider context --context CONTEXT`")
            .hint("`kubectl devenv doctor` has the fixes"),
    }
}

/// The current kind cluster, when it may become this environment: the user
/// named none or this one, and the name is free.
fn adoptable(request: &UpRequest, records: &Records, machine: &Machine) -> Option<EnvironmentName> {
    let cluster: EnvironmentName = machine.current_kind.as_deref()?.parse().ok()?;
    let meant = !request.named || request.name == cluster;
    let free = records.get(&cluster).is_none_or(|provider| *provider == ProviderChoice::Kind);
    (meant && free).then_some(cluster)
}

fn engine(provider: ProviderChoice) -> &'static str {
    match provider {
        ProviderChoice::Auto => "auto",
        ProviderChoice::Embedded => "embedded",
        ProviderChoice::Kind => "kind",
        ProviderChoice::Context => "context",
    }
}

#[cfg(test)]
mod tests;
