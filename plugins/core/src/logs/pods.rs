//! The logs of all containers of all pods of some selections.

use super::follow::{Beginning, Mode, Reader, classify, follow};
use super::instance::{InstanceState, NamedContainer, Observed, PodState, containers};
use super::plan::{Action, ContainerKey, plan};
use super::{LogEvent, LogOptions, LogsError, Origin, Source};
use crate::error::Result;
use crate::target::PodSelection;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Follows every container of every pod of the selections, now and in future,
/// until nobody listens. Dropping the future ends all of it.
///
/// # Errors
/// When the API server refuses. All other failures are tried again.
pub async fn follow_pods(
    client: &Client,
    namespace: &str,
    selections: &[PodSelection],
    options: &LogOptions,
    events_tx: &mpsc::Sender<LogEvent>,
) -> Result<(), LogsError> {
    let (news_tx, mut news_rx) = mpsc::channel(64);
    let mut watches = JoinSet::new();
    for (index, selection) in selections.iter().enumerate() {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        watches.spawn(watch_selection(index, api, selection.watch_config(), news_tx.clone()));
    }
    drop(news_tx);
    let mut followers = Followers {
        client,
        namespace,
        options,
        events_tx,
        selections: selections.iter().map(|_| SelectionView::default()).collect(),
        known: HashMap::new(),
        tasks: JoinSet::new(),
        said_no_pods: false,
    };
    loop {
        tokio::select! {
            news = news_rx.recv() => match news {
                Some(news) => followers.take(news).await?,
                // The watches never end by themselves.
                None => break,
            },
            Some(ended) = followers.tasks.join_next() => {
                followers.known.remove(&ended??);
            }
            () = events_tx.closed() => return Ok(()),
        }
    }
    while let Some(ended) = watches.join_next().await {
        ended?;
    }
    Ok(())
}

/// What [`read_pods`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Pods.
    pub pods: usize,
    /// Containers of theirs that have a log.
    pub containers: usize,
}

/// Reads what there is of the logs of the selections' pods, container by
/// container, and ends.
///
/// # Errors
/// When a log can't be read after several attempts.
pub async fn read_pods(
    client: &Client,
    namespace: &str,
    selections: &[PodSelection],
    options: &LogOptions,
    events_tx: &mpsc::Sender<LogEvent>,
) -> Result<Found> {
    let mut found = Found::default();
    let mut uids = BTreeSet::new();
    for selection in selections {
        for pod in selection.pods(client, namespace).await? {
            if !uids.insert(pod.uid().unwrap_or_default()) {
                continue;
            }
            found.pods += 1;
            let view = PodView::of(&pod);
            for container in view.containers.iter().filter(|container| options.wants(&container.name)) {
                let has_log = if options.previous { has_ended_instance(&container.observed) } else { container.observed.latest.is_some() };
                if !has_log {
                    continue;
                }
                found.containers += 1;
                let source = view.source(namespace, &container.name);
                // Held, so that the reader doesn't take the pod for gone.
                let (_observed_tx, observed_rx) = watch::channel(container.observed.clone());
                let mut reader = Reader::new(client, source, observed_rx, Beginning::Newest, options.clone(), events_tx.clone());
                if options.previous { reader.run_previous().await? } else { reader.run(Mode::Once).await? }
            }
        }
    }
    Ok(found)
}

fn has_ended_instance(observed: &Observed) -> bool {
    observed.has_previous || observed.latest.is_some_and(|latest| latest.state == InstanceState::Superseded)
}

/// What a watch has to say.
enum News {
    Event(usize, Box<watcher::Event<Pod>>),
    Interrupted(usize, String),
    Refused(kube::Error),
}

/// Watches the pods of one selection, for ever.
async fn watch_selection(index: usize, api: Api<Pod>, config: watcher::Config, news_tx: mpsc::Sender<News>) {
    loop {
        let stream = watcher(api.clone(), config.clone()).default_backoff();
        tokio::pin!(stream);
        while let Some(event) = stream.next().await {
            let news = match event {
                Ok(event) => News::Event(index, Box::new(event)),
                Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) => match error {
                    kube::Error::Api(status) if matches!(status.code, 401 | 403) => News::Refused(kube::Error::Api(status)),
                    error => News::Interrupted(index, error.to_string()),
                },
                // The watcher begins anew by itself.
                Err(error) => {
                    tracing::debug!(%error, "pod watch broke");
                    continue;
                }
            };
            let is_interrupted = matches!(news, News::Interrupted(..));
            if news_tx.send(news).await.is_err() {
                return;
            }
            if is_interrupted {
                // The watcher's own back-off goes up to half a minute, and it
                // doesn't tell when a watch works again; a new one does.
                until_answered(&api).await;
                break;
            }
        }
    }
}

/// Waits until the API server answers.
async fn until_answered(api: &Api<Pod>) {
    let mut pause = Duration::from_millis(250);
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(3));
        match api.list(&ListParams::default().limit(1)).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "the API server doesn't answer yet"),
        }
    }
}

