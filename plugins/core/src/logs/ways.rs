//! The way to each container's log: its node, where that can be reached, or the API.

use super::follow::Beginning;
use super::instance::{InstanceState, Observed, PodState};
use super::on_node::{Finisher, NodeEnd, NodeLogs};
use super::order::nanoseconds;
use super::queue::{Lane, Lanes};
use super::scope::Place;
use super::turns::Turns;
use super::{LogOptions, Since};
use crate::args::Via;
use devloop_agent::protocol::ByteString;
use devloop_agent::protocol::logs::{Instances, LOGS_VERSION, LogSettings, OpenLog, Since as NodeSince};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// Where the kubelet has the logs of pods, unless it is told otherwise.
const ROOT: &str = "/var/log/pods";

/// So many bytes of lines may be on their way from a node: enough that it needn't
/// wait while they are taken.
const CREDIT: u64 = 1 << 20;

/// A node of one of the clusters.
type NodeKey = (usize, String);

/// Opens logs on nodes, and lanes for those that are read through the API.
pub(super) struct Ways {
    pub(super) options: LogOptions,
    pub(super) turns: Turns,
    lanes: Lanes,
    follows: bool,
    nodes: HashMap<NodeKey, NodeLogs>,
}

/// A log that was opened on its node.
pub(super) struct OnNode {
    pub(super) ended_rx: oneshot::Receiver<NodeEnd>,
    pub(super) finisher: Finisher,
}

impl Ways {
    pub(super) fn new(options: LogOptions, lanes: Lanes, follows: bool) -> Self {
        let turns = Turns::new(options.connections);
        Self { options, turns, lanes, follows, nodes: HashMap::new() }
    }

    /// A lane for a container that is read through the API.
    pub(super) fn lane(&self, beginning: Beginning) -> Lane {
        self.lanes.open(beginning == Beginning::Newest)
    }

    pub(super) fn lanes(&self) -> Lanes {
        self.lanes.clone()
    }

    /// The logs of a pod's node, if that is the way; and why it is or isn't.
    pub(super) fn node(&mut self, place: &Arc<Place>, name: Option<&str>) -> (Option<&mut NodeLogs>, &'static str) {
        let node = place.nodes.iter().find(|node| Some(node.name()) == name);
        match (self.options.via, node) {
            (Via::Api, _) => (None, "it was asked for"),
            (_, None) => (None, "its node is not on this machine"),
            (via, Some(node)) => {
                let key = (Arc::as_ptr(place) as usize, node.name().to_owned());
                let (settings, lanes) = (self.settings(), &self.lanes);
                let logs = self.nodes.entry(key).or_insert_with(|| NodeLogs::new(node.clone(), settings, lanes.open(true)));
                (Some(logs), if via == Via::Node { "it was asked for" } else { "its node is on this machine" })
            }
        }
    }

    /// What was opened on nodes is read from now on.
    pub(super) fn begin(&self) {
        self.nodes.values().for_each(NodeLogs::begin);
    }

    fn settings(&self) -> LogSettings {
        LogSettings {
            version: LOGS_VERSION,
            root: ByteString::from(ROOT),
            follow: self.follows,
            ordered: self.options.window.is_some(),
            held_limit: self.options.held_limit,
            credit: CREDIT,
            include: self.options.filter.include.patterns().to_vec(),
            exclude: self.options.filter.exclude.patterns().to_vec(),
        }
    }

    /// What the node is asked for; the same as the API is.
    pub(super) fn request(&self, folder: &str, container: &str, beginning: Beginning, observed: &Observed) -> OpenLog {
        let options = &self.options;
        let instances = match beginning {
            Beginning::First => Instances::FromFirst,
            Beginning::Newest if options.previous => Instances::Only(previous(observed)),
            Beginning::Newest if options.all => Instances::All,
            Beginning::Newest => Instances::Newest,
        };
        let is_limited = beginning == Beginning::Newest;
        let since = options.since.filter(|_| is_limited).map(|since| match since {
            Since::Ago(duration) => NodeSince::Ago(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
            Since::At(time) => NodeSince::At(nanoseconds(time)),
        });
        OpenLog {
            id: 0,
            folder: folder.to_owned(),
            container: container.to_owned(),
            instances,
            rotated: options.all,
            tail: options.tail.filter(|_| is_limited).map(u64::from),
            since,
            until: options.until.map(nanoseconds),
            head: options.head,
            resume: None,
        }
    }
}

/// The number of the instance that `kubectl logs --previous` means.
fn previous(observed: &Observed) -> u32 {
    match observed.latest {
        Some(latest) if latest.state == InstanceState::Superseded => latest.number,
        Some(latest) => latest.number.saturating_sub(1),
        None => 0,
    }
}

/// Waits for the end of a log that is read on its node, and tells the node when
/// the pod is gone.
pub(super) async fn await_end(on_node: OnNode, observed_rx: &mut watch::Receiver<Observed>) -> NodeEnd {
    let OnNode { mut ended_rx, finisher } = on_node;
    let gone = async {
        if observed_rx.wait_for(|observed| observed.pod == PodState::Gone).await.is_ok() {
            finisher.finish();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = &mut ended_rx => end.unwrap_or_else(|_| NodeEnd::Unavailable("the reader of its node ended".to_owned(), None)),
        () = gone => NodeEnd::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::super::instance::Instance;
    use super::*;

    #[test]
    fn the_node_is_asked_for_what_the_api_would_be() {
        let observed = |state| Observed { latest: Some(Instance { number: 3, state }), has_previous: true, pod: PodState::Present };
        let request = |options: LogOptions, beginning, state| {
            Ways::new(options, Lanes::new(tokio::sync::mpsc::unbounded_channel().0).0, true).request(
                "ns_pod_uid",
                "app",
                beginning,
                &observed(state),
            )
        };
        use InstanceState::{Running, Superseded};
        let options = LogOptions { tail: Some(5), since: Some(Since::Ago(jiff::SignedDuration::from_secs(1))), ..LogOptions::default() };
        let newest = request(options.clone(), Beginning::Newest, Running);
        assert_eq!((newest.instances, newest.tail, newest.since), (Instances::Newest, Some(5), Some(NodeSince::Ago(1_000_000_000))));
        // Limits are for what was there before.
        let first = request(options, Beginning::First, Running);
        assert_eq!((first.instances, first.tail, first.since), (Instances::FromFirst, None, None));
        let before = LogOptions { previous: true, ..LogOptions::default() };
        assert_eq!(request(before.clone(), Beginning::Newest, Running).instances, Instances::Only(2));
        assert_eq!(request(before, Beginning::Newest, Superseded).instances, Instances::Only(3));
    }
}
