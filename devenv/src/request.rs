//! What the user asked for, checked: nothing after this sees clap.

use crate::args::{Command, KindArgs, NameArg, ProviderArg, SourceArg};
use devloop_core::error::{CommandError, ErrorHint, Result};
use devloop_core::output::Format;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The name of an environment: a DNS label (RFC 1123) of at most 32 characters,
/// since it becomes part of host, interface and context names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvironmentName(String);

impl EnvironmentName {
    /// The name of the environment that is meant when none is named.
    pub const DEFAULT: &str = "default";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for EnvironmentName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for EnvironmentName {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=32).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(CommandError::usage(format!("{text:?} can't be the name of an environment")))
            .hint("use 1 to 32 lower-case letters, digits and dashes, with a letter or digit at both ends")
    }
}

/// Which engine is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderChoice {
    /// The best one that is there.
    Auto,
    /// The embedded engine.
    Embedded,
    /// kind.
    Kind,
    /// A context of the kubeconfig.
    Context,
}

/// One checked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Bring an environment up.
    Up(UpRequest),
    /// Take environments down.
    Down {
        /// Which.
        which: Which,
        /// Whether the state is kept.
        keep: bool,
    },
    /// Show environments.
    Status {
        /// Which.
        which: Which,
        /// In which form.
        output: Format,
    },
    /// Show a component's log.
    Logs(LogsRequest),
    /// Put an image on the nodes.
    Load(LoadRequest),
    /// Look for what is wrong with this machine.
    Doctor {
        /// The form of the answer.
        output: Format,
    },
    /// Free space.
    Prune(PruneRequest),
    /// Print the kubeconfig.
    Kubeconfig {
        /// The environment.
        name: EnvironmentName,
    },
    /// Build the node's programs.
    Build {
        /// kubectl, too.
        with_kubectl: bool,
    },
}

/// One environment or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one.
    One(EnvironmentName),
    /// All there are.
    All,
}

/// What `up` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpRequest {
    /// The environment.
    pub name: EnvironmentName,
    /// Whether the user named it, or it is the default.
    pub named: bool,
    /// The engine.
    pub provider: ProviderChoice,
    /// Whether there is to be a registry, and where.
    pub registry: RegistryChoice,
    /// The context to work on, for [`ProviderChoice::Context`].
    pub context: Option<String>,
    /// A context that the user allows to be worked on.
    pub allow_context: Option<String>,
    /// What a kind cluster is made of.
    pub kind: KindOptions,
    /// The API's port on loopback, if it matters.
    pub api_port: Option<u16>,
    /// How long to wait for readiness.
    pub timeout: Duration,
    /// The form of the result.
    pub output: Format,
}

/// Whether there is to be a local image registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryChoice {
    /// None.
    None,
    /// One, at this port of loopback or a free one.
    Local {
        /// The port, if it matters.
        port: Option<u16>,
    },
}

/// What the user wants of a kind cluster, beyond kind's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindOptions {
    /// Control plane nodes.
    pub control_planes: Option<u16>,
    /// Worker nodes.
    pub workers: Option<u16>,
    /// Image of the nodes.
    pub node_image: Option<String>,
    /// A configuration to add to.
    pub config: Option<PathBuf>,
    /// Folders of this machine to mount on every node.
    pub mounts: Vec<Mount>,
    /// Ports of the first control plane to publish.
    pub ports: Vec<PortMapping>,
    /// Feature gates by name.
    pub feature_gates: BTreeMap<String, bool>,
}

/// A folder of this machine on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On this machine; absolute.
    pub host: PathBuf,
    /// On the node; absolute.
    pub node: PathBuf,
    /// Whether the node may only read it.
    pub read_only: bool,
}

/// A node's port published on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The address to listen at; loopback unless said otherwise.
    pub address: std::net::IpAddr,
    /// The port on this machine.
    pub host: u16,
    /// The port of the node.
    pub node: u16,
    /// How kind spells it: `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
}

/// What to load, and where from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRequest {
    /// The environment.
    pub name: EnvironmentName,
    /// The image's name, or the path of an archive or folder.
    pub image: String,
    /// What that is.
    pub source: ImageSource,
    /// The form of the result.
    pub output: Format,
}

/// What kind of thing an image is loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// To be found out.
    Auto,
    /// The Docker engine.
    Docker,
    /// A tar.
    Archive,
    /// A folder.
    Layout,
}

/// What to prune.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneRequest {
    /// Which environments.
    pub which: Which,
    /// Whether to only say what would be done.
    pub dry_run: bool,
    /// The form of the result.
    pub output: Format,
}

/// Which log, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsRequest {
    /// The environment.
    pub name: EnvironmentName,
    /// The component's name.
    pub component: String,
    /// Go on as it grows.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
}

impl TryFrom<Command> for Request {
    type Error = CommandError;

