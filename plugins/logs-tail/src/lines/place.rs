//! Where a record comes from, as filters and outputs see it. Pure.

use devloop_core::logs::Source;
use std::collections::BTreeMap;

/// A container and what is known of it. What isn't known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The kubeconfig context, where there are several.
    pub(crate) context: Option<String>,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) node: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether the pod has other containers, too.
    pub(crate) has_siblings: bool,
}

impl From<&Source> for Place {
    fn from(source: &Source) -> Self {
        Self {
            namespace: source.namespace.clone(),
            pod: source.pod.clone(),
            container: source.container.clone(),
            context: source.context.clone(),
            node: source.node.clone(),
            labels: source.labels.clone(),
            annotations: source.annotations.clone(),
            has_siblings: source.has_siblings,
        }
    }
}
