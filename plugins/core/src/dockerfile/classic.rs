//! A build by an engine that has no BuildKit: the context goes as one tar, which is
//! made while it is sent.

use super::context::{self, Entry, Kind};
use super::error::explain;
use super::plan::Plan;
use super::progress::{Event, Progress, Step, StepNews, Update};
use super::{DockerfileError, Told};
use crate::detect::base_images;
use crate::docker::{DockerError, Engine};
use crate::project::DockerfileBuild;
use crate::registry;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::BuildImageOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// So much is sent at once, and so many of these wait to be sent.
const CHUNK: usize = 256 * 1024;
const WAITING: usize = 8;
/// What the Dockerfile is called in the tar where it lies outside of the context,
/// or is ignored: as Docker's client does it.
const OWN_NAME: &str = ".dockerfile.devloop";

/// Builds; answers the image's id and the steps.
pub(super) async fn build(
    engine: &Engine,
    plan: &Plan,
    build: &DockerfileBuild,
    docker_config: Option<&Path>,
    told: Told<'_>,
) -> Result<(String, Vec<Step>), DockerfileError> {
    if !build.secrets.is_empty() || !build.ssh.is_empty() {
        return Err(DockerfileError::NeedsBuildKit { what: "a secret or an SSH agent", builder: told.builder.to_owned() });
    }
    let entries = tokio::task::spawn_blocking({
        let plan = plan.clone();
        move || context::entries(&plan.context, &plan.selection())
    });
    let entries = entries.await.map_err(|error| DockerfileError::connection(told.builder)(error.into()))??;
    let name = plan.file.strip_prefix(&plan.context).ok().and_then(Path::to_str);
    let in_context = name.filter(|name| entries.iter().any(|entry| entry.path == *name));
    let dockerfile = in_context.unwrap_or(OWN_NAME).to_owned();
    let args: HashMap<&str, &str> = build.args.iter().map(|(name, value)| (name.as_str(), value.0.as_str())).collect();
    let mut options =
        BuildImageOptionsBuilder::new().dockerfile(&dockerfile).rm(true).forcerm(true).buildargs(&args).cachefrom(&build.cache_from);
    if let Some(target) = &build.target {
        options = options.target(target);
    }
    if let Some(platform) = &build.platform {
        options = options.platform(platform);
    }
    let (chunks_tx, chunks_rx) = mpsc::channel(WAITING);
    let writing = tokio::task::spawn_blocking({
        let (root, own) = (plan.context.clone(), in_context.is_none().then(|| plan.text.clone()));
        move || write_tar(&root, &entries, own.as_deref(), Chunks { tx: chunks_tx, part: Vec::with_capacity(CHUNK) })
    });
    let body = futures::stream::unfold(chunks_rx, |mut chunks_rx| async { chunks_rx.recv().await.map(|chunk| (chunk, chunks_rx)) });
    let credentials = credentials(plan, docker_config).await?;
    let mut news = engine.client().build_image(options.build(), Some(credentials), Some(bollard::body_try_stream(body)));
    let mut steps = Steps::default();
    let mut id = None;
    while let Some(info) = news.next().await {
        let info = match info {
            Ok(info) => info,
            // A mistake in the context ends the body, which the engine has no words for.
            Err(error) => return Err(writing_failed(writing).await.unwrap_or_else(|| steps.failed(plan, error))),
        };
        if let Some(found) = info.aux.and_then(|aux| aux.id) {
            id = Some(found);
        }
        if let Some(error) = info.error_detail.and_then(|detail| detail.message) {
            return Err(steps.explained(plan, &error));
        }
        if let Some(text) = info.stream {
            steps.take(&text).into_iter().for_each(|event| (told.tell)(event));
        }
    }
    if let Some(error) = writing_failed(writing).await {
        return Err(error);
    }
    let id = id.ok_or_else(|| DockerfileError::connection(told.builder)("it did not say which image it made".into()))?;
    Ok((id, steps.end(&|event| (told.tell)(event))))
}

async fn writing_failed(writing: tokio::task::JoinHandle<Result<(), DockerfileError>>) -> Option<DockerfileError> {
    match writing.await {
        Ok(Err(DockerfileError::Connection { .. }) | Ok(())) | Err(_) => None,
        Ok(Err(error)) => Some(error),
    }
}

