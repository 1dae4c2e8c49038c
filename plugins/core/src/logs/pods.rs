//! The logs of all containers of all pods of some scopes, now and in future.

use super::follow::{Beginning, classify, follow};
use super::happenings::{ends, of_event, watch_events};
use super::instance::{Observed, PodState};
use super::on_node::NodeEnd;
use super::plan::{Action, ContainerKey, plan};
use super::queue::{Lane, Lanes, Output};
use super::read::unreachable;
use super::scope::Scope;
use super::spill::Room;
use super::watching::{News, PodView, watch};
use super::ways::{OnNode, Ways, await_end};
use super::{LogEvent, LogOptions, LogsError, Origin, Outlet, Source, order, spill};
use crate::args::Via;
use crate::error::CommandError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;

/// So often may a reader hand on what came before the disk is used.
const WAITING: usize = 4;

/// How long lines of the time before `until` may take to come.
const LATEST: Duration = Duration::from_secs(2);

/// Follows every container of every pod of the scopes, now and in future, until
/// nobody listens or `until` is past. Dropping the future ends all of it.
///
/// # Errors
/// When the API server refuses all of it. All other failures are tried again.
pub async fn follow_pods(scopes: &[Scope], options: &LogOptions, outlet: &Outlet) -> Result<(), LogsError> {
    let events_tx = &outlet.events_tx;
    let (news_tx, mut news_rx) = mpsc::channel(64);
    let mut watches = JoinSet::new();
    for (index, scope) in scopes.iter().enumerate() {
        watches.spawn(watch(index, scope.clone(), news_tx.clone()));
        if options.events {
            watches.spawn(watch_events(index, scope.clone(), news_tx.clone()));
        }
    }
    drop(news_tx);
    let (lanes, items_rx) = Lanes::new(outlet.held_tx.clone());
    let mut merging = JoinSet::new();
    merging.spawn(order::run(items_rx, events_tx.clone(), options.window));
    let mut followers = Followers {
        scopes,
        views: scopes.iter().map(|_| View::default()).collect(),
        said: lanes.open(false),
        ways: Ways::new(options.clone(), lanes, true),
        known: HashMap::new(),
        tasks: JoinSet::new(),
        is_settled: false,
        said_no_pods: false,
        said_ends: HashSet::new(),
    };
    let end = sleep_until(options.until);
    tokio::pin!(end);
    loop {
        tokio::select! {
            news = news_rx.recv() => match news {
                Some(news) => followers.take(news).await?,
                // The watches end only when they are refused, which is said before.
                None => break,
            },
            Some(ended) = followers.tasks.join_next() => followers.ended(ended?).await?,
            () = &mut end => break,
            () = events_tx.closed() => return Ok(()),
        }
    }
    // What has come is still put in order.
    drop(followers);
    while merging.join_next().await.is_some() {}
    Ok(())
}

async fn sleep_until(until: Option<Timestamp>) {
    let Some(until) = until else { return std::future::pending().await };
    // Of the wall clock, which may be set meanwhile.
    while Timestamp::now() < until {
        let left = Timestamp::now().duration_until(until).unsigned_abs();
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
    tokio::time::sleep(LATEST).await;
}

/// The pods of one scope, by uid.
#[derive(Debug, Default)]
struct View {
    pods: BTreeMap<String, Known>,
    /// The list that is being received.
    listing: BTreeMap<String, Known>,
    is_listed: bool,
    is_interrupted: bool,
    is_refused: bool,
}

#[derive(Debug)]
struct Known {
    pod: PodView,
    /// Whether it is what is looked for, by now.
    is_wanted: bool,
}

/// A reader that was started.
struct Follower {
    observed_tx: channel::Sender<Observed>,
    is_gone: bool,
    /// All that is wanted was read, or nothing can be.
    has_ended: bool,
    has_failed: bool,
}

/// Of pods in several clusters.
type Key = (usize, ContainerKey);

struct Followers<'a> {
    scopes: &'a [Scope],
    views: Vec<View>,
    /// The lane of what is said about no container.
    said: Lane,
    ways: Ways,
    known: HashMap<Key, Follower>,
    tasks: JoinSet<(Key, Result<(), LogsError>)>,
    /// Whether all scopes were listed, or can't be: what is there is read together.
    is_settled: bool,
    said_no_pods: bool,
    /// The ends of containers that are known, by pod.
    said_ends: HashSet<(String, String)>,
}

