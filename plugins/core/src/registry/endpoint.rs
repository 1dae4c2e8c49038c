//! A registry's address, and whether it is spoken to in the clear.

use super::RegistryError;
use super::access::Access;
use super::tls::Trust;
use std::net::IpAddr;

/// What everybody calls Docker Hub.
pub(super) const DOCKER_HUB: &str = "docker.io";
/// Where it is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    scheme: &'static str,
    name: String,
    authority: String,
}

impl Endpoint {
    /// Reads `HOST` or `HOST:PORT`. Plain HTTP is spoken on loopback only, as
    /// containerd and Docker do it.
    pub(super) fn parse(registry: &str) -> Result<Self, RegistryError> {
        Self::reached_by(registry, &Access::default())
    }

    /// [`Endpoint::parse`], and plain HTTP also where that is allowed by name.
    pub(super) fn reached_by(registry: &str, access: &Access) -> Result<Self, RegistryError> {
        let refuse = || RegistryError::Address { registry: registry.to_owned() };
        let authority: http::uri::Authority = registry.parse().map_err(|_| refuse())?;
        // "host:", "host:name" and "user@host" are authorities, too.
        let after_host = registry.strip_prefix(authority.host()).ok_or_else(refuse)?;
        if authority.host().is_empty() || !after_host.is_empty() && authority.port_u16().is_none() {
            return Err(refuse());
        }
        let clear = is_loopback(authority.host()) || access.insecure.iter().any(|insecure| insecure == registry);
        let hub = [DOCKER_HUB, "index.docker.io"].contains(&registry);
        Ok(Self {
            scheme: if clear { "http" } else { "https" },
            name: if hub { DOCKER_HUB.to_owned() } else { registry.to_owned() },
            authority: if hub { DOCKER_HUB_HOST.to_owned() } else { registry.to_owned() },
        })
    }

    /// The URL of a path, which begins with a slash.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.authority)
    }

    /// Makes the place that an upload goes on at out of a `Location`, which may
    /// be a path or a URL.
    pub(super) fn resolve(&self, location: &str) -> String {
        if location.starts_with('/') { self.url(location) } else { location.to_owned() }
    }

    /// The place that ends an upload, with the blob's digest.
    pub(super) fn upload_url(&self, location: &str, digest: &str) -> String {
        let url = self.resolve(location);
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}digest={digest}")
    }

    /// Whether a URL leads to this very registry: nobody else gets to see what
    /// it is told.
    pub(super) fn owns(&self, url: &str) -> bool {
        url.parse::<http::Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some(self.scheme) && uri.authority().is_some_and(|authority| authority.as_str() == self.authority)
        })
    }

    /// Whether it is spoken to without encryption.
    pub(super) fn is_clear(&self) -> bool {
        self.scheme == "http"
    }

    /// Whether it is on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.authority.parse::<http::uri::Authority>().is_ok_and(|authority| is_loopback(authority.host()))
    }

    /// Where its own certificates may be.
    pub(super) fn trust(&self, access: &Access) -> Trust {
        Trust { folders: access.certificates.iter().map(|folder| folder.join(&self.authority)).collect() }
    }

    /// The registry as it is called by people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_in_the_clear() {
        for (registry, url) in [
            ("localhost:5001", "http://localhost:5001/v2/"),
            ("127.0.0.1:5001", "http://127.0.0.1:5001/v2/"),
            ("[::1]:5001", "http://[::1]:5001/v2/"),
            ("registry.localhost", "http://registry.localhost/v2/"),
            ("registry.example.com", "https://registry.example.com/v2/"),
            ("192.0.2.1:5000", "https://192.0.2.1:5000/v2/"),
            ("notlocalhost:5000", "https://notlocalhost:5000/v2/"),
            ("docker.io", "https://registry-1.docker.io/v2/"),
        ] {
            assert_eq!(Endpoint::parse(registry).unwrap().url("/v2/"), url);
        }
        for bad in ["", "host:", "host:port", "user@host", "http://host", "a/b", "ho st"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
        let access = Access::default().with_insecure(&["192.0.2.1:5000".to_owned()]);
        assert_eq!(Endpoint::reached_by("192.0.2.1:5000", &access).unwrap().url("/"), "http://192.0.2.1:5000/");
        assert_eq!(Endpoint::reached_by("192.0.2.1:5001", &access).unwrap().url("/"), "https://192.0.2.1:5001/");
    }

    #[test]
    fn locations_are_paths_or_urls_with_or_without_a_query() {
        let endpoint = Endpoint::parse("localhost:5001").unwrap();
        assert_eq!(
            endpoint.upload_url("/v2/x/uploads/1?_state=a", "sha256:b"),
            "http://localhost:5001/v2/x/uploads/1?_state=a&digest=sha256:b"
        );
        assert_eq!(endpoint.upload_url("http://other:1/u", "sha256:b"), "http://other:1/u?digest=sha256:b");
    }

    #[test]
    fn credentials_go_to_the_registry_alone() {
        let endpoint = Endpoint::parse("example.com:5000").unwrap();
        assert!(endpoint.owns("https://example.com:5000/v2/x"));
        for other in ["http://example.com:5000/v2/x", "https://example.com/v2/", "https://example.com:5000.evil/v2/", "/v2/"] {
            assert!(!endpoint.owns(other), "{other}");
        }
    }
}
