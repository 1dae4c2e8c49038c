//! Connections to registries, in the clear and encrypted.

use super::tls::{self, Trust};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A client for both kinds of URL.
pub(super) struct Transport {
    clear: Client<HttpConnector, Body>,
    /// Made when it is needed: reading this machine's certificates takes longer
    /// than most pushes to a registry on loopback, which has no use for them.
    encrypted: OnceLock<Client<HttpsConnector<HttpConnector>, Body>>,
    trust: Trust,
}

impl Transport {
    pub(super) fn new(trust: Trust) -> Self {
        Self { clear: Client::builder(TokioExecutor::new()).build(connector()), encrypted: OnceLock::new(), trust }
    }

    pub(super) async fn request(&self, request: Request<Body>) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        if request.uri().scheme_str() != Some("https") {
            return Ok(self.clear.request(request).await?);
        }
        let client = match self.encrypted.get() {
            Some(client) => client,
            None => {
                let mut http = connector();
                http.enforce_http(false);
                let config = tls::config(&self.trust)?;
                let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(http);
                self.encrypted.get_or_init(|| Client::builder(TokioExecutor::new()).build(connector))
            }
        };
        Ok(client.request(request).await?)
    }
}

fn connector() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(Duration::from_secs(5)));
    http.set_nodelay(true);
    http
}