    fn try_from(command: Command) -> Result<Self> {
        Ok(match command {
            Command::Up { name, provider, api_port, registry_port, no_registry, context, allow_context, timeout, kind, output } => {
                for (flag, port) in [("--api-port", api_port), ("--registry-port", registry_port)] {
                    if port == Some(0) {
                        return Err(CommandError::usage(format!("{flag} 0 is not a port")));
                    }
                }
                let named = name.name.is_some();
                Self::Up(UpRequest {
                    name: environment_name(name)?,
                    named,
                    provider: provider.into(),
                    registry: if no_registry { RegistryChoice::None } else { RegistryChoice::Local { port: registry_port } },
                    context,
                    allow_context,
                    kind: kind.try_into()?,
                    api_port,
                    timeout: Duration::from_secs(timeout.max(1)),
                    output: output.output,
                })
            }
            Command::Down { all: true, .. } => Self::Down { which: Which::All, keep: false },
            Command::Down { name, keep, .. } => Self::Down { which: Which::One(environment_name(name)?), keep },
            Command::Status { name, output } => {
                let which = name.map_or(Ok(Which::All), |name| name.parse().map(Which::One))?;
                Self::Status { which, output: output.output }
            }
            Command::Logs { component, name, follow, tail } => {
                Self::Logs(LogsRequest { name: environment_name(name)?, component, follow, tail })
            }
            Command::Load { image, from, name, output } => {
                Self::Load(LoadRequest { name: environment_name(name)?, image, source: from.into(), output: output.output })
            }
            Command::Doctor { output } => Self::Doctor { output: output.output },
            Command::Prune { dry_run, name, output } => {
                let which = name.map_or(Ok(Which::All), |name| name.parse().map(Which::One))?;
                Self::Prune(PruneRequest { which, dry_run, output: output.output })
            }
            Command::Kubeconfig { name } => Self::Kubeconfig { name: environment_name(name)? },
            Command::Build { with_kubectl } => Self::Build { with_kubectl },
        })
    }
}

fn environment_name(name: NameArg) -> Result<EnvironmentName> {
    name.name.as_deref().unwrap_or(EnvironmentName::DEFAULT).parse()
}

impl From<ProviderArg> for ProviderChoice {
    fn from(provider: ProviderArg) -> Self {
        match provider {
            ProviderArg::Auto => Self::Auto,
            ProviderArg::Embedded => Self::Embedded,
            ProviderArg::Kind => Self::Kind,
            ProviderArg::Context => Self::Context,
        }
    }
}

impl From<SourceArg> for ImageSource {
    fn from(source: SourceArg) -> Self {
        match source {
            SourceArg::Auto => Self::Auto,
            SourceArg::Docker => Self::Docker,
            SourceArg::Archive => Self::Archive,
            SourceArg::Layout => Self::Layout,
        }
    }
}

impl TryFrom<KindArgs> for KindOptions {
    type Error = CommandError;

    fn try_from(args: KindArgs) -> Result<Self> {
        Ok(Self {
            control_planes: args.control_planes,
            workers: args.workers,
            node_image: args.node_image,
            config: args.config,
            mounts: args.mounts.iter().map(|text| parse_mount(text)).collect::<Result<_>>()?,
            ports: args.ports.iter().map(|text| parse_port(text)).collect::<Result<_>>()?,
            feature_gates: args.feature_gates.iter().map(|text| parse_gate(text)).collect::<Result<_>>()?,
        })
    }
}

fn parse_mount(text: &str) -> Result<Mount> {
    let refuse = || CommandError::usage(format!("--mount {text:?} is not HOST:NODE[:ro]")).with_hint("both are absolute paths");
    let (paths, read_only) = text.strip_suffix(":ro").map_or((text, false), |paths| (paths, true));
    let (host, node) = paths.split_once(':').ok_or_else(refuse)?;
    if !host.starts_with('/') || !node.starts_with('/') || node.contains(':') {
        return Err(refuse());
    }
    Ok(Mount { host: host.into(), node: node.into(), read_only })
}

fn parse_port(text: &str) -> Result<PortMapping> {
    let refuse = || CommandError::usage(format!("--port {text:?} is not [ADDRESS:]HOST:NODE[/tcp|udp|sctp]"));
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => "TCP",
        "udp" => "UDP",
        "sctp" => "SCTP",
        _ => return Err(refuse()),
    };
    let (rest, node) = ports.rsplit_once(':').ok_or_else(refuse)?;
    let (address, host) = rest.rsplit_once(':').unwrap_or(("127.0.0.1", rest));
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0).ok_or_else(refuse);
    let address = address.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| refuse())?;
    Ok(PortMapping { address, host: port(host)?, node: port(node)?, protocol })
}

fn parse_gate(text: &str) -> Result<(String, bool)> {
    let parsed = text.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    parsed
        .filter(|(name, _): &(String, bool)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .ok_or_else(|| CommandError::usage(format!("--feature-gate {text:?} is not NAME=true or NAME=false")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["default", "a", "team-1", &"x".repeat(32)] {
            assert!(good.parse::<EnvironmentName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a_b", "a/b", "../x", &"x".repeat(33)] {
            let error = bad.parse::<EnvironmentName>().unwrap_err();
            assert_eq!(error.status().code(), 2, "{bad}");
        }
    }

    #[test]
    fn mounts_ports_and_gates_are_read_or_refused() {
        let mount = Mount { host: "/a".into(), node: "/b".into(), read_only: true };
        assert_eq!(parse_mount("/a:/b:ro").unwrap(), mount);
        let port = PortMapping { address: [0, 0, 0, 0].into(), host: 8080, node: 80, protocol: "UDP" };
        assert_eq!(parse_port("0.0.0.0:8080:80/udp").unwrap(), port);
        assert_eq!(parse_port("8080:80").unwrap().address, std::net::IpAddr::from([127, 0, 0, 1]));
        assert_eq!(parse_gate("KubeletInUserNamespace=true").unwrap(), ("KubeletInUserNamespace".into(), true));
        for bad in ["", "/a", "a:/b", "/a:b", "/a:/b:rw"] {
            assert_eq!(parse_mount(bad).unwrap_err().status().code(), 2, "{bad}");
        }
        for bad in ["", "80", "0:80", "8080:80/icmp", "x:8080:80", "70000:80"] {
            assert_eq!(parse_port(bad).unwrap_err().status().code(), 2, "{bad}");
        }
        for bad in ["", "A", "A=yes", "=true", "A-b=true"] {
            assert_eq!(parse_gate(bad).unwrap_err().status().code(), 2, "{bad}");
        }
    }
}