/// A pod, as far as logs go.
#[derive(Clone, Debug)]
struct PodView {
    name: String,
    containers: Vec<NamedContainer>,
}

impl PodView {
    fn of(pod: &Pod) -> Self {
        Self { name: pod.name_any(), containers: containers(pod) }
    }

    fn source(&self, namespace: &str, container: &str) -> Arc<Source> {
        Arc::new(Source {
            namespace: namespace.to_owned(),
            pod: self.name.clone(),
            container: container.to_owned(),
            has_siblings: self.containers.len() > 1,
        })
    }
}

/// The pods of one selection, by uid.
#[derive(Debug, Default)]
struct SelectionView {
    pods: BTreeMap<String, PodView>,
    /// The list that is being received.
    listing: BTreeMap<String, PodView>,
    is_listed: bool,
    is_interrupted: bool,
}

/// A reader that was started.
struct Follower {
    observed_tx: watch::Sender<Observed>,
    is_gone: bool,
}

struct Followers<'a> {
    client: &'a Client,
    namespace: &'a str,
    options: &'a LogOptions,
    events_tx: &'a mpsc::Sender<LogEvent>,
    selections: Vec<SelectionView>,
    known: HashMap<ContainerKey, Follower>,
    tasks: JoinSet<Result<ContainerKey, LogsError>>,
    said_no_pods: bool,
}

impl Followers<'_> {
    async fn take(&mut self, news: News) -> Result<(), LogsError> {
        match news {
            News::Refused(error) => return Err(classify(error, format!("watch pods in namespace {:?}", self.namespace))),
            News::Interrupted(index, reason) => {
                if !std::mem::replace(&mut self.selections[index].is_interrupted, true) {
                    self.send(LogEvent::Interrupted(Origin::Watch(index), reason)).await;
                }
            }
            News::Event(index, event) => self.take_event(index, *event).await,
        }
        Ok(())
    }

    async fn take_event(&mut self, index: usize, event: watcher::Event<Pod>) {
        let selection = &mut self.selections[index];
        let mut beginning = Beginning::First;
        match event {
            watcher::Event::Init => {
                selection.listing.clear();
                return;
            }
            watcher::Event::InitApply(pod) => {
                selection.listing.insert(pod.uid().unwrap_or_default(), PodView::of(&pod));
                return;
            }
            watcher::Event::InitDone => {
                selection.pods = std::mem::take(&mut selection.listing);
                if !std::mem::replace(&mut selection.is_listed, true) {
                    beginning = Beginning::Newest;
                }
                if std::mem::take(&mut selection.is_interrupted) {
                    self.send(LogEvent::Restored(Origin::Watch(index))).await;
                }
            }
            watcher::Event::Apply(pod) => {
                selection.pods.insert(pod.uid().unwrap_or_default(), PodView::of(&pod));
            }
            watcher::Event::Delete(pod) => {
                selection.pods.remove(&pod.uid().unwrap_or_default());
            }
        }
        self.reconcile(beginning).await;
    }

    async fn reconcile(&mut self, beginning: Beginning) {
        let mut observed = BTreeMap::new();
        let mut sources = BTreeMap::new();
        for (uid, pod) in self.selections.iter().flat_map(|selection| &selection.pods) {
            for container in pod.containers.iter().filter(|container| self.options.wants(&container.name)) {
                let key = ContainerKey { uid: uid.clone(), container: container.name.clone() };
                sources.entry(key.clone()).or_insert_with(|| pod.source(self.namespace, &container.name));
                observed.insert(key, container.observed.clone());
            }
        }
        if sources.is_empty() && self.selections.iter().all(|selection| selection.is_listed) && !self.said_no_pods {
            self.said_no_pods = true;
            self.send(LogEvent::NoPods).await;
        }
        self.said_no_pods &= sources.is_empty();
        let running = self.known.iter().filter(|(_, follower)| !follower.is_gone).map(|(key, _)| key.clone()).collect();
        for action in plan(&observed, &running) {
            match action {
                Action::Start(key) => {
                    let (Some(source), Some(state)) = (sources.get(&key), observed.get(&key)) else { continue };
                    self.start(key, Arc::clone(source), state.clone(), beginning);
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
                    if let Some(follower) = self.known.get_mut(&key) {
                        // The sender lives on until the reader is done.
                        follower.is_gone = true;
                        follower.observed_tx.send_modify(|known| known.pod = PodState::Gone);
                    }
                }
            }
        }
    }

    fn start(&mut self, key: ContainerKey, source: Arc<Source>, state: Observed, beginning: Beginning) {
        let (observed_tx, observed_rx) = watch::channel(state);
        self.known.insert(key.clone(), Follower { observed_tx, is_gone: false });
        let (client, options, events_tx) = (self.client.clone(), self.options.clone(), self.events_tx.clone());
        self.tasks.spawn(async move { follow(client, source, observed_rx, beginning, options, events_tx).await.map(|()| key) });
    }

    async fn send(&self, event: LogEvent) {
        // That nobody listens is noticed by the loop.
        let _ = self.events_tx.send(event).await;
    }
}
