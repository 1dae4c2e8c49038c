//! One build by a BuildKit: what is asked of it, what it tells meanwhile, and how
//! it ends.

use super::error::explain;
use super::link::Link;
use super::plan::Plan;
use super::progress::{Progress, Step, StepNews, Update};
use super::{DockerfileError, Told};
use crate::project::DockerfileBuild;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, SolveRequest, SolveResponse, StatusRequest, StatusResponse,
};
use futures::StreamExt;
use std::collections::HashMap;
use std::time::Duration;
use tonic::Streaming;

/// How long the last news may take after the end.
const LAST_NEWS: Duration = Duration::from_secs(3);

/// Where the result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exporter {
    /// Into the engine, which keeps images itself.
    Engine,
    /// To the session's receiver, as a tar in OCI layout.
    Tar,
}

/// What a build is asked of a BuildKit.
pub(super) fn request(plan: &Plan, build: &DockerfileBuild, session: &str, exporter: Exporter) -> SolveRequest {
    let mut attributes = HashMap::new();
    let mut set = |name: &str, value: &str| drop(attributes.insert(name.to_owned(), value.to_owned()));
    set("filename", &plan.file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default());
    if let Some(target) = &build.target {
        set("target", target);
    }
    if let Some(platform) = &build.platform {
        set("platform", platform);
    }
    for (name, value) in &build.args {
        set(&format!("build-arg:{name}"), &value.0);
    }
    // The engine's own images come first, as with `docker build`.
    if exporter == Exporter::Engine {
        set("image-resolve-mode", "local");
    }
    let imports: Vec<CacheOptionsEntry> = build
        .cache_from
        .iter()
        .map(|image| CacheOptionsEntry { r#type: "registry".to_owned(), attrs: [("ref".to_owned(), image.clone())].into() })
        .collect();
    if !imports.is_empty() {
        // The frontend wants to know, too, and which of the two depends on its age.
        let listed: Vec<_> =
            build.cache_from.iter().map(|image| serde_json::json!({"Type": "registry", "Attrs": {"ref": image}})).collect();
        set("cache-imports", &serde_json::Value::from(listed).to_string());
        set("cache-from", &build.cache_from.join(","));
    }
    let (exporter, exported) = match exporter {
        Exporter::Engine => ("moby", HashMap::new()),
        // Layers stay as they are: most of them never leave this machine.
        Exporter::Tar => ("oci", HashMap::from([("compression".to_owned(), "uncompressed".to_owned())])),
    };
    SolveRequest {
        r#ref: format!("{session}-build"),
        session: session.to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: attributes,
        exporter_deprecated: exporter.to_owned(),
        exporter_attrs_deprecated: exported,
        cache: Some(CacheOptions { imports, ..CacheOptions::default() }),
        ..SolveRequest::default()
    }
}

/// Builds. What is dropped half way ends on the builder's side, too.
///
/// # Errors
/// When the build fails or the connection breaks.
pub(super) async fn solve(
    link: Link,
    plan: &Plan,
    request: SolveRequest,
    told: Told<'_>,
) -> Result<(HashMap<String, String>, Vec<Step>), DockerfileError> {
    let Link { control, serving } = link;
    let builder = told.builder;
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| DockerfileError::connection(builder)(error);
    let reference = request.r#ref.clone();
    let (mut asking, mut watching) = (control.clone(), control);
    let solved = asking.solve(request);
    let news = watching.status(StatusRequest { r#ref: reference });
    tokio::pin!(solved, news, serving);
    let mut progress = Progress::default();
    let mut stream: Option<Streaming<StatusResponse>> = None;
    let mut outcome: Option<Result<SolveResponse, tonic::Status>> = None;
    let mut news_ended = false;
    let last = tokio::time::sleep(LAST_NEWS);
    tokio::pin!(last);
    while outcome.is_none() || !news_ended {
        tokio::select! {
            biased;
            update = next(&mut stream), if stream.is_some() => match update {
                Some(Ok(update)) => progress.take(update_of(update)).into_iter().for_each(|event| (told.tell)(event)),
                Some(Err(_)) | None => {
                    stream = None;
                    news_ended = true;
                }
            },
            opened = &mut news, if stream.is_none() && !news_ended => match opened {
                Ok(opened) => stream = Some(opened.into_inner()),
                // The build itself says why.
                Err(_) => news_ended = true,
            },
            solved = &mut solved, if outcome.is_none() => {
                outcome = Some(solved.map(tonic::Response::into_inner));
                last.as_mut().reset(tokio::time::Instant::now() + LAST_NEWS);
            }
            served = &mut serving, if outcome.is_none() => {
                served.map_err(broken)?;
                return Err(broken("the builder ended the session".into()));
            }
            () = &mut last, if outcome.is_some() => news_ended = true,
        }
    }
    match outcome {
        Some(Ok(response)) => Ok((response.exporter_response, progress.into_steps())),
        Some(Err(status)) if is_broken(&status) => Err(broken(status.into())),
        Some(Err(status)) => Err(explain(&plan.shown, &plan.text, status.message(), progress.failure())),
        None => Err(broken("the builder did not answer".into())),
    }
}

async fn next(stream: &mut Option<Streaming<StatusResponse>>) -> Option<Result<StatusResponse, tonic::Status>> {
    stream.as_mut()?.next().await
}

/// Whether nobody said no, but the connection did.
fn is_broken(status: &tonic::Status) -> bool {
    use tonic::Code;
    status.code() == Code::Unavailable || (status.code() == Code::Unknown && status.message().starts_with("transport error"))
}

fn update_of(response: StatusResponse) -> Update {
    let time = |time: Option<Timestamp>| {
        let Timestamp { seconds, nanos } = time?;
        Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?))
    };
    let steps = response.vertexes.into_iter().map(|vertex| StepNews {
        id: vertex.digest,
        name: vertex.name,
        started: time(vertex.started),
        completed: time(vertex.completed),
        cached: vertex.cached,
        error: vertex.error,
    });
    Update {
        steps: steps.collect(),
        said: response.logs.into_iter().map(|log| (log.vertex, log.msg)).collect(),
        warnings: response.warnings.into_iter().map(|warning| String::from_utf8_lossy(&warning.short).into_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Value;

    #[test]
    fn a_build_is_asked_for_with_all_that_was_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("web.Dockerfile"), "FROM scratch\n").unwrap();
        let mut build = DockerfileBuild::of(".".into(), "web.Dockerfile".into());
        build.target = Some("run".into());
        build.args.insert("A".into(), Value("b".into()));
        build.platform = Some("linux/arm64".into());
        build.cache_from = vec!["reg/x:cache".into()];
        let plan = Plan::read(folder.path(), &build).unwrap();
        let asked = request(&plan, &build, "s", Exporter::Engine);
        let mut attributes: Vec<String> = asked.frontend_attrs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        attributes.sort();
        insta::assert_snapshot!(attributes.join("\n"), @r#"
        build-arg:A=b
        cache-from=reg/x:cache
        cache-imports=[{"Attrs":{"ref":"reg/x:cache"},"Type":"registry"}]
        filename=web.Dockerfile
        image-resolve-mode=local
        platform=linux/arm64
        target=run
        "#);
        assert_eq!((asked.exporter_deprecated.as_str(), asked.cache.unwrap().imports.len()), ("moby", 1));
        let tar = request(&plan, &DockerfileBuild::of(".".into(), "web.Dockerfile".into()), "s", Exporter::Tar);
        assert_eq!((tar.exporter_deprecated.as_str(), tar.frontend_attrs.len()), ("oci", 1));
    }
}
