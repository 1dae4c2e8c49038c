//! The command's side of the embedded engine.

use super::addresses::{Addresses, choose_index};
use super::launch::{self, Orders};
use super::node_files::{self, Settings};
use super::preflight::{self, Machine};
use super::{cgroups, components, host_network, node_binary, pki, readiness, registry, rootfs};
use crate::kubeconfig::{self, Entry};
use crate::provider::{Provider, STOP_GRACE, Snapshot, UpReport};
use crate::registry::convention;
use crate::request::{EnvironmentName, UpRequest};
use crate::{lock, records};
use async_trait::async_trait;
use base64::Engine as _;
use devloop_core::environment::{
    CONTEXT_PREFIX, Directories, EmbeddedPlace, EnvironmentDirectory, EnvironmentRecord, EnvironmentStatus, Phase,
};
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::files::{self, FileLock};
use devloop_core::node::{Node, process_start_time};
use devloop_core::{Context, image};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The embedded engine.
#[derive(Clone, Debug)]
pub struct EmbeddedProvider {
    directories: Directories,
}

impl EmbeddedProvider {
    /// An engine that keeps its state in these folders.
    pub fn new(directories: Directories) -> Self {
        Self { directories }
    }

    /// Builds the node's programs if they aren't in the cache; answers their
    /// folder.
    ///
    /// # Errors
    /// When they can't be built.
    pub async fn build(&self, context: &Context, with_kubectl: bool) -> Result<PathBuf> {
        node_binary::ensure(context, &self.directories, with_kubectl).await
    }

    fn environment(&self, name: &EnvironmentName) -> EnvironmentDirectory {
        self.directories.environment(name.as_str())
    }

    /// Guards what environments share: indexes, forwarding.
    fn host_lock(&self) -> Result<FileLock> {
        let path = self.directories.state.join("locks").join(".host");
        FileLock::acquire(&path).with_context(|| format!("could not lock {}", path.display()))
    }

    /// Every record that can be read, by environment.
    fn records(&self) -> Result<BTreeMap<String, EnvironmentRecord>> {
        let names = self.directories.environment_names()?;
        Ok(names.into_iter().filter_map(|name| Some((name.clone(), self.directories.environment(&name).record().ok()??))).collect())
    }

    /// Reads the record or makes a new one; says whether it is new.
    fn record(&self, request: &UpRequest) -> Result<(EnvironmentRecord, bool)> {
        let environment = self.environment(&request.name);
        if let Some(record) = records::of_engine(&self.directories, &request.name, self.name())? {
            return Ok((record, false));
        }
        let _host = self.host_lock()?;
        let taken: Vec<u8> = self.records()?.values().filter_map(|record| Some(record.embedded?.index)).collect();
        let routes = host_network::routes()?;
        let index = choose_index(request.name.as_str(), &taken, &routes)
            .ok_or_else(|| CommandError::new("no network is left for another environment"))
            .hint("take one down with `kubectl devenv down`")?;
        let api_port = request.api_port.unwrap_or_else(|| Addresses::new(index).preferred_api_port());
        let record = EnvironmentRecord {
            name: request.name.to_string(),
            provider: "embedded".into(),
            context: format!("{CONTEXT_PREFIX}{}", request.name),
            server: api_server(api_port),
            created: jiff::Timestamp::now().to_string(),
            embedded: Some(EmbeddedPlace { api_port, index }),
            ..EnvironmentRecord::default()
        };
        rootfs::private_folder(environment.root()).with_context(|| format!("could not make {}", environment.root().display()))?;
        environment.write_record(&record)?;
        Ok((record, true))
    }