impl Followers<'_> {
    async fn take(&mut self, news: News) -> Result<(), LogsError> {
        let mut beginning = Beginning::First;
        match news {
            News::Refused(index, error) => {
                let error = classify(error, format!("watch the pods of {}", self.scopes[index].describe()));
                self.views[index].is_refused = true;
                if self.views.iter().all(|view| view.is_refused) {
                    return Err(error);
                }
                self.say(LogEvent::Failed(self.scopes[index].describe(), Arc::new(CommandError::from(error)))).await;
            }
            News::Interrupted(index, reason) => {
                if !std::mem::replace(&mut self.views[index].is_interrupted, true) {
                    self.say(LogEvent::Interrupted(Origin::Watch(index), reason)).await;
                }
            }
            News::Happened(index, event) => {
                let uid = event.involved_object.uid.clone().unwrap_or_default();
                if self.views[index].pods.get(&uid).is_some_and(|known| known.is_wanted) {
                    self.say(LogEvent::Happened(of_event(&event, Timestamp::now()))).await;
                }
                return Ok(());
            }
            News::EventsRefused(index, error) => {
                let what = format!("watch the events of {}", self.scopes[index].describe());
                let error = Arc::new(CommandError::from(classify(error, what)));
                self.say(LogEvent::Failed("the cluster's events".into(), error)).await;
                return Ok(());
            }
            News::Event(index, event) => {
                let was_listed = self.views[index].is_listed;
                if self.ways.options.events {
                    self.tell_ends(&event).await;
                }
                if !self.take_event(index, *event).await {
                    return Ok(());
                }
                // What is in the first list was there before.
                if !was_listed {
                    beginning = Beginning::Newest;
                }
            }
        }
        let was_settled = self.is_settled;
        self.is_settled |= self.views.iter().all(|view| view.is_listed || view.is_refused || view.is_interrupted);
        if !was_settled {
            beginning = Beginning::Newest;
        }
        if self.is_settled {
            self.reconcile(beginning).await;
        }
        Ok(())
    }

    /// Tells how containers ended, unless that was so from the start.
    async fn tell_ends(&mut self, event: &watcher::Event<Pod>) {
        let (pod, is_new) = match event {
            watcher::Event::Apply(pod) => (pod, true),
            watcher::Event::InitApply(pod) => (pod, self.is_settled),
            watcher::Event::Delete(pod) => {
                let uid = pod.uid().unwrap_or_default();
                self.said_ends.retain(|(known, _)| *known != uid);
                return;
            }
            _ => return,
        };
        if !self.ways.options.choice.wants_pod(pod) {
            return;
        }
        for (key, happening) in ends(pod, Timestamp::now()) {
            if self.said_ends.insert((pod.uid().unwrap_or_default(), key)) && is_new {
                self.say(LogEvent::Happened(happening)).await;
            }
        }
    }

    /// Notes an event; false when more of the same list is to come.
    async fn take_event(&mut self, index: usize, event: watcher::Event<Pod>) -> bool {
        let context = self.scopes[index].place.context.as_ref();
        let choice = &self.ways.options.choice;
        let known = |pod: &_| Known { pod: PodView::of(pod, context), is_wanted: choice.wants_pod(pod) };
        let view = &mut self.views[index];
        match event {
            watcher::Event::Init => {
                view.listing.clear();
                return false;
            }
            watcher::Event::InitApply(pod) => {
                view.listing.insert(pod.uid().unwrap_or_default(), known(&pod));
                return false;
            }
            watcher::Event::InitDone => {
                view.pods = std::mem::take(&mut view.listing);
                view.is_listed = true;
                if std::mem::take(&mut view.is_interrupted) {
                    self.say(LogEvent::Restored(Origin::Watch(index))).await;
                }
            }
            watcher::Event::Apply(pod) => {
                view.pods.insert(pod.uid().unwrap_or_default(), known(&pod));
            }
            watcher::Event::Delete(pod) => {
                view.pods.remove(&pod.uid().unwrap_or_default());
            }
        }
        true
    }

    /// Starts, tells and ends readers, as the pods are now.
    async fn reconcile(&mut self, beginning: Beginning) {
        let mut observed: BTreeMap<Key, Observed> = BTreeMap::new();
        let mut places = HashMap::new();
        for (index, view) in self.views.iter().enumerate() {
            let place = Arc::as_ptr(&self.scopes[index].place) as usize;
            for (uid, known) in &view.pods {
                for container in &known.pod.containers {
                    let key = (place, ContainerKey { uid: uid.clone(), container: container.name.clone() });
                    // One that is read stays so, whatever becomes of its state.
                    let is_wanted = known.is_wanted && self.ways.options.choice.wants(container);
                    if is_wanted || self.known.contains_key(&key) {
                        observed.insert(key.clone(), container.observed.clone());
                        places.entry(key).or_insert(index);
                    }
                }
            }
        }
        let is_listed = self.views.iter().all(|view| view.is_listed || view.is_refused);
        if observed.is_empty() && is_listed && !self.said_no_pods {
            self.said_no_pods = true;
            self.say(LogEvent::NoPods).await;
        }
        self.said_no_pods &= observed.is_empty();
        // What is there at first leaves together.
        let gate = self.ways.lane(beginning);
        let running: BTreeSet<Key> = self.known.iter().filter(|(_, follower)| !follower.is_gone).map(|(key, _)| key.clone()).collect();
        for action in plan(&observed, &running) {
            match action {
                Action::Start(key) => {
                    if let (Some(index), Some(state)) = (places.get(&key), observed.get(&key)) {
                        self.start(*index, key, state.clone(), beginning);
                    }
                }
                Action::Update(key) => {
                    if let (Some(follower), Some(state)) = (self.known.get(&key), observed.get(&key)) {
                        follower.observed_tx.send_if_modified(|known| {
                            let is_new = known != state;
                            known.clone_from(state);
                            is_new
                        });
                    }
                }
                Action::End(key) => {
                    if self.known.get(&key).is_some_and(|follower| follower.has_ended) {
                        self.known.remove(&key);
                    } else if let Some(follower) = self.known.get_mut(&key) {
                        // The sender lives on until the reader is done.
                        follower.is_gone = true;
                        follower.observed_tx.send_modify(|known| known.pod = PodState::Gone);
                    }
                }
            }
        }
        self.ways.begin();
        drop(gate);
    }

    fn start(&mut self, index: usize, key: Key, state: Observed, beginning: Beginning) {
        let scope = &self.scopes[index];
        let Some(known) = self.views[index].pods.get(&key.1.uid) else { return };
        let source = known.pod.source(&key.1.container);
        let request = self.ways.request(&known.pod.folder, &key.1.container, beginning, &state);
        let (observed_tx, observed_rx) = channel::channel(state);
        let (options, turns, lanes) = (self.ways.options.clone(), self.ways.turns.clone(), self.ways.lanes());
        let (client, node_name) = (scope.place.client.clone(), known.pod.node.clone());
        let (node, why) = self.ways.node(&scope.place, node_name.as_deref());
        tracing::info!(
            pod = source.pod,
            container = source.container,
            way = if node.is_some() { "node" } else { "api" },
            why,
            "reading a log"
        );
        let its_key = key.clone();
        let follower = Work { client, source: Arc::clone(&source), observed_rx, beginning, options, turns };
        match node {
            Some(node) => {
                let (id, ended_rx) = node.open(request, source);
                let on_node = OnNode { ended_rx, finisher: node.finisher(id) };
                self.tasks.spawn(async move { (its_key, follower.follow_on_node(on_node, lanes).await) });
            }
            None if follower.options.via == Via::Node => {
                self.tasks.spawn(async move { (its_key, Err(unreachable(&source, why))) });
            }
            None => {
                let lane = self.ways.lane(beginning);
                self.tasks.spawn(async move { (its_key, follower.follow_by_api(lane).await) });
            }
        }
        self.known.insert(key, Follower { observed_tx, is_gone: false, has_ended: false, has_failed: false });
    }

    /// A reader ended: its pod is gone, or it can't be read.
    async fn ended(&mut self, (key, outcome): (Key, Result<(), LogsError>)) -> Result<(), LogsError> {
        match self.known.get_mut(&key) {
            Some(follower) if !follower.is_gone => {
                follower.has_ended = true;
                follower.has_failed = outcome.is_err();
            }
            _ => drop(self.known.remove(&key)),
        }
        let Err(error) = outcome else { return Ok(()) };
        if !self.known.is_empty() && self.known.values().all(|follower| follower.has_failed) {
            return Err(error);
        }
        // The rest goes on.
        let what = match &error {
            LogsError::Node { what, .. } => what.clone(),
            _ => key.1.container,
        };
        self.say(LogEvent::Failed(what, Arc::new(CommandError::from(error)))).await;
        Ok(())
    }

    async fn say(&self, event: LogEvent) {
        // That nobody listens is noticed by the loop.
        let _ = self.said.send(vec![event]).await;
    }
}

