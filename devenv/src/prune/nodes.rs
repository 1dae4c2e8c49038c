//! Images on nodes, asked of containerd by its own client.

use super::plan::{Manifest, NodeImages};
use devloop_core::error::{CommandError, ErrorContext, Result};
use devloop_core::node::Node;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Where containerd keeps manifests, on every node.
const BLOBS: &str = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256";

/// What a node has.
pub(super) async fn gather(node: &Node) -> Result<NodeImages> {
    let images = images(node).await?;
    let digests: BTreeSet<&str> = images.iter().filter_map(|(_, digest)| digest.strip_prefix("sha256:")).collect();
    let manifests = manifests(node, &digests).await?;
    Ok(NodeImages { node: node.name().to_owned(), used: used(node).await?, images, manifests })
}

async fn images(node: &Node) -> Result<Vec<(String, String)>> {
    let table = ctr(node, &["images", "ls"]).await?;
    Ok(pairs(&table, "REF", "DIGEST"))
}

async fn used(node: &Node) -> Result<BTreeSet<String>> {
    let table = ctr(node, &["containers", "ls"]).await?;
    Ok(pairs(&table, "CONTAINER", "IMAGE").into_iter().map(|(_, image)| image).collect())
}

/// Forgets an image by all of its names, unless a container uses it by now, or
/// one of the names leads elsewhere.
pub(super) async fn remove(node: &Node, digest: &str, references: &[String]) -> Result<()> {
    let (now, used) = (images(node).await?, used(node).await?);
    let of_digest: Vec<&str> = now.iter().filter(|(_, found)| found == digest).map(|(reference, _)| reference.as_str()).collect();
    if of_digest.iter().any(|reference| used.contains(*reference) || !references.iter().any(|known| known == reference)) {
        return Err(CommandError::new("it is in use now"));
    }
    if !of_digest.is_empty() {
        let arguments: Vec<&str> = ["images", "rm", "--sync"].into_iter().chain(of_digest).collect();
        ctr(node, &arguments).await?;
    }
    Ok(())
}

async fn ctr(node: &Node, arguments: &[&str]) -> Result<String> {
    let all: Vec<&str> = ["--namespace", "k8s.io"].into_iter().chain(arguments.iter().copied()).collect();
    let output = node.output("ctr", &all).await.with_context(|| format!("could not ask containerd on the {}", node.describe()))?;
    if output.code != 0 {
        return Err(CommandError::new(format!("containerd on the {} refused: {}", node.describe(), output.stderr.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Two columns of a table of `ctr`, which aligns them with spaces.
fn pairs(table: &str, first: &str, second: &str) -> Vec<(String, String)> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let (Some(first), Some(second)) = (header.find(first), header.find(second)) else { return Vec::new() };
    let word = |line: &str, start: usize| Some(line.get(start..)?.split_whitespace().next()?.to_owned());
    lines.filter_map(|line| Some((word(line, first)?, word(line, second)?))).collect()
}

/// Reads manifests and their times in one go. One that is large or gone is left
/// out: nothing is decided without it.
async fn manifests(node: &Node, digests: &BTreeSet<&str>) -> Result<BTreeMap<String, Manifest>> {
    const SCRIPT: &str = r#"cd "$1" || exit 0; shift
for hex; do
    size=$(stat -c %s "$hex" 2>/dev/null) && [ "$size" -le 1000000 ] || continue
    printf '\n%s %s ' "$hex" "$(stat -c %.9Y "$hex")"; tr -d '\n' <"$hex"
done"#;
    let arguments: Vec<&str> = ["-c", SCRIPT, "sh", BLOBS].into_iter().chain(digests.iter().copied()).collect();
    let output = node.output("sh", &arguments).await.with_context(|| format!("could not read images of the {}", node.describe()))?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(text: &str) -> BTreeMap<String, Manifest> {
    #[derive(Deserialize)]
    struct Document {
        config: Option<Blob>,
        #[serde(default)]
        layers: Vec<Blob>,
    }
    #[derive(Deserialize)]
    struct Blob {
        digest: String,
        size: u64,
    }
    let line = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let (hex, time, json) = (parts.next()?, parts.next()?, parts.next()?);
        let written = time.replacen('.', "", 1).parse().ok()?;
        let document: Document = serde_json::from_str(json).ok()?;
        let blobs = document.config.into_iter().chain(document.layers).map(|blob| (blob.digest, blob.size)).collect();
        Some((format!("sha256:{hex}"), Manifest { written, blobs }))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_manifests_are_read() {
        let table = "REF                 TYPE   DIGEST     SIZE\ndevloop.local/x:1   a      sha256:11  1 KiB\n";
        assert_eq!(pairs(table, "REF", "DIGEST"), [("devloop.local/x:1".to_owned(), "sha256:11".to_owned())]);
        assert!(pairs("", "REF", "DIGEST").is_empty());
        let text = "\n11 1764.000000005 {\"config\": {\"digest\": \"c\", \"size\": 1}, \"layers\": [{\"digest\": \"l\", \"size\": 2}]}\n22 1.0 no\n";
        let manifest = Manifest { written: 1_764_000_000_005, blobs: vec![("c".into(), 1), ("l".into(), 2)] };
        assert_eq!(parse(text), [("sha256:11".to_owned(), manifest)].into());
    }
}
