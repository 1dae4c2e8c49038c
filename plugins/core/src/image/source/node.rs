//! An image that a node's containerd has. Some nodes keep only the unpacked files
//! of a layer: that is enough for whoever has the base already.

use super::{Documents, choose};
use crate::deliver::containerd::Containerd;
use crate::image::base::BaseImage;
use crate::image::{ImageError, Layer, Receiving, Store, Supplier, Unobtainable, digest};
use crate::node::Node;
use futures::future::BoxFuture;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

pub(super) async fn base(cache: &Path, shown: &str, name: &str, nodes: &[Node], wanted: &str) -> Result<BaseImage, ImageError> {
    let refused = |reason: String| ImageError::Base { name: shown.to_owned(), reason };
    if nodes.is_empty() {
        return Err(refused("no node of the cluster can be reached from here".to_owned()));
    }
    let store = Store::open(cache)?;
    let supplier: Arc<dyn Supplier> = Arc::new(NodeSupplier { nodes: nodes.to_vec() });
    for node in nodes {
        if let Some(base) = on_node(&store, shown, name, &Containerd::of(node), wanted, &supplier).await? {
            return Ok(base);
        }
    }
    Err(refused(format!("no node of the cluster has {name}; see `ctr --namespace k8s.io images ls` there")))
}

/// The base, if this node has it.
pub(crate) async fn on_node(
    store: &Store,
    shown: &str,
    name: &str,
    containerd: &Containerd<'_>,
    wanted: &str,
    supplier: &Arc<dyn Supplier>,
) -> Result<Option<BaseImage>, ImageError> {
    let unreachable = |source: Unobtainable| ImageError::Unreachable { name: shown.to_owned(), source };
    let Some(target) = containerd.target(name).await.map_err(|error| unreachable(error.into()))? else { return Ok(None) };
    let mut manifest = document(store, containerd, &target).await.map_err(unreachable)?;
    if let Some(chosen) = choose(shown, &manifest, wanted)? {
        manifest = document(store, containerd, &chosen).await.map_err(unreachable)?;
    }
    let config = super::config_of(shown, &manifest)?;
    let config = document(store, containerd, &config).await.map_err(unreachable)?;
    Documents { config: &config, manifest: &manifest }.base(store, shown, wanted, supplier).map(Some)
}

/// A document of the node's content, from the cache where it has it.
async fn document(store: &Store, containerd: &Containerd<'_>, of: &str) -> Result<Vec<u8>, Unobtainable> {
    if let Some(content) = store.document(of) {
        return Ok(content);
    }
    let mut content = Vec::new();
    containerd.content(of, &mut content).await?;
    if digest(&content) != of {
        return Err(format!("{of} of the node is damaged").into());
    }
    store.keep_document(&content);
    Ok(content)
}

#[derive(Debug)]
struct NodeSupplier {
    nodes: Vec<Node>,
}

impl Supplier for NodeSupplier {
    fn supply<'a>(&'a self, layer: &'a Layer, to: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>> {
        Box::pin(async move {
            let mut last: Unobtainable = "no node has it".into();
            for node in &self.nodes {
                let mut counting = Counting { out: to, count: 0 };
                match Containerd::of(node).content(&layer.digest, &mut counting).await {
                    Ok(()) => return Ok(()),
                    // What has begun can't be taken back.
                    Err(error) if counting.count > 0 => return Err(error.into()),
                    Err(error) => last = error.into(),
                }
            }
            Err(last)
        })
    }

    fn describe(&self) -> String {
        "the cluster's nodes".to_owned()
    }
}

struct Counting<'a> {
    out: &'a mut Receiving,
    count: usize,
}

impl Write for Counting<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.out.write(buffer)?;
        self.count += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