    /// From no process to a ready node.
    async fn start(
        &self,
        context: &Context,
        request: &UpRequest,
        record: &mut EnvironmentRecord,
        machine: &Machine,
        binaries: &Path,
    ) -> Result<EnvironmentStatus> {
        let environment = self.environment(&request.name);
        let addresses = Addresses::new(place(record)?.index);
        let step = context.ui.step(format!("Starting environment {:?}", record.name));
        self.clear_host(record)?;
        let mut listeners = vec![bind_api_port(request, record)?];
        let registry_listener = registry::listen(context, request.registry, record.registry_port)?;
        record.registry_port = registry_listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|address| address.port());
        listeners.extend(registry_listener);
        let settings = Settings {
            name: record.name.clone(),
            addresses,
            name_servers: name_servers(),
            can_raise_limits: machine.can_raise_limits,
            registry_port: record.registry_port,
        };
        write_node_files(&environment, &settings)?;
        ensure_pause_archive(&self.directories, &environment, binaries)?;
        files::remove_all(&environment.status_path()).context("could not remove the last run's status")?;
        environment.write_record(record)?;
        let log_path = environment.logs().join("supervisor.log");
        let log = std::fs::File::create(&log_path).with_context(|| format!("could not make {}", log_path.display()))?;
        let launched = launch::start(listeners, log)?;
        let pid = launched.pid;
        let result = async {
            cgroups::enter(&addresses.cgroup(&record.name), pid)?;
            {
                let _host = self.host_lock()?;
                host_network::link(addresses, pid, environment.root(), &self.directories.state)?;
            }
            launched.begin(&Orders {
                name: settings.name,
                index: place(record)?.index,
                name_servers: settings.name_servers,
                can_raise_limits: settings.can_raise_limits,
                registry_port: settings.registry_port,
                environment: environment.root().to_owned(),
                binaries: binaries.to_owned(),
                host_pid: pid,
            })?;
            context.shutdown.guard(readiness::wait(&environment, pid, request.timeout, &step)).await
        }
        .await;
        match result {
            Ok(status) => {
                let registry = record.registry_port.map(|port| format!(", registry at {}", convention::host(port))).unwrap_or_default();
                step.done(format!(
                    "Environment {:?} is ready: Kubernetes {}, node Ready, DNS answering{registry}",
                    record.name,
                    node_binary::kubernetes_version()
                ));
                Ok(status)
            }
            Err(error) => {
                end_process(pid, Duration::ZERO);
                self.clear_host(record)?;
                Err(error)
            }
        }
    }

    /// Removes what an ended environment left outside its folder, and what
    /// other environments left whose processes are gone.
    fn clear_host(&self, record: &EnvironmentRecord) -> Result<()> {
        let environment = self.directories.environment(&record.name);
        let addresses = Addresses::new(place(record)?.index);
        let _host = self.host_lock()?;
        if let Some(owner) = host_network::owner(addresses).filter(|owner| owner != environment.root() && folder_is_running(owner)) {
            return Err(CommandError::new(format!("the addresses of environment {:?} are in use by {}", record.name, owner.display())))
                .hint("take that environment down first, or make one of another name");
        }
        cgroups::remove(&addresses.cgroup(&record.name))?;
        let last = !self.directories.environment_names()?.iter().any(|other| *other != record.name && self.is_running(other));
        host_network::remove(addresses, last, &self.directories.state)?;
        self.sweep_host()
    }

    /// Removes interfaces and tables whose environment has no process.
    fn sweep_host(&self) -> Result<()> {
        for addresses in host_network::indexes()?.into_iter().map(Addresses::new) {
            if !host_network::owner(addresses).is_some_and(|owner| folder_is_running(&owner)) {
                host_network::remove(addresses, false, &self.directories.state)?;
            }
        }
        Ok(())
    }

    fn is_running(&self, name: &str) -> bool {
        self.directories.environment(name).status().ok().flatten().is_some_and(|status| readiness::is_running(&status))
    }

    fn entry(&self, record: &EnvironmentRecord) -> Result<Entry> {
        let pki = pki_folder(&self.directories.environment(&record.name));
        let read = |name: &str| {
            let path = pki.join(name);
            let content = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
            Ok::<_, CommandError>(base64::engine::general_purpose::STANDARD.encode(content))
        };
        Ok(Entry {
            name: record.context.clone(),
            server: record.server.clone(),
            certificate_authority: read("ca.crt")?,
            client_certificate: read("admin.crt")?,
            client_key: read("admin.key")?,
        })
    }

    /// Puts the context into the user's kubeconfig.
    fn publish(&self, record: &mut EnvironmentRecord) -> Result<()> {
        let entry = self.entry(record)?;
        if let Some(previous) = kubeconfig::merge(&kubeconfig::user_path()?, &entry)? {
            record.previous_context = Some(previous);
            self.directories.environment(&record.name).write_record(record)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Provider for EmbeddedProvider {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn up(&self, context: &Context, request: &UpRequest) -> Result<UpReport> {
        let began = Instant::now();
        let machine = preflight::check()?;
        let _lock = lock::environment(context, &self.directories, &request.name).await?;
        let environment = self.environment(&request.name);
        let report = |record: &EnvironmentRecord, milestones_ms, already_up| UpReport {
            name: record.name.clone(),
            provider: "embedded",
            context: record.context.clone(),
            already_up,
            milestones_ms,
            total_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let status = environment.status().unwrap_or_default().unwrap_or_default();
        if readiness::is_running(&status) {
            let mut record = records::known(&self.directories, &request.name, self.name())?;
            let api_port = place(&record)?.api_port;
            if request.api_port.is_some_and(|port| port != api_port) {
                return Err(CommandError::new(format!("environment {:?} is up with its API on port {api_port}", record.name)))
                    .hint("take it down first, or leave --api-port out");
            }
            registry::check_running(&record.name, request.registry, record.registry_port)?;
            if status.phase != Phase::Ready {
                // A run that was killed left it on its way.
                let step = context.ui.step(format!("Environment {:?} is starting", record.name));
                context.shutdown.guard(readiness::wait(&environment, status.supervisor_pid, request.timeout, &step)).await?;
            }
            self.publish(&mut record)?;
            return Ok(report(&record, BTreeMap::new(), true));
        }
        preflight::check_space(&self.directories.state)?;
        let binaries = node_binary::ensure(context, &self.directories, false).await?;
        let (mut record, new) = self.record(request)?;
        match self.start(context, request, &mut record, &machine, &binaries).await {
            Ok(status) => {
                self.publish(&mut record)?;
                Ok(report(&record, status.milestones_ms, false))
            }
            // Whoever interrupts the making of something new doesn't want it.
            Err(error) if new && context.shutdown.is_requested() => {
                files::remove_all(environment.root()).with_context(|| format!("could not remove {}", environment.root().display()))?;
                Err(error)
            }
            Err(error) => Err(error)
                .with_context(|| format!("environment {:?} did not come up", record.name))
                .hint(format!("read more with `kubectl devenv logs COMPONENT --name {}`", record.name))
                .hint(format!(
                    "try again with `kubectl devenv up --name {0}`, or clean up with `kubectl devenv down --name {0}`",
                    record.name
                )),
        }
    }

    async fn down(&self, context: &Context, name: &EnvironmentName, keep: bool) -> Result<()> {
        preflight::check()?;
        let _lock = lock::environment(context, &self.directories, name).await?;
        let environment = self.environment(name);
        if !environment.root().exists() {
            context.ui.say(format!("There is no environment {:?}", name.as_str()));
            return Ok(());
        }
        let step = context.ui.step(format!("Taking down environment {:?}", name.as_str()));
        let status = environment.status().unwrap_or_default().unwrap_or_default();
        if readiness::is_running(&status) {
            end_process(status.supervisor_pid, STOP_GRACE);
        }
        // Damage to the record must not keep the rest from being removed.
        let record = environment.record().ok().flatten();
        match &record {
            Some(record) if record.embedded.is_some() => {
                self.clear_host(record)?;
                kubeconfig::remove(&kubeconfig::user_path()?, &record.context, record.previous_context.as_deref())?;
            }
            _ => {
                cgroups::remove_abandoned(name.as_str());
                {
                    let _host = self.host_lock()?;
                    self.sweep_host()?;
                }
                kubeconfig::remove(&kubeconfig::user_path()?, &format!("{CONTEXT_PREFIX}{name}"), None)?;
            }
        }
        if keep {
            step.done(format!("Environment {:?} is stopped; its state is kept", name.as_str()));
            return Ok(());
        }
        refuse_mounts(environment.root())?;
        files::remove_all(environment.root()).with_context(|| format!("could not remove {}", environment.root().display()))?;
        step.done(format!("Environment {:?} is gone", name.as_str()));
        Ok(())
    }

    async fn snapshot(&self, name: &EnvironmentName) -> Result<Option<Snapshot>> {
        let environment = self.environment(name);
        let Some(record) = environment.record()? else { return Ok(None) };
        let mut status = environment.status()?.unwrap_or_default();
        if !readiness::is_running(&status) {
            // The last words of a killed supervisor are out of date.
            let failed = status.phase == Phase::Failed;
            status = EnvironmentStatus {
                phase: if failed { Phase::Failed } else { Phase::Stopped },
                updated: status.updated,
                failure: status.failure,
                ..EnvironmentStatus::default()
            };
        }
        Ok(Some(Snapshot { record, status, nodes: Vec::new() }))
    }

    async fn nodes(&self, name: &EnvironmentName) -> Result<Vec<Node>> {
        let record = records::known(&self.directories, name, self.name())?;
        Ok(Node::of_environment(&self.directories, &record.name)?.into_iter().collect())
    }

    async fn kubeconfig(&self, name: &EnvironmentName) -> Result<String> {
        kubeconfig::standalone(&self.entry(&records::known(&self.directories, name, self.name())?)?)
    }
}

/// Whether the environment with this folder, which may be another user's or
/// test's, has processes.
fn folder_is_running(folder: &Path) -> bool {
    EnvironmentDirectory::at(folder).status().ok().flatten().is_some_and(|status| readiness::is_running(&status))
}

fn pki_folder(environment: &EnvironmentDirectory) -> PathBuf {
    environment.root().join("node/etc/kubernetes/pki")
}

/// Where the environment is on this machine; an environment of another engine
/// has no such place.
fn place(record: &EnvironmentRecord) -> Result<EmbeddedPlace> {
    record.embedded.ok_or_else(|| CommandError::new(format!("environment {:?} is not an embedded one", record.name)))
}

fn api_server(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

/// Binds the API's port on loopback. A port that the user named must be free;
/// one that we chose is replaced when somebody took it meanwhile.
fn bind_api_port(request: &UpRequest, record: &mut EnvironmentRecord) -> Result<TcpListener> {
    let place = place(record)?;
    let wanted = request.api_port.unwrap_or(place.api_port);
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).or_else(|error| {
        let ours = request.api_port.is_none() && error.kind() == std::io::ErrorKind::AddrInUse;
        if ours { TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) } else { Err(error) }
    });
    let listener = bound
        .with_context(|| format!("could not listen on 127.0.0.1:{wanted}"))
        .hint("choose another port with --api-port, or leave it out for a free one")?;
    let api_port = listener.local_addr().context("could not read the API's port")?.port();
    record.embedded = Some(EmbeddedPlace { api_port, ..place });
    record.server = api_server(api_port);
    Ok(listener)
}

fn write_node_files(environment: &EnvironmentDirectory, settings: &Settings) -> Result<()> {
    let etc = environment.root().join("node/etc");
    let write = || -> std::io::Result<()> {
        rootfs::private_folder(environment.root())?;
        rootfs::private_folder(&environment.logs())?;
        rootfs::private_folder(&etc.join("kubernetes"))?;
        std::fs::create_dir_all(environment.root().join("node/var/lib/devloop"))?;
        // A port that it doesn't have any more must not lead anywhere.
        files::remove_all(&node_path(environment, convention::HOSTS_FOLDER))?;
        for (path, text) in settings.registry_port.map(registry::files).unwrap_or_default() {
            let path = node_path(environment, &path);
            std::fs::create_dir_all(path.parent().unwrap_or(&etc))?;
            files::write_atomic(&path, text.as_bytes(), 0o644)?;
        }
        for (path, text) in node_files::etc(settings) {
            let path = etc.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(&etc))?;
            files::write_atomic(&path, text.as_bytes(), 0o644)?;
        }
        Ok(())
    };
    write().with_context(|| format!("could not write the node's configuration below {}", etc.display()))?;
    pki::ensure(&pki_folder(environment), settings.addresses, &settings.node_name())
}

/// Makes the archive that the node imports its sandbox image from.
fn ensure_pause_archive(directories: &Directories, environment: &EnvironmentDirectory, binaries: &Path) -> Result<()> {
    let path = environment.root().join("node").join(components::PAUSE_ARCHIVE.trim_start_matches('/'));
    if path.exists() {
        return Ok(());
    }
    let image = image::single_binary(&directories.cache, node_files::PAUSE_IMAGE, &binaries.join("pause"), "/pause")
        .context("could not make the sandbox image")?;
    let mut archive = Vec::new();
    image.write_archive(&vec![true; image.layers.len()], &mut archive).context("could not make the sandbox image")?;
    files::write_atomic(&path, &archive, 0o644).with_context(|| format!("could not write {}", path.display()))
}

/// Where a path of the node is kept on the host.
fn node_path(environment: &EnvironmentDirectory, path: &str) -> PathBuf {
    environment.root().join("node").join(path.trim_start_matches('/'))
}

fn name_servers() -> Vec<std::net::IpAddr> {
    let read = |path: &str| node_files::reachable_name_servers(&std::fs::read_to_string(path).unwrap_or_default());
    let listed = read("/etc/resolv.conf");
    // systemd-resolved lists a stub on loopback; its upstreams are here.
    if listed.is_empty() { read("/run/systemd/resolve/resolv.conf") } else { listed }
}

/// Asks a process to end, and ends it when it takes too long.
fn end_process(pid: i32, grace: Duration) {
    use nix::sys::signal::{Signal, kill};
    let target = nix::unistd::Pid::from_raw(pid);
    let started = Instant::now();
    // Either signal fails only when the process is gone, which is what we want.
    let _ = kill(target, if grace.is_zero() { Signal::SIGKILL } else { Signal::SIGTERM });
    let mut killed = grace.is_zero();
    while process_start_time(pid).is_some() {
        if !killed && started.elapsed() > grace {
            let _ = kill(target, Signal::SIGKILL);
            killed = true;
        }
        if started.elapsed() > grace + Duration::from_secs(10) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A mount below a folder that is about to be removed would take somebody
/// else's files with it. Ours are in the node's namespace and gone with it.
fn refuse_mounts(folder: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("could not read the list of mounts")?;
    let inside = mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|target| Path::new(target).starts_with(folder));
    match inside {
        Some(target) => Err(CommandError::new(format!("{target} is mounted inside the environment's folder")))
            .hint(format!("unmount it with `umount {target}`")),
        None => Ok(()),
    }
}
