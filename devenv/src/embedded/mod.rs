//! The embedded engine: real Kubernetes components as processes of this
//! machine, in namespaces, cgroups and a root of their own.
//!
//! [`EmbeddedProvider`] is the command's side. The node's side is
//! [`node_init`]: process 1 of the environment, which supervises the rest.

mod addresses;
mod bootstrap;
mod cgroups;
mod components;
mod docker_rules;
mod host_network;
mod launch;
pub(crate) mod log_file;
pub(crate) mod node_binary;
mod node_files;
mod pki;
pub(crate) mod preflight;
mod probes;
mod provider;
mod proxy;
mod readiness;
pub(crate) mod registry;
mod rootfs;
mod supervisor;

pub use provider::EmbeddedProvider;
pub(crate) use readiness::is_running;

use crate::registry::convention::INNER_PORT;
use addresses::Addresses;
use launch::{FIRST_LISTENER_FD, Orders};
use node_files::Settings;
use std::ffi::OsString;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::ExitCode;

/// The first argument that makes this program a node's first process.
pub const NODE_INIT: &str = "node-init";

/// Runs as process 1 of a node until it is told to stop.
pub fn node_init(unexpected: Option<OsString>) -> ExitCode {
    devloop_core::telemetry::init(1, devloop_core::telemetry::LogFormat::Text);
    if unexpected.is_some() || std::process::id() != 1 {
        tracing::error!("{NODE_INIT} is started by `kubectl devenv up` only");
        return ExitCode::from(2);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = devloop_core::telemetry::error_chain(&error), "the node can't run");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::io::Result<()> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let orders: Orders = serde_json::from_slice(&text)?;
    let settings = Settings {
        name: orders.name,
        addresses: Addresses::new(orders.index),
        name_servers: orders.name_servers,
        can_raise_limits: orders.can_raise_limits,
        registry_port: orders.registry_port,
    };
    nix::unistd::sethostname(settings.node_name())?;
    // Files are made for whom they are meant, not by whoever ran `up`.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    rootfs::enter(&rootfs::Sources { environment: &orders.environment, binaries: &orders.binaries })?;
    let api = inherited(FIRST_LISTENER_FD)?;
    let registry = settings.registry_port.map(|_| inherited(FIRST_LISTENER_FD + 1)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        tokio::spawn(proxy::serve(tokio::net::TcpListener::from_std(api)?, (settings.addresses.node(), 6443).into()));
        if let Some(registry) = registry {
            let target = (Ipv4Addr::LOCALHOST, INNER_PORT).into();
            tokio::spawn(proxy::serve(tokio::net::TcpListener::from_std(registry)?, target));
        }
        let supervisor = supervisor::Supervisor::new(components::all(&settings), Path::new("/devloop"), orders.host_pid);
        probes::spawn(&settings, &supervisor.milestones());
        supervisor.run().await
    });
    runtime.shutdown_background();
    result
}

/// The listening socket that the launcher put at this place.
fn inherited(place: i32) -> std::io::Result<TcpListener> {
    // Nothing that the node runs needs them.
    // SAFETY: a plain system call; a wrong number is answered with an error.
    if unsafe { nix::libc::fcntl(place, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the launcher put a listening socket there, and nobody else uses it.
    let listener = unsafe { TcpListener::from_raw_fd(place) };
    listener.set_nonblocking(true)?;
    Ok(listener)
}
