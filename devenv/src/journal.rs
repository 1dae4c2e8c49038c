//! What was made outside an environment's own folder, written down before it is
//! made, so that `down` and `prune` remove exactly that, after a crash, too.

use devloop_core::environment::EnvironmentDirectory;
use devloop_core::error::{ErrorContext, Result};
use devloop_core::files;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A thing of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Created {
    /// A kind cluster, with its containers and their volumes.
    KindCluster {
        /// Its name.
        cluster: String,
    },
    /// A context in the user's kubeconfig, with its cluster and user.
    KubeconfigContext {
        /// Its name.
        context: String,
    },
    /// A container of the Docker engine.
    Container {
        /// Its name.
        name: String,
    },
    /// A volume of the Docker engine.
    Volume {
        /// Its name.
        name: String,
    },
    /// A container's place in a Docker network.
    NetworkConnection {
        /// The network.
        network: String,
        /// The container.
        container: String,
    },
    /// A file on a node that we did not make.
    NodeFile {
        /// The node.
        node: String,
        /// Its path there.
        path: String,
    },
    /// An object in a cluster that we did not make.
    Object {
        /// Its kind, as in a manifest.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// The list of an environment.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
    created: Vec<Created>,
}

impl Journal {
    /// Reads the environment's list; an empty one when there is none.
    ///
    /// # Errors
    /// When it can't be read or is damaged.
    pub fn open(environment: &EnvironmentDirectory) -> Result<Self> {
        let path = environment.root().join("journal.json");
        let content = files::read_optional(&path).with_context(|| format!("could not read {}", path.display()))?;
        let created = match content {
            Some(content) => serde_json::from_slice(&content).with_context(|| format!("{} is damaged", path.display()))?,
            None => Vec::new(),
        };
        Ok(Self { path, created })
    }

    /// Writes down what is about to be made; once is enough.
    ///
    /// # Errors
    /// When the list can't be written: then it must not be made.
    pub fn add(&mut self, created: Created) -> Result<()> {
        if self.created.contains(&created) {
            return Ok(());
        }
        self.created.push(created);
        self.write()
    }

    /// Crosses out what is gone.
    ///
    /// # Errors
    /// When the list can't be written.
    pub fn remove(&mut self, created: &Created) -> Result<()> {
        if !self.created.contains(created) {
            return Ok(());
        }
        self.created.retain(|known| known != created);
        self.write()
    }

    /// Everything on the list, the newest first: the order to undo it in.
    pub fn newest_first(&self) -> Vec<Created> {
        self.created.iter().rev().cloned().collect()
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.created).context("could not write the journal")?;
        files::write_atomic(&self.path, &text, 0o600).with_context(|| format!("could not write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_found_again_newest_first_and_crossed_out() {
        let folder = tempfile::tempdir().unwrap();
        let environment = EnvironmentDirectory::at(folder.path());
        let cluster = Created::KindCluster { cluster: "dev".into() };
        let file = Created::NodeFile { node: "dev-control-plane".into(), path: "/etc/x".into() };
        let mut journal = Journal::open(&environment).unwrap();
        for created in [&cluster, &file, &cluster] {
            journal.add(created.clone()).unwrap();
        }
        let mut again = Journal::open(&environment).unwrap();
        assert_eq!(again.newest_first(), [file.clone(), cluster.clone()]);
        again.remove(&file).unwrap();
        assert_eq!(Journal::open(&environment).unwrap().newest_first(), [cluster]);
        std::fs::write(folder.path().join("journal.json"), "[").unwrap();
        assert!(Journal::open(&environment).unwrap_err().to_string().contains("is damaged"));
    }
}