/// Credentials for the registries that base images come from.
async fn credentials(plan: &Plan, docker_config: Option<&Path>) -> Result<HashMap<String, DockerCredentials>, DockerfileError> {
    let mut found = HashMap::new();
    for image in base_images(&plan.text) {
        let host = registry::host_of(&image);
        // The name that Docker Hub has in Docker's own files.
        let key = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
        if found.contains_key(key) {
            continue;
        }
        let login = registry::login(docker_config, host).await.map_err(|error| DockerfileError::Missing(error.to_string()))?;
        if let Some(login) = login {
            let is_token = login.username.is_empty();
            let credentials = DockerCredentials {
                identitytoken: is_token.then(|| login.secret.clone()),
                username: (!is_token).then_some(login.username),
                password: (!is_token).then_some(login.secret),
                serveraddress: Some(key.to_owned()),
                ..DockerCredentials::default()
            };
            found.insert(key.to_owned(), credentials);
        }
    }
    Ok(found)
}

/// Writes the context, owned by root; `dockerfile` where it is no part of it.
fn write_tar(root: &Path, entries: &[Entry], dockerfile: Option<&str>, out: impl Write) -> Result<(), DockerfileError> {
    let gone = |error: io::Error| DockerfileError::connection("the Docker engine")(error.into());
    let mut tar = tar::Builder::new(out);
    for entry in entries {
        let mut header = owned_by_root(entry.mode);
        header.set_mtime(u64::try_from(entry.modified / 1_000_000_000).unwrap_or(0));
        match &entry.kind {
            Kind::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, format!("{}/", entry.path), io::empty()).map_err(gone)?;
            }
            Kind::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, &entry.path, target).map_err(gone)?;
            }
            Kind::File => {
                let path = root.join(&entry.path);
                let failed = |source: io::Error| DockerfileError::Read { path: path.clone(), source };
                let file = std::fs::File::open(&path).map_err(failed)?;
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(entry.size);
                // The size was promised in the header, whatever becomes of the file.
                let content = Exactly { file, left: entry.size };
                tar.append_data(&mut header, &entry.path, content)
                    .map_err(|error| if error.kind() == io::ErrorKind::UnexpectedEof { failed(error) } else { gone(error) })?;
            }
        }
    }
    if let Some(text) = dockerfile {
        // The image doesn't get it with everything else.
        let ignored = format!("{OWN_NAME}\n");
        for (name, content) in [(OWN_NAME, text), (".dockerignore", &ignored)] {
            let mut header = owned_by_root(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content.as_bytes()).map_err(gone)?;
        }
    }
    tar.into_inner().and_then(|mut out| out.flush()).map_err(gone)
}

fn owned_by_root(mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// A file's first bytes, all of which must be there.
struct Exactly {
    file: std::fs::File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read(&mut buffer[..limit])?;
        self.left -= count as u64;
        if count == 0 && limit > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was sent"));
        }
        Ok(count)
    }
}

/// Bytes in pieces, for a body that is sent meanwhile.
struct Chunks {
    tx: mpsc::Sender<io::Result<Bytes>>,
    part: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(buffer);
        if self.part.len() >= CHUNK {
            self.flush()?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::replace(&mut self.part, Vec::with_capacity(CHUNK)));
        self.tx.blocking_send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// The engine's lines of text, as steps.
#[derive(Debug, Default)]
struct Steps {
    progress: Progress,
    current: Option<StepNews>,
    part: String,
}

impl Steps {
    fn take(&mut self, text: &str) -> Vec<Event> {
        self.part.push_str(text);
        let mut events = Vec::new();
        while let Some(end) = self.part.find('\n') {
            let line: String = self.part.drain(..=end).collect();
            events.extend(self.line(line.trim_end()));
        }
        events
    }

    fn line(&mut self, line: &str) -> Vec<Event> {
        // `Step 2/3 : RUN make`
        let step = line.strip_prefix("Step ").and_then(|rest| rest.split_once(" : "));
        if let Some((place, text)) = step.filter(|(place, _)| place.contains('/')) {
            let mut events = self.close();
            let news = StepNews { id: place.to_owned(), name: format!("[{place}] {text}"), started: Some(now()), ..StepNews::default() };
            self.current = Some(news.clone());
            events.extend(self.progress.take(Update { steps: vec![news], ..Update::default() }));
            return events;
        }
        match &mut self.current {
            Some(current) if line == " ---> Using cache" => {
                current.cached = true;
                Vec::new()
            }
            // Ids of layers and containers.
            _ if line.starts_with(" --->") || line.starts_with("Removing intermediate container ") || line.starts_with("Successfully ") => {
                Vec::new()
            }
            Some(current) => {
                let said = vec![(current.id.clone(), format!("{line}\n").into_bytes())];
                self.progress.take(Update { said, ..Update::default() })
            }
            None => Vec::new(),
        }
    }

