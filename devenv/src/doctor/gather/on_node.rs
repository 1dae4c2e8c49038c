//! What a node's containerd is told about registries, and whether they answer
//! it: asked on the node, with the shell that is there.

use super::within;
use crate::doctor::facts::{Known, Node as NodeFacts, Reach};
use devloop_core::node::Node;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a node may take to show its files.
const FILES: Duration = Duration::from_millis(600);
/// How long it may take to try all registries, which it does at once.
const REGISTRIES: Duration = Duration::from_millis(900);

/// Every file, after a line with its folder's name.
const SHOW: &str = r#"cd /etc/containerd/certs.d 2>/dev/null || exit 0
for folder in *; do if [ -f "$folder/hosts.toml" ]; then printf '\001%s\n' "$folder"; cat "$folder/hosts.toml"; fi; done"#;

/// A line for each HOST:PORT: its exit code and what bash says.
const CONNECT: &str = r#"for target in "$@"; do
  ( said=$(LC_ALL=C timeout 0.7 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "${target%:*}" "${target##*:}" 2>&1); code=$?
    printf '%s %s %s\n' "$target" "$code" "${said//$'\n'/ }" ) &
done
wait"#;

/// Looks at all nodes at once. `own` is what they know the cluster's registry by.
pub(super) async fn look(nodes: Vec<Node>, own: Option<String>) -> Vec<NodeFacts> {
    let mut asked = JoinSet::new();
    for node in nodes {
        let own = own.clone();
        asked.spawn(async move { of_node(&node, own.as_deref()).await });
    }
    let mut nodes = asked.join_all().await;
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    nodes
}

async fn of_node(node: &Node, own: Option<&str>) -> NodeFacts {
    let failed = |reason: String| NodeFacts { name: node.name().to_owned(), certs: Err(reason), direct: None };
    let files = match within(FILES, run(node, SHOW, &[])).await {
        Ok(shown) => hosts_files(&shown),
        Err(reason) => return failed(reason),
    };
    let endpoints: BTreeMap<String, Vec<String>> = files.into_iter().map(|(name, text)| (name, endpoints(&text))).collect();
    let mut targets: Vec<String> = endpoints.values().flatten().filter_map(|url| target(url)).collect();
    let direct = own.and_then(target);
    targets.extend(direct.clone());
    targets.sort();
    targets.dedup();
    let reached = match targets.as_slice() {
        [] => BTreeMap::new(),
        targets => {
            let arguments: Vec<&str> = targets.iter().map(String::as_str).collect();
            match within(REGISTRIES, run(node, CONNECT, &arguments)).await {
                Ok(said) => outcomes(&said),
                Err(reason) => return failed(reason),
            }
        }
    };
    let reach = |url: &str| target(url).and_then(|target| reached.get(&target).cloned()).unwrap_or(Reach::Fails("not tried".to_owned()));
    let certs = endpoints.into_iter().map(|(name, urls)| {
        let tried = urls
            .into_iter()
            .map(|url| {
                let outcome = reach(&url);
                (url, outcome)
            })
            .collect();
        (name, tried)
    });
    NodeFacts { name: node.name().to_owned(), certs: Ok(certs.collect()), direct: own.map(reach) }
}

async fn run(node: &Node, script: &str, arguments: &[&str]) -> Known<String> {
    let argv: Vec<&str> = ["-c", script, "bash"].into_iter().chain(arguments.iter().copied()).collect();
    let output = node.output("bash", &argv).await.map_err(|error| error.to_string())?;
    match output.code {
        0 => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        code => Err(format!("its shell ended with {code}: {}", output.stderr.trim())),
    }
}

