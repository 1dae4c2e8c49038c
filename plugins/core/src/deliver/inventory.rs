//! The images that nodes have from devloop, and taking them away again.

use super::DeliverError;
use super::containerd::{Containerd, PRELUDE};
use crate::image::REGISTRY;
use crate::node::Node;
use futures::future::join_all;
use serde::Deserialize;
use std::collections::BTreeMap;

/// An image that devloop brought to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// The name by which it is known there.
    pub name: String,
    /// Of its manifest.
    pub digest: String,
    /// The image id: the digest of its configuration.
    pub id: String,
    /// Of its layers, those of a shared base included.
    pub bytes: u64,
    /// When it came, in seconds since 1970, where the node can tell.
    pub delivered: Option<i64>,
}

/// What one node has.
#[derive(Debug)]
pub struct NodeInventory {
    /// The node's name.
    pub node: String,
    /// What it has from devloop, by name; or why that is not known.
    pub images: Result<Vec<StoredImage>, DeliverError>,
}

/// All names that begin with `$2` or have a digest of `$3...`; of each manifest
/// the time it came and its text.
const LIST: &str = r#"
prefix=$2
shift 2
root=$(sed -n 's/^ *root *= *["'\'']\(.*\)["'\''].*/\1/p' /etc/containerd/config.toml 2>/dev/null)
root=${root%%
*}
table=$(ctr images ls 2>/dev/null) || [ -n "$table" ] || exit 1
seen=
while read -r name type digest rest; do
    case $name in
        "$prefix"*) ;;
        sha256:* | REF) continue ;;
        *) case " $* " in *" $digest "*) ;; *) continue ;; esac ;;
    esac
    echo "=image $name $digest"
    case $seen in *"$digest"*) continue ;; esac
    seen="$seen $digest"
    echo "=manifest $digest $(stat -c %Y "${root:-/var/lib/containerd}/io.containerd.content.v1.content/blobs/sha256/${digest#sha256:}" 2>/dev/null)"
    ctr content get "$digest" 2>/dev/null </dev/null
    echo
done <<END
$table
END
"#;

/// Removes the names `$2...`, and the name that is an image's id once no other
/// leads to the same image: the kubelet's part of containerd knows it by that.
const REMOVE: &str = r#"
shift
before=$(ctr images ls 2>/dev/null)
for name; do
    digest=$(printf '%s\n' "$before" | while read -r known type digest rest; do [ "$known" != "$name" ] || echo "$digest"; done)
    [ -n "$digest" ] || continue
    ctr images rm "$name" >/dev/null || exit 1
    ids= others=
    while read -r known type target rest; do
        [ "$target" = "$digest" ] || continue
        case $known in sha256:*) ids="$ids $known" ;; *) others=1 ;; esac
    done <<END
$(ctr images ls 2>/dev/null)
END
    [ -n "$others" ] || [ -z "$ids" ] || ctr images rm --sync $ids >/dev/null || exit 1
done
"#;

/// What nodes have from devloop: images under the name that only devloop gives,
/// and those with the digest of a manifest that devloop has pushed for them.
pub async fn list(nodes: &[Node], pushed: &[String]) -> Vec<NodeInventory> {
    let containerds: Vec<Containerd<'_>> = nodes.iter().map(Containerd::of).collect();
    join_all(
        containerds.iter().map(|containerd| async {
            NodeInventory { node: containerd.node().name().to_owned(), images: list_on(containerd, pushed).await }
        }),
    )
    .await
}

/// Takes images away from a node, by their names. Layers that others use stay.
///
/// # Errors
/// [`DeliverError`]; some may be gone then.
pub async fn remove(node: &Node, names: &[String]) -> Result<(), DeliverError> {
    remove_from(&Containerd::of(node), names).await
}

pub(super) async fn list_on(containerd: &Containerd<'_>, pushed: &[String]) -> Result<Vec<StoredImage>, DeliverError> {
    let mut arguments = vec![format!("{REGISTRY}/")];
    arguments.extend(pushed.iter().cloned());
    let answer = containerd.run("list images", &[PRELUDE, LIST].concat(), &arguments).await?;
    Ok(read_answer(&answer))
}

pub(super) async fn remove_from(containerd: &Containerd<'_>, names: &[String]) -> Result<(), DeliverError> {
    containerd.run("remove images", &[PRELUDE, REMOVE].concat(), names).await.map(|_| ())
}

/// What counts of a manifest.
#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

/// Reads what [`LIST`] prints. Pure. An image whose manifest is gone has neither
/// id nor size, and is there all the same.
fn read_answer(answer: &str) -> Vec<StoredImage> {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut manifests: BTreeMap<String, (Option<i64>, String)> = BTreeMap::new();
    let mut current = None;
    for line in answer.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["=image", name, digest] => names.push((name.to_owned(), digest.to_owned())),
            ["=manifest", digest, ref rest @ ..] => {
                let time = rest.first().and_then(|time| time.parse().ok());
                manifests.insert(digest.to_owned(), (time, String::new()));
                current = Some(digest.to_owned());
            }
            _ => {
                if let Some((_, text)) = current.as_ref().and_then(|digest| manifests.get_mut(digest)) {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    let mut images: Vec<StoredImage> = names
        .into_iter()
        .map(|(name, digest)| {
            let (delivered, text) = manifests.get(&digest).cloned().unwrap_or_default();
            let manifest = serde_json::from_str::<Manifest>(&text).ok();
            let bytes = manifest.as_ref().map_or(0, |manifest| manifest.layers.iter().map(|layer| layer.size).sum());
            StoredImage { name, digest, id: manifest.map(|manifest| manifest.config.digest).unwrap_or_default(), bytes, delivered }
        })
        .collect();
    images.sort_by(|one, other| one.name.cmp(&other.name));
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_names_times_and_manifests() {
        let answer = "=image devloop.local/b:1 sha256:m\n=manifest sha256:m 1700000000\n{\"config\": {\"digest\": \"sha256:c\", \"size\": 5},\n\
                      \"layers\": [{\"digest\": \"sha256:l\", \"size\": 10}, {\"digest\": \"sha256:k\", \"size\": 7}]}\n\n\
                      =image devloop.local/a:1 sha256:m\n=image devloop.local/c:1 sha256:gone\n=manifest sha256:gone \n\n";
        let image = |name: &str| StoredImage {
            name: name.into(),
            digest: "sha256:m".into(),
            id: "sha256:c".into(),
            bytes: 17,
            delivered: Some(1_700_000_000),
        };
        let gone =
            StoredImage { name: "devloop.local/c:1".into(), digest: "sha256:gone".into(), id: String::new(), bytes: 0, delivered: None };
        assert_eq!(read_answer(answer), [image("devloop.local/a:1"), image("devloop.local/b:1"), gone]);
        assert_eq!(read_answer(""), []);
    }
}
