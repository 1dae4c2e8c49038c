//! How registries are reached, and with whose credentials: what Docker's own
//! files say, so that `docker login` is all that a user has to do.

use std::path::PathBuf;

/// The settings that a push or a pull goes by. The default knows of no
/// credentials and no certificates but the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `HOST[:PORT]` of registries that are spoken to without encryption; those
    /// on loopback always are, as Docker does it.
    pub insecure: Vec<String>,
    /// Docker's `config.json`, which may be absent.
    pub docker_config: Option<PathBuf>,
    /// Folders like `/etc/docker/certs.d`, with a folder for each registry
    /// (<https://docs.docker.com/engine/security/certificates/>).
    pub certificates: Vec<PathBuf>,
}

impl Access {
    /// From `DOCKER_CONFIG` and `HOME`, as Docker's own tools look for their files.
    pub fn from_env() -> Self {
        Self::resolve(|name| std::env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty()))
    }

    fn resolve(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let home = variable("HOME");
        let folder = variable("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        let rootless = home.map(|home| home.join(".config/docker/certs.d"));
        Self {
            insecure: Vec::new(),
            docker_config: folder.map(|folder| folder.join("config.json")),
            certificates: std::iter::once(PathBuf::from("/etc/docker/certs.d")).chain(rootless).collect(),
        }
    }

    /// The same, with these registries spoken to without encryption.
    #[must_use]
    pub fn with_insecure(mut self, registries: &[String]) -> Self {
        self.insecure.extend(registries.iter().cloned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_files_are_where_docker_looks_for_them() {
        let of = |config: &'static str| {
            Access::resolve(move |name| match name {
                "HOME" => Some("/home/dev".into()),
                "DOCKER_CONFIG" => Some(config.into()).filter(|_| !config.is_empty()),
                _ => None,
            })
        };
        assert_eq!(of("").docker_config, Some("/home/dev/.docker/config.json".into()));
        assert_eq!(of("/etc/x").docker_config, Some("/etc/x/config.json".into()));
        assert_eq!(Access::resolve(|_| None).docker_config, None);
    }
}