    /// The step before the one that begins has come to a good end.
    fn close(&mut self) -> Vec<Event> {
        let Some(current) = self.current.take() else { return Vec::new() };
        let news = StepNews { completed: Some(now()), ..current };
        self.progress.take(Update { steps: vec![news], ..Update::default() })
    }

    fn end(mut self, tell: &dyn Fn(Event)) -> Vec<Step> {
        self.close().into_iter().for_each(tell);
        self.progress.into_steps()
    }

    fn failed(self, plan: &Plan, error: Error) -> DockerfileError {
        match error {
            Error::DockerStreamError { error } => self.explained(plan, &error),
            Error::DockerResponseServerError { status_code: 400 | 500, message } => self.explained(plan, &message),
            other => DockerError::request(format!("build {}", plan.shown.display()))(other).into(),
        }
    }

    fn explained(mut self, plan: &Plan, message: &str) -> DockerfileError {
        if let Some(current) = self.current.take() {
            // `The command '/bin/sh -c false' returned a non-zero code: 1`
            let error = message
                .rsplit_once("returned a non-zero code: ")
                .map_or_else(|| message.to_owned(), |(_, code)| format!("exit code: {code}"));
            self.progress.take(Update { steps: vec![StepNews { error, ..current }], ..Update::default() });
        }
        explain(&plan.shown, &plan.text, message, self.progress.failure())
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_engines_lines_are_steps() {
        let mut steps = Steps::default();
        let said = "Step 1/3 : FROM base\n ---> 0123456789ab\nStep 2/3 : COPY a /\n ---> Using cache\n ---> 1234\nStep 3/3 : RUN false\n ---> Running in 12\nwhat\nwe";
        let events: Vec<Event> = said.split_inclusive(' ').flat_map(|part| steps.take(part)).collect();
        let ended: Vec<(String, bool)> = events
            .into_iter()
            .filter_map(|event| match event {
                Event::Ended(step) => Some((step.name, step.cached)),
                _ => None,
            })
            .collect();
        assert_eq!(ended, [("[1/3] FROM base".to_owned(), false), ("[2/3] COPY a /".to_owned(), true)]);
        steps.take("ll\n");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM base\nCOPY a /\nRUN false\n").unwrap();
        let plan = Plan::read(folder.path(), &DockerfileBuild::of(".".into(), "Dockerfile".into())).unwrap();
        let error = steps.explained(&plan, "The command '/bin/sh -c false' returned a non-zero code: 1");
        insta::assert_snapshot!(error.to_string(), @r"
        Dockerfile:3: [3/3] RUN false failed: exit code 1

          what
          well
        ");
    }

    #[test]
    fn the_tar_is_the_context_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/x"), "12345").unwrap();
        symlink("x", folder.path().join("a/link")).unwrap();
        let entries = context::entries(folder.path(), &context::Selection::default()).unwrap();
        let read = |dockerfile: Option<&str>| {
            let mut bytes = Vec::new();
            write_tar(folder.path(), &entries, dockerfile, &mut bytes).unwrap();
            let mut names = Vec::new();
            let mut archive = tar::Archive::new(bytes.as_slice());
            for entry in archive.entries().unwrap() {
                let entry = entry.unwrap();
                assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
                names.push(format!("{} {}", entry.path().unwrap().display(), entry.size()));
            }
            names
        };
        assert_eq!(read(None), ["a/ 0", "a/link 0", "a/x 5"]);
        assert_eq!(read(Some("FROM x\n"))[3..], [format!("{OWN_NAME} 7"), ".dockerignore 20".to_owned()]);
        std::fs::write(folder.path().join("a/x"), "1").unwrap();
        let error = write_tar(folder.path(), &entries, None, Vec::new()).unwrap_err();
        assert!(matches!(error, DockerfileError::Read { .. }), "{error:?}");
    }
}
