//! Where the agent for a container works, and why there. Pure.

use crate::pods::RunningContainer;
use devloop_core::CommandError;
use devloop_core::args::Via;

/// A place that has an agent of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A node, for all containers on it.
    Node(String),
    /// A pod, beside one run of one of its containers: when that ends, so does
    /// all that shares its processes.
    Pod {
        pod: String,
        container: String,
        id: String,
        /// Where the pod is: its agent's image may be put there.
        node: Option<String>,
    },
}

/// How places are chosen.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    pub(crate) via: Via,
    /// Names of the nodes that can be reached without the API.
    pub(crate) reachable: Vec<String>,
}

impl Routes {
    /// The place for a container, and the reason for messages.
    ///
    /// # Errors
    /// When the way that was asked for does not lead there.
    pub(crate) fn place(&self, pod: &str, container: &str, running: &RunningContainer) -> Result<(Place, &'static str), CommandError> {
        let node = running.node.as_ref().filter(|node| self.reachable.contains(node));
        let in_pod =
            || Place::Pod { pod: pod.to_owned(), container: container.to_owned(), id: running.id.clone(), node: running.node.clone() };
        match (self.via, node) {
            (Via::Auto, Some(node)) => Ok((Place::Node(node.clone()), "its node is on this machine")),
            (Via::Auto, None) => Ok((in_pod(), "its node is not on this machine")),
            (Via::Node, Some(node)) => Ok((Place::Node(node.clone()), "it was asked for")),
            (Via::Api, _) => Ok((in_pod(), "it was asked for")),
            (Via::Node, None) => {
                let node = running.node.as_deref().unwrap_or("unknown");
                Err(CommandError::new(format!("node {node} of pod {pod} can't be reached without the API"))
                    .with_hint("let the way be chosen (--via auto), or take the API (--via api)"))
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(formatter, "node {node}"),
            Self::Pod { pod, .. } => write!(formatter, "pod {pod}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(node: Option<&str>) -> RunningContainer {
        RunningContainer { id: "containerd://c".to_owned(), pod_uid: String::new(), address: None, node: node.map(str::to_owned) }
    }

    fn place(via: Via, node: Option<&str>) -> Result<Place, CommandError> {
        let routes = Routes { via, reachable: vec!["one".to_owned(), "two".to_owned()] };
        routes.place("web-1", "web", &running(node)).map(|(place, _)| place)
    }

    #[test]
    fn a_pod_goes_by_its_node_where_that_can_be_reached() {
        let in_pod = |node: Option<&str>| {
            let (pod, container, id) = ("web-1".to_owned(), "web".to_owned(), "containerd://c".to_owned());
            Place::Pod { pod, container, id, node: node.map(str::to_owned) }
        };
        assert_eq!(place(Via::Auto, Some("two")).unwrap(), Place::Node("two".to_owned()));
        assert_eq!(place(Via::Auto, Some("three")).unwrap(), in_pod(Some("three")));
        assert_eq!(place(Via::Auto, None).unwrap(), in_pod(None));
        assert_eq!(place(Via::Node, Some("one")).unwrap(), Place::Node("one".to_owned()));
        assert_eq!(place(Via::Api, Some("one")).unwrap(), in_pod(Some("one")));
    }

    #[test]
    fn a_way_that_leads_nowhere_is_not_replaced_by_another() {
        let error = place(Via::Node, Some("three")).unwrap_err();
        insta::assert_snapshot!(devloop_core::ui::render_error(&error), @r"
        Error: node three of pod web-1 can't be reached without the API
        Hint: let the way be chosen (--via auto), or take the API (--via api)
        ");
    }
}
