//! What is said about a load.

use devloop_core::CommandError;
use devloop_core::deliver::{Delivery, NodeDelivery};
use devloop_core::ui::human_bytes;
use serde::Serialize;

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoadReport {
    /// The images' names, spelled out.
    images: Vec<String>,
    nodes: Vec<NodeReport>,
    /// Why nodes failed, in their order.
    #[serde(skip)]
    errors: Vec<CommandError>,
}

/// What was done on one node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeReport {
    name: String,
    sent_bytes: u64,
    sent_layers: usize,
    total_layers: usize,
    already_present: bool,
    ms: u64,
    /// Why the images aren't there; absent when they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl LoadReport {
    pub(super) fn new(images: Vec<String>, outcomes: Vec<NodeDelivery>) -> Self {
        let mut errors = Vec::new();
        let mut nodes = Vec::with_capacity(outcomes.len());
        for node in outcomes {
            nodes.push(match node.outcome {
                Ok(delivery) => NodeReport::of(node.node, &delivery),
                Err(error) => {
                    let failed = CommandError::from(error);
                    let error = Some(failed.chain().join(": "));
                    errors.push(CommandError::new(format!("node {} does not have the image", node.node)).caused_by(failed));
                    NodeReport { name: node.node, sent_bytes: 0, sent_layers: 0, total_layers: 0, already_present: false, ms: 0, error }
                }
            });
        }
        Self { images, nodes, errors }
    }

    /// For people; nothing when no node has the image.
    pub(super) fn summary(&self) -> Option<String> {
        let fine: Vec<&NodeReport> = self.nodes.iter().filter(|node| node.error.is_none()).collect();
        let images = self.images.join(", ");
        let place = match (fine.len(), self.nodes.len()) {
            (0, _) => return None,
            (1, 1) => "the node".to_owned(),
            (some, all) if some == all => format!("all {all} nodes"),
            (some, all) => format!("{some} of {all} nodes"),
        };
        if fine.iter().all(|node| node.already_present) {
            return Some(format!("{images} is on {place} already"));
        }
        let bytes: u64 = fine.iter().map(|node| node.sent_bytes).sum();
        let layers = fine.iter().map(|node| node.sent_layers).max().unwrap_or_default();
        let total = fine.iter().map(|node| node.total_layers).max().unwrap_or_default();
        Some(format!("Loaded {images} onto {place}: {layers} of {total} layers, {}", human_bytes(bytes)))
    }

    /// What the command ends with: the first failure, and the names of the rest.
    pub(super) fn into_error(mut self) -> Option<CommandError> {
        if self.errors.is_empty() {
            return None;
        }
        let first = self.errors.remove(0);
        let others = self.errors.into_iter().map(|error| error.chain().join(": "));
        Some(others.fold(first, |first, other| first.with_hint(format!("also, {other}"))))
    }
}

impl NodeReport {
    fn of(name: String, delivery: &Delivery) -> Self {
        let &Delivery { sent_bytes, sent_layers, total_layers, already_present, duration } = delivery;
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self { name, sent_bytes, sent_layers, total_layers, already_present, ms, error: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::deliver::DeliverError;
    use std::time::Duration;

    fn report() -> LoadReport {
        let delivery = Delivery {
            sent_bytes: 20_974_592,
            sent_layers: 1,
            total_layers: 2,
            already_present: false,
            duration: Duration::from_millis(310),
        };
        let full = DeliverError::DiskFull { node: "kind node \"dev-worker\"".into() };
        let nodes = vec![
            NodeDelivery { node: "dev-control-plane".into(), outcome: Ok(delivery) },
            NodeDelivery { node: "dev-worker".into(), outcome: Err(full) },
        ];
        LoadReport::new(vec!["docker.io/library/shop:dev".into()], nodes)
    }

    #[test]
    fn a_load_is_told_to_people_and_tools() {
        insta::assert_snapshot!(report().summary().unwrap(), @"Loaded docker.io/library/shop:dev onto 1 of 2 nodes: 1 of 2 layers, 20.0 MiB");
        insta::assert_snapshot!(serde_json::to_string_pretty(&report()).unwrap(), @r#"
        {
          "images": [
            "docker.io/library/shop:dev"
          ],
          "nodes": [
            {
              "name": "dev-control-plane",
              "sentBytes": 20974592,
              "sentLayers": 1,
              "totalLayers": 2,
              "alreadyPresent": false,
              "ms": 310
            },
            {
              "name": "dev-worker",
              "sentBytes": 0,
              "sentLayers": 0,
              "totalLayers": 0,
              "alreadyPresent": false,
              "ms": 0,
              "error": "no space left on the disk of the kind node \"dev-worker\""
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_node_that_failed_is_named() {
        let error = report().into_error().unwrap();
        assert_eq!(error.chain(), ["node dev-worker does not have the image", "no space left on the disk of the kind node \"dev-worker\""]);
        assert_eq!(error.status().code(), 1);
    }
}
