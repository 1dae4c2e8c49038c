//! The Docker engine, and what it says of itself.

use super::machine::capabilities_of;
use super::{blocking, clock, disk, within};
use crate::doctor::facts::{Disk, Docker, Engine as EngineFacts, Known};
use devloop_core::docker::{DockerError, Endpoint, Engine, Survey};
use std::path::PathBuf;
use std::time::Duration;

/// How long the engine may take to answer at all.
const CONNECT: Duration = Duration::from_millis(1000);
/// How long it may take for each further answer.
const ANSWER: Duration = Duration::from_millis(800);
/// How long a registry elsewhere may take.
const REGISTRY: Duration = Duration::from_millis(1000);
/// An image that is where kind's own default is.
const NODE_IMAGE: &str = "kindest/node:v1.34.0";

/// Finds the engine; also the disk that its images are on, where that is ours.
pub(super) async fn docker() -> (Known<Docker>, Option<Disk>) {
    let connected = match tokio::time::timeout(CONNECT, Engine::connect()).await {
        Ok(connected) => connected,
        Err(_) => return (Err(format!("no answer within {:.1} s", CONNECT.as_secs_f64())), None),
    };
    match connected {
        Ok(engine) => {
            let (facts, disk) = of_engine(&engine).await;
            (Ok(Docker::Answers(Box::new(facts))), disk)
        }
        Err(error) => (Ok(classify(&error)), None),
    }
}

fn classify(error: &DockerError) -> Docker {
    let message = error.to_string();
    match error {
        DockerError::Endpoint(_) => Docker::Misconfigured(message),
        DockerError::TooOld { .. } => Docker::TooOld(message),
        DockerError::NoEngine { .. } | DockerError::Request { .. } if is_denied(error) => Docker::Denied(message),
        DockerError::NoEngine { .. } | DockerError::Request { .. } => Docker::Absent(message),
    }
}

/// Whether the kernel refused the socket, however deep the library wrapped it.
fn is_denied(error: &DockerError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::PermissionDenied) || error.to_string().contains("ermission denied") {
            return true;
        }
        next = error.source();
    }
    false
}

async fn of_engine(engine: &Engine) -> (EngineFacts, Option<Disk>) {
    let said = |error: DockerError| error.to_string();
    let before = jiff::Timestamp::now();
    let (survey, images, clusters, bounding) = tokio::join!(
        within(ANSWER, async { engine.survey().await.map(|survey| (survey, jiff::Timestamp::now())).map_err(said) }),
        images(engine),
        within(ANSWER, async { engine.kind_clusters().await.map_err(said) }),
        within(ANSWER, bounding(engine.endpoint())),
    );
    let clock_ahead = survey.as_ref().ok().and_then(|(survey, after)| {
        let time = survey.time.as_ref()?.parse().ok()?;
        Some(clock::ahead(before, time, *after))
    });
    let survey = survey.map(|(survey, _)| survey);
    let disk = match &survey {
        Ok(survey) => root_disk(engine.endpoint(), survey).await,
        Err(_) => None,
    };
    let (node_images, can_pull) = images;
    let facts = EngineFacts {
        version: engine.version().to_owned(),
        endpoint: engine.endpoint().to_string(),
        survey,
        bounding,
        node_images,
        can_pull,
        clusters,
        clock_ahead,
    };
    (facts, disk)
}

async fn images(engine: &Engine) -> (Known<Vec<String>>, Option<Known<()>>) {
    let images = within(ANSWER, async { engine.kind_node_images().await.map_err(|error| error.to_string()) }).await;
    if images.as_ref().map_or(true, |images| !images.is_empty()) {
        return (images, None);
    }
    // One that takes too long was not found out about.
    let asked = tokio::time::timeout(REGISTRY, engine.can_pull(NODE_IMAGE)).await.ok();
    (images, asked.map(|asked| asked.map_err(|error| devloop_core::CommandError::from(error).chain().join(": "))))
}

/// The bounding set of whoever listens at the socket. An engine elsewhere, or
/// in another pid namespace, has no process here.
async fn bounding(endpoint: &Endpoint) -> Known<u64> {
    let Endpoint::Unix(path) = endpoint else { return Err("the engine is on another machine".to_owned()) };
    let stream = tokio::net::UnixStream::connect(path).await.map_err(|error| error.to_string())?;
    let pid = stream.peer_cred().map_err(|error| error.to_string())?.pid().filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| "the engine's process is not one of this machine".to_owned())?;
    Ok(capabilities_of(&pid.to_string())?.bounding)
}

/// The file system of Docker's data, when the engine is of this machine.
async fn root_disk(endpoint: &Endpoint, survey: &Survey) -> Option<Disk> {
    let root = PathBuf::from(&survey.root);
    if !matches!(endpoint, Endpoint::Unix(_)) || !root.is_absolute() {
        return None;
    }
    // The folder of an engine in a virtual machine is not here.
    blocking(move || Ok(root.is_dir().then(|| disk("Docker", &root)))).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_socket_is_told_from_none() {
        let failing = |kind: std::io::ErrorKind| {
            let tried = vec![Endpoint::Unix("/var/run/docker.sock".into())];
            classify(&DockerError::NoEngine { tried, source: Box::new(std::io::Error::from(kind).into()) })
        };
        assert!(matches!(failing(std::io::ErrorKind::PermissionDenied), Docker::Denied(_)));
        assert!(matches!(failing(std::io::ErrorKind::NotFound), Docker::Absent(_)));
    }
}
