//! What a check has to say, and how bad it is.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Severity {
    /// Looked at, and fine.
    Ok,
    /// It could not be found out.
    Unknown,
    /// Something does not work, or won't at some point.
    Warning,
    /// No engine can bring up a cluster, or one that runs is broken.
    Blocks,
}

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Group {
    /// The kernel, disks and memory.
    Machine,
    /// What engines run.
    Programs,
    /// The Docker engine.
    Docker,
    /// Proxies and clocks.
    Network,
    /// The user's kubeconfig.
    Kubeconfig,
    /// Clusters of ours.
    Environments,
}

impl Group {
    pub(crate) const ALL: [Self; 6] = [Self::Machine, Self::Programs, Self::Docker, Self::Network, Self::Kubeconfig, Self::Environments];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Machine => "Machine",
            Self::Programs => "Programs",
            Self::Docker => "Docker",
            Self::Network => "Network",
            Self::Kubeconfig => "Kubeconfig",
            Self::Environments => "Environments",
        }
    }
}

/// An engine that brings up clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Engine {
    Embedded,
    Kind,
}

impl Engine {
    pub(crate) const ALL: [Self; 2] = [Self::Embedded, Self::Kind];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kind => "kind",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    /// Names the check; stays the same between releases.
    pub(crate) id: &'static str,
    pub(crate) group: Group,
    pub(crate) severity: Severity,
    /// The environment, context or folder that it is about, if not the machine.
    pub(crate) subject: Option<String>,
    /// The engines that it affects.
    pub(crate) engines: Vec<Engine>,
    pub(crate) title: String,
    /// What follows from it.
    pub(crate) explanation: Option<String>,
    /// What to do, with commands in backticks.
    pub(crate) fix: Option<String>,
    /// Whether the engines that it affects can't be used at all.
    #[serde(rename = "disablesEngines")]
    pub(crate) disables: bool,
}

impl Finding {
    pub(crate) fn new(group: Group, id: &'static str, severity: Severity, title: impl Into<String>) -> Self {
        Self { id, group, severity, subject: None, engines: Vec::new(), title: title.into(), explanation: None, fix: None, disables: false }
    }

    pub(crate) fn ok(group: Group, id: &'static str, title: impl Into<String>) -> Self {
        Self::new(group, id, Severity::Ok, title)
    }

    /// A check that could not be made is no good news.
    pub(crate) fn unknown(group: Group, id: &'static str, what: &str, reason: &str) -> Self {
        Self::new(group, id, Severity::Unknown, format!("{what} could not be checked: {reason}"))
    }

    pub(crate) fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    pub(crate) fn affects(mut self, engines: &[Engine]) -> Self {
        self.engines = engines.to_vec();
        self
    }

    /// The engines can't be used until it is fixed.
    pub(crate) fn disables(mut self, engines: &[Engine]) -> Self {
        self.disables = true;
        self.severity = Severity::Blocks;
        self.affects(engines)
    }

    pub(crate) fn explain(mut self, explanation: impl Into<String>) -> Self {
        self.explanation = Some(explanation.into());
        self
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// The engines that can be used.
pub(crate) fn usable(findings: &[Finding]) -> Vec<Engine> {
    let disabled = |engine: &Engine| findings.iter().any(|finding| finding.disables && finding.engines.contains(engine));
    Engine::ALL.into_iter().filter(|engine| !disabled(engine)).collect()
}

/// What keeps one engine from working is only a warning while another one does.
/// A broken environment stays what it is. The order is that of the groups.
pub(crate) fn weigh(mut findings: Vec<Finding>) -> Vec<Finding> {
    let any_usable = !usable(&findings).is_empty();
    for finding in findings.iter_mut().filter(|finding| finding.disables && any_usable) {
        finding.severity = Severity::Warning;
    }
    let key = |finding: &Finding| (finding.group, finding.id, finding.subject.clone(), finding.title.clone());
    findings.sort_by_key(key);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocking(engines: &[Engine]) -> Finding {
        Finding::new(Group::Machine, "x", Severity::Blocks, "x").disables(engines)
    }

    fn weighed(findings: Vec<Finding>) -> Vec<Severity> {
        weigh(findings).into_iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn it_blocks_when_no_engine_is_left_or_an_environment_is_broken() {
        assert_eq!(weighed(vec![blocking(&[Engine::Kind])]), [Severity::Warning]);
        assert_eq!(weighed(vec![blocking(&[Engine::Embedded])]), [Severity::Warning]);
        assert_eq!(weighed(vec![blocking(&Engine::ALL)]), [Severity::Blocks]);
        assert_eq!(weighed(vec![blocking(&[Engine::Kind]), blocking(&[Engine::Embedded])]), [Severity::Blocks; 2]);
        let broken = Finding::new(Group::Environments, "x", Severity::Blocks, "x");
        assert_eq!(weighed(vec![blocking(&[Engine::Kind]), broken]), [Severity::Warning, Severity::Blocks]);
        assert_eq!(usable(&[blocking(&[Engine::Kind])]), [Engine::Embedded]);
    }
}