/// What a reader needs.
struct Work {
    client: kube::Client,
    source: Arc<Source>,
    observed_rx: channel::Receiver<Observed>,
    beginning: Beginning,
    options: LogOptions,
    turns: super::turns::Turns,
}

impl Work {
    async fn follow_by_api(self, lane: Lane) -> Result<(), LogsError> {
        let Self { client, source, observed_rx, beginning, options, turns } = self;
        let (said_tx, said_rx) = mpsc::channel(WAITING);
        let room = Room { limit: options.held_limit, has_history: beginning == Beginning::Newest && options.window.is_some() };
        let passing = spill::run(Arc::clone(&source), said_rx, lane, room);
        let reading = follow(client, source, observed_rx, beginning, options, Output::Spill(said_tx), turns);
        let (outcome, ()) = tokio::join!(reading, passing);
        outcome
    }

    async fn follow_on_node(mut self, on_node: OnNode, lanes: Lanes) -> Result<(), LogsError> {
        let (reason, hold) = match await_end(on_node, &mut self.observed_rx).await {
            NodeEnd::Read => return Ok(()),
            NodeEnd::Missing(reason) => (reason, None),
            NodeEnd::Unavailable(reason, hold) => (reason, hold),
        };
        if self.options.via == Via::Node {
            return Err(unreachable(&self.source, &reason));
        }
        tracing::info!(pod = self.source.pod, container = self.source.container, reason, "reading the log through the API instead");
        let lane = lanes.open(self.beginning == Beginning::Newest);
        drop(hold);
        self.follow_by_api(lane).await
    }
}
