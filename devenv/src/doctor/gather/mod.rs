//! Finding out what checks look at: everything at once, each within its limit,
//! so that the answer is there in less than three seconds whatever hangs.

mod clock;
mod docker;
mod environments;
mod machine;
mod on_node;

use super::facts::{Disk, Facts, Known, KubeContext, Kubeconfig, Proxy, Space};
use crate::embedded::node_binary;
use devloop_core::cluster;
use devloop_core::environment::Directories;
use std::path::Path;
use std::time::Duration;

/// How long the file system may take.
const FILES: Duration = Duration::from_millis(1500);

/// Looks at everything.
pub(super) async fn facts(directories: &Directories) -> Facts {
    let (state, cache) = (directories.state.clone(), directories.cache.clone());
    let disks = blocking(move || Ok(vec![disk("state", &state), disk("cache", &cache)]));
    let (machine, programs, disks, (docker, docker_disk), kubeconfig, environments) = tokio::join!(
        blocking(|| Ok(machine::machine())),
        machine::programs(directories),
        disks,
        docker::docker(),
        blocking(kubeconfig),
        environments::environments(directories),
    );
    let disks = disks.map(|mut disks| {
        disks.extend(docker_disk);
        disks
    });
    let proxy = proxy(&|name| std::env::var(name).ok());
    let embedded_version = node_binary::kubernetes_version().to_owned();
    Facts { machine, programs, disks, docker, proxy, kubeconfig, environments, embedded_version }
}

/// Answers in time, or says that it took too long.
async fn within<T>(limit: Duration, asked: impl Future<Output = Known<T>>) -> Known<T> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {:.1} s", limit.as_secs_f64())),
    }
}

/// For what may block in the kernel, such as a network file system that is
/// gone: its thread is left behind, and ends with the process.
async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> Known<T> + Send + 'static) -> Known<T> {
    let task = tokio::task::spawn_blocking(ask);
    within(FILES, async { task.await.map_err(|error| error.to_string())? }).await
}

fn disk(what: &'static str, folder: &Path) -> Disk {
    Disk { what, path: folder.display().to_string(), space: space(folder) }
}

/// Room of the file system that a folder is on, or will be.
fn space(folder: &Path) -> Known<Space> {
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let file_system = nix::sys::statvfs::statvfs(existing).map_err(|error| error.to_string())?;
    let block = file_system.fragment_size();
    Ok(Space {
        free: file_system.blocks_available().saturating_mul(block),
        total: file_system.blocks().saturating_mul(block),
        free_files: file_system.files_available(),
        total_files: file_system.files(),
    })
}

fn kubeconfig() -> Known<Kubeconfig> {
    let config = cluster::load_kubeconfig(None).map_err(|error| error.chain().join(": "))?;
    let context = |named: &kube::config::NamedContext| {
        let content = named.context.clone().unwrap_or_default();
        let cluster = config.clusters.iter().find(|cluster| cluster.name == content.cluster);
        KubeContext {
            name: named.name.clone(),
            server: cluster.map(|cluster| cluster.cluster.as_ref().and_then(|cluster| cluster.server.clone()).unwrap_or_default()),
            user_is_there: config.auth_infos.iter().any(|user| Some(&user.name) == content.user.as_ref()),
            user: content.user,
            cluster: content.cluster,
        }
    };
    Ok(Kubeconfig { current: config.current_context.clone(), contexts: config.contexts.iter().map(context).collect() })
}

fn proxy(variable: &dyn Fn(&str) -> Option<String>) -> Proxy {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let of = |name: &str| {
        let lower = name.to_lowercase();
        set(name).map(|value| (name.to_owned(), value)).or_else(|| set(&lower).map(|value| (lower, value)))
    };
    Proxy {
        proxies: ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].iter().filter_map(|name| of(name)).collect(),
        exceptions: set("NO_PROXY").or_else(|| set("no_proxy")).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_spelling_of_a_variable_counts() {
        let found = proxy(&|name| match name {
            "https_proxy" => Some("http://p:1".into()),
            "NO_PROXY" => Some(String::new()),
            "no_proxy" => Some("localhost".into()),
            _ => None,
        });
        assert_eq!(found, Proxy { proxies: vec![("https_proxy".into(), "http://p:1".into())], exceptions: "localhost".into() });
    }

    #[tokio::test]
    async fn what_hangs_is_given_up_and_said_so() {
        let hanging = within(Duration::from_millis(10), std::future::pending::<Known<()>>());
        assert_eq!(hanging.await, Err("no answer within 0.0 s".to_owned()));
    }

    #[tokio::test]
    async fn this_machine_is_looked_at_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories { state: folder.path().join("state"), cache: folder.path().join("cache") };
        let started = std::time::Instant::now();
        let facts = facts(&directories).await;
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        let machine = facts.machine.unwrap();
        assert!(machine.memory.unwrap().total > 0 && machine.capabilities.is_ok());
        assert!(facts.disks.unwrap().iter().all(|disk| disk.space.is_ok()));
        assert!(facts.environments.unwrap().is_empty());
    }
}
