//! A registry's address, and whether it is spoken to in the clear.

use super::RegistryError;
use std::net::IpAddr;

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    scheme: &'static str,
    authority: String,
}

impl Endpoint {
    /// Reads `HOST` or `HOST:PORT`. Plain HTTP is spoken on loopback only, as
    /// containerd and Docker do it.
    pub(super) fn parse(registry: &str) -> Result<Self, RegistryError> {
        let refuse = || RegistryError::Address { registry: registry.to_owned() };
        let authority: http::uri::Authority = registry.parse().map_err(|_| refuse())?;
        // "host:", "host:name" and "user@host" are authorities, too.
        let after_host = registry.strip_prefix(authority.host()).ok_or_else(refuse)?;
        if authority.host().is_empty() || !after_host.is_empty() && authority.port_u16().is_none() {
            return Err(refuse());
        }
        let scheme = if is_loopback(authority.host()) { "http" } else { "https" };
        Ok(Self { scheme, authority: registry.to_owned() })
    }

    /// The URL of a path, which begins with a slash.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.authority)
    }

    /// Makes the place that an upload goes to out of a `Location`, which may be
    /// a path or a URL, and adds the blob's digest.
    pub(super) fn upload_url(&self, location: &str, digest: &str) -> String {
        let url = if location.starts_with('/') { self.url(location) } else { location.to_owned() };
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}digest={digest}")
    }

    /// Whether it is spoken to without encryption.
    pub(super) fn is_clear(&self) -> bool {
        self.scheme == "http"
    }

    /// The registry as it is called by people.
    pub(super) fn name(&self) -> &str {
        &self.authority
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
        ] {
            assert_eq!(Endpoint::parse(registry).unwrap().url("/v2/"), url);
        }
        for bad in ["", "host:", "host:port", "user@host", "http://host", "a/b", "ho st"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
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
}