/// The content of each file by its folder's name.
fn hosts_files(shown: &str) -> BTreeMap<String, String> {
    let files = shown.split('\u{1}').filter_map(|file| file.split_once('\n'));
    files.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

/// Where a `hosts.toml` sends pulls: each `[host."URL"]`, or else the server.
fn endpoints(text: &str) -> Vec<String> {
    let lines = || text.lines().map(str::trim);
    let host = |line: &str| Some(line.strip_prefix("[host.")?.strip_suffix(']')?.trim().trim_matches(['"', '\'']).to_owned());
    // A table below a host, such as its headers, is no host of its own.
    let hosts: Vec<String> = lines().filter_map(host).filter(|url| !url.contains("\".") && !url.contains("'.")).collect();
    if !hosts.is_empty() {
        return hosts;
    }
    let server =
        |line: &str| Some(line.strip_prefix("server")?.trim_start().strip_prefix('=')?.trim().trim_matches(['"', '\'']).to_owned());
    lines().find_map(server).into_iter().collect()
}

/// `HOST:PORT` of a URL or of a registry's name.
fn target(url: &str) -> Option<String> {
    let (default, rest) = match url.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some((_, rest)) => (443, rest),
        None => (443, url),
    };
    let authority = rest.split('/').next().filter(|authority| !authority.is_empty())?;
    if let Some(address) = authority.strip_prefix('[') {
        let (address, port) = address.split_once(']')?;
        return Some(format!("{address}:{}", port.strip_prefix(':').and_then(|port| port.parse().ok()).unwrap_or(default)));
    }
    match authority.split_once(':') {
        Some((host, port)) => Some(format!("{host}:{}", port.parse::<u16>().ok()?)),
        None => Some(format!("{authority}:{default}")),
    }
}

/// What came of each attempt.
fn outcomes(said: &str) -> BTreeMap<String, Reach> {
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (target, code) = (words.next()?.to_owned(), words.next()?.parse::<i32>().ok()?);
        let said = words.next().unwrap_or_default();
        let reach = match code {
            0 => Reach::Answers,
            124 => Reach::Fails("no answer in time".to_owned()),
            _ => Reach::Fails(reason(said)),
        };
        Some((target, reach))
    };
    said.lines().filter_map(line).collect()
}

/// The kernel's and the resolver's own words, without bash's around them.
fn reason(said: &str) -> String {
    let known = [
        "Connection refused",
        "Name or service not known",
        "Temporary failure in name resolution",
        "No address associated with hostname",
        "No route to host",
        "Network is unreachable",
    ];
    match known.iter().find(|words| said.contains(**words)) {
        Some(words) => words.to_lowercase(),
        None => said.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_files_name_where_pulls_go() {
        let text = "server = \"https://registry.example\"\n\n[host.\"http://kind-registry:5000\"]\n  capabilities = [\"pull\"]\n[host.\"http://kind-registry:5000\".header]\n  x = \"y\"\n[host.'https://mirror.example/v2']\n";
        assert_eq!(endpoints(text), ["http://kind-registry:5000", "https://mirror.example/v2"]);
        assert_eq!(endpoints("server = 'http://a:1'\n"), ["http://a:1"]);
        assert!(endpoints("nonsense [host").is_empty());
        let shown = "\u{1}localhost:5001\n[host.\"http://a:1\"]\n\u{1}docker.io\nserver = \"https://b\"\n";
        let files = hosts_files(shown);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["docker.io", "localhost:5001"]);
        assert!(hosts_files("").is_empty());
    }

    #[test]
    fn urls_and_names_lead_to_a_port() {
        for (url, expected) in [
            ("http://kind-registry:5000", Some("kind-registry:5000")),
            ("https://mirror.example/v2/", Some("mirror.example:443")),
            ("http://mirror", Some("mirror:80")),
            ("localhost:5001", Some("localhost:5001")),
            ("http://[::1]:5000", Some("::1:5000")),
            ("http://a:b", None),
            ("", None),
        ] {
            assert_eq!(target(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn what_bash_says_is_understood() {
        let said = "a:1 0 \nb:2 1 b: line 1: connect: Connection refused b: line 1: /dev/tcp/b/2: Connection refused\nc:3 124 \nd:4 1 d: Name or service not known\n";
        let found = outcomes(said);
        assert_eq!(found["a:1"], Reach::Answers);
        assert_eq!(found["b:2"], Reach::Fails("connection refused".into()));
        assert_eq!(found["c:3"], Reach::Fails("no answer in time".into()));
        assert_eq!(found["d:4"], Reach::Fails("name or service not known".into()));
    }
}
