//! The environments, their API servers, registries and nodes.

use super::{clock, on_node, within};
use crate::doctor::facts::{Api, Cluster, Environment, Known, Reach, Registry};
use crate::provider::Providers;
use crate::request::EnvironmentName;
use devloop_core::cluster::client_config;
use devloop_core::environment::{Directories, Phase};
use devloop_core::registry;
use kube::Client;
use kube::client::Body;
use kube::config::Kubeconfig;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long an engine may take to say what an environment does.
const SNAPSHOT: Duration = Duration::from_millis(700);
/// How long its API may take for an answer: on a busy machine a handshake alone
/// takes a while, and a false alarm is worse than a second.
const API: Duration = Duration::from_millis(1200);
/// How long a connection may take; shorter, so that it is told from an answer
/// that is missing.
const CONNECT: Duration = Duration::from_millis(1100);

pub(super) async fn environments(directories: &Directories) -> Known<Vec<Environment>> {
    let names = directories.environment_names().map_err(|error| error.chain().join(": "))?;
    let mut asked = JoinSet::new();
    for name in names.iter().filter_map(|name| name.parse::<EnvironmentName>().ok()) {
        let directories = directories.clone();
        asked.spawn(async move { environment(&directories, &name).await });
    }
    let mut environments: Vec<Environment> = asked.join_all().await;
    environments.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(environments)
}

async fn environment(directories: &Directories, name: &EnvironmentName) -> Environment {
    let providers = Providers::new(directories);
    let provider = providers.of(name);
    let record = directories.environment(name.as_str()).record().ok().flatten();
    let asked = async {
        match provider.snapshot(name).await {
            Ok(Some(snapshot)) => Ok(snapshot.status.phase),
            Ok(None) => Err("its record is missing".to_owned()),
            Err(error) => Err(error.chain().join(": ")),
        }
    };
    let phase = within(SNAPSHOT, asked).await;
    let cluster = match phase {
        Ok(Phase::Ready | Phase::Starting) => Some(cluster(&providers, name).await),
        _ => None,
    };
    Environment {
        name: name.to_string(),
        provider: provider.name().to_owned(),
        context: record.map(|record| record.context).unwrap_or_default(),
        phase,
        cluster,
    }
}

async fn cluster(providers: &Providers, name: &EnvironmentName) -> Cluster {
    let ask_api = async {
        // Files of this machine are read for it, at most.
        let client = match client(providers, name).await {
            Ok(client) => client,
            Err(reason) => return Ok((Err(reason.clone()), Err(reason))),
        };
        Ok(tokio::join!(within(API, api(&client)), within(API, hosting(&client))))
    };
    // kind is asked for its kubeconfig, which may take longer than all the rest.
    let ask_api = async {
        let late = |reason: String| (Err(reason.clone()), Err(reason));
        within(API + API / 8, ask_api).await.unwrap_or_else(late)
    };
    let find_nodes = within(API, async { providers.of(name).nodes(name).await.map_err(|error| error.chain().join(": ")) });
    let ((api, registry), nodes) = tokio::join!(ask_api, find_nodes);
    let own = registry.as_ref().ok().and_then(Option::as_ref).map(|registry| registry.from_nodes.clone());
    let nodes = match nodes {
        Ok(nodes) => Ok(on_node::look(nodes, own).await),
        Err(reason) => Err(reason),
    };
    Cluster { api, registry, nodes }
}

/// By the environment's own kubeconfig: the user's may lead elsewhere.
async fn client(providers: &Providers, name: &EnvironmentName) -> Known<Client> {
    let said = |error: devloop_core::CommandError| error.chain().join(": ");
    let text = providers.of(name).kubeconfig(name).await.map_err(said)?;
    let config: Kubeconfig = serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())?;
    let context = config.current_context.clone().unwrap_or_default();
    let mut config = client_config(config, &context).await.map_err(said)?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| error.to_string())
}

async fn api(client: &Client) -> Known<Api> {
    let request = http::Request::get("/readyz").body(Body::empty()).map_err(|error| error.to_string())?;
    let before = jiff::Timestamp::now();
    let answer = client.send(request).await.map_err(|error| root_cause(&error))?;
    let after = jiff::Timestamp::now();
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()).and_then(clock::of_header);
    // Whoever may not ask for readiness has an answer, too.
    let ready = answer.status().is_success() || matches!(answer.status().as_u16(), 401 | 403 | 404);
    Ok(Api { ready, clock_ahead: date.map(|date| clock::ahead(before, date, after)) })
}

async fn hosting(client: &Client) -> Known<Option<Registry>> {
    let hosting = registry::hosting(client).await.map_err(|error| error.chain().join(": "))?;
    let Some(hosting) = hosting.filter(|hosting| !hosting.host.is_empty()) else { return Ok(None) };
    let here = match tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(with_port(&hosting.host))).await {
        Ok(Ok(_)) => Reach::Answers,
        Ok(Err(error)) => Reach::Fails(error.to_string()),
        Err(_) => Reach::Fails(format!("no answer within {:.1} s", CONNECT.as_secs_f64())),
    };
    Ok(Some(Registry { from_nodes: hosting.from_nodes().to_owned(), host: hosting.host, here }))
}

fn with_port(host: &str) -> String {
    if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) { host.to_owned() } else { format!("{host}:443") }
}

/// The innermost error says it in the fewest words.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
