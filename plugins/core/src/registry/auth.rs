//! Who asks: what a registry wants to know before it answers, and the tokens it
//! sends one for
//! (<https://distribution.github.io/distribution/spec/auth/token/>, `oauth/`
//! beside it; RFC 9110, section 11).

use super::RegistryError;
use super::credentials::{self, Credential};
use super::endpoint::Endpoint;
use super::transport::{Body, Transport};
use base64::Engine as _;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::Mutex;

/// Tokens are some kilobytes.
const MAX_TOKEN_ANSWER: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(15);

/// What a registry wants, from its header `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Answers the challenges of one registry.
#[derive(Debug)]
pub(super) struct Authorizer {
    docker_config: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    header: Option<HeaderValue>,
    scopes: Scopes,
    /// Looked up once, when it is asked for.
    credential: Option<Option<Credential>>,
}

/// What is asked for: actions by kind and name, such as `repository:team/shop`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Authorizer {
    pub(super) fn new(docker_config: Option<PathBuf>) -> Self {
        Self { docker_config, state: Mutex::default() }
    }

    /// Has this be part of every token, so that one is enough.
    pub(super) async fn expect(&self, scope: &str) {
        self.state.lock().await.scopes.add(scope);
    }

    /// What goes along with a request, if anything.
    pub(super) async fn header(&self) -> Option<HeaderValue> {
        self.state.lock().await.header.clone()
    }

    /// Answers a challenge to a request that had `used` with it; `None` when there
    /// is nothing to answer with.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        // Held meanwhile: whoever else was refused gets the same answer.
        let mut state = self.state.lock().await;
        if state.header.is_some() && state.header.as_ref() != used {
            return Ok(state.header.clone());
        }
        let Some(challenge) = challenge(headers) else { return Ok(None) };
        let credential = match &state.credential {
            Some(known) => known.clone(),
            None => {
                let found = credentials::find(self.docker_config.as_deref(), endpoint.name()).await?;
                state.credential.insert(found).clone()
            }
        };
        tracing::debug!(registry = endpoint.name(), ?challenge, with = ?credential, "the registry asks who it is");
        let header = match (challenge, credential) {
            (Challenge::Basic, Some(Credential::Password { username, secret })) => Some(basic(&username, &secret)),
            (Challenge::Bearer { .. }, Some(Credential::Registry(token))) => Some(format!("Bearer {token}")),
            (Challenge::Basic, _) => None,
            (Challenge::Bearer { realm, service, scope }, credential) => {
                scope.iter().flat_map(|scope| scope.split(' ')).for_each(|scope| state.scopes.add(scope));
                let want = Want { realm: &realm, service: service.as_deref(), scopes: state.scopes.render() };
                Some(format!("Bearer {}", token(transport, endpoint, &want, credential.as_ref()).await?))
            }
        };
        let header = header.and_then(|text| HeaderValue::from_str(&text).ok()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        // The same again would be refused again.
        if header.as_ref() == used {
            return Ok(None);
        }
        state.header.clone_from(&header);
        Ok(header)
    }
}

impl Scopes {
    /// `repository:NAME:pull,push`; the name may have a port in it.
    fn add(&mut self, scope: &str) {
        if let Some((resource, actions)) = scope.rsplit_once(':') {
            self.0.entry(resource.to_owned()).or_default().extend(actions.split(',').map(str::to_owned));
        }
    }

    fn render(&self) -> Vec<String> {
        let one = |(resource, actions): (&String, &BTreeSet<String>)| {
            format!("{resource}:{}", actions.iter().map(String::as_str).collect::<Vec<_>>().join(","))
        };
        self.0.iter().map(one).collect()
    }
}

fn basic(username: &str, secret: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{secret}")))
}

/// What a token is to be good for.
struct Want<'a> {
    realm: &'a str,
    service: Option<&'a str>,
    scopes: Vec<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

async fn token(
    transport: &Transport,
    endpoint: &Endpoint,
    want: &Want<'_>,
    credential: Option<&Credential>,
) -> Result<String, RegistryError> {
    const DOING: &str = "get a token";
    let wrong = |reason: String| RegistryError::NotARegistry { registry: endpoint.name().to_owned(), reason };
    let realm: http::Uri = want.realm.parse().map_err(|_| wrong(format!("it sends for a token to {:?}", want.realm)))?;
    // A registry that is spoken to in secret must not have secrets sent in the clear.
    if realm.scheme_str() != Some("https") && !endpoint.is_clear() {
        return Err(wrong(format!("it sends for a token to {:?}, which is not encrypted", want.realm)));
    }
    let mut pairs: Vec<(&str, &str)> = want.service.iter().map(|service| ("service", *service)).collect();
    let request = Request::builder().header(USER_AGENT, "devloop").header(ACCEPT, "application/json");
    let request = match credential {
        Some(Credential::Identity(refresh)) => {
            let scopes = want.scopes.join(" ");
            pairs.extend([("grant_type", "refresh_token"), ("client_id", "devloop"), ("refresh_token", refresh), ("scope", &scopes)]);
            let body = Full::new(Bytes::from(form(&pairs))).map_err(|never| match never {}).boxed_unsync();
            request.method(Method::POST).uri(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        }
        other => {
            pairs.extend(want.scopes.iter().map(|scope| ("scope", scope.as_str())));
            if let Some(Credential::Password { username, .. }) = other {
                pairs.push(("account", username));
            }
            let separator = if realm.query().is_some() { '&' } else { '?' };
            let mut request = request.method(Method::GET).uri(format!("{realm}{separator}{}", form(&pairs)));
            if let Some(Credential::Password { username, secret }) = other {
                request = request.header(AUTHORIZATION, basic(username, secret));
            }
            request.body(empty())
        }
    };
    let request = request.map_err(|error| wrong(format!("it sends for a token to {:?}: {error}", want.realm)))?;
    let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Unreachable {
        registry: want.realm.to_owned(),
        doing: DOING.to_owned(),
        attempts: super::retry::ATTEMPTS,
        source,
    };
    let exchanged = async {
        let (head, body) = transport.request(request).await?.into_parts();
        let body = Limited::new(body, MAX_TOKEN_ANSWER).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head.status, body))
    };
    let (status, body) = match tokio::time::timeout(PATIENCE, exchanged).await {
        Ok(answer) => answer.map_err(unreachable)?,
        Err(_) => return Err(unreachable("it took too long".into())),
    };
    if status != StatusCode::OK {
        let (status, message) = (status.as_u16(), super::exchange::message_of(&body));
        let registry = endpoint.name().to_owned();
        return Err(RegistryError::Refused {
            registry,
            doing: format!("give a token at {}", want.realm),
            status,
            message,
            retry_after: None,
        });
    }
    let answer: Option<TokenAnswer> = serde_json::from_slice(&body).ok();
    let token = answer.and_then(|answer| answer.token.or(answer.access_token)).filter(|token| !token.is_empty());
    token.ok_or_else(|| wrong(format!("{} gives no token", want.realm)))
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

/// `application/x-www-form-urlencoded`, which a query takes as well.
fn form(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    };
    pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect::<Vec<_>>().join("&")
}

/// The challenge that is answered: a token is better than a password.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(http::header::WWW_AUTHENTICATE).into_iter().filter_map(|value| value.to_str().ok());
    let all: Vec<Challenge> = texts.flat_map(parse).collect();
    all.iter().find(|challenge| **challenge != Challenge::Basic).or(all.first()).cloned()
}

/// Reads the challenges of one header that are understood here. Pure.
fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            challenges.push((word.to_ascii_lowercase(), BTreeMap::new()));
            rest = after;
            continue;
        };
        let (value, after) = read_value(value.trim_start());
        if let Some((_, parameters)) = challenges.last_mut() {
            parameters.insert(word.to_ascii_lowercase(), value);
        }
        rest = after;
    }
    let known = challenges.into_iter().filter_map(|(scheme, mut parameters)| match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let realm = parameters.remove("realm")?;
            Some(Challenge::Bearer { realm, service: parameters.remove("service"), scope: parameters.remove("scope") })
        }
        _ => None,
    });
    known.collect()
}

/// A token or a quoted string, and what follows it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (index, character) in quoted.char_indices() {
        match character {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return (value, &quoted[index + 1..]),
            _ => {
                value.push(character);
                escaped = false;
            }
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned), scope: scope.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (text, expected) in [
            ("Basic realm=\"Registry\"", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:me/x:pull,push\"",
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:me/x:pull,push"))],
            ),
            ("bearer realm=https://a/t , scope=\"a \\\"b\\\"\"", vec![bearer("https://a/t", None, Some("a \"b\""))]),
            ("Negotiate, Basic realm=x, Bearer realm=\"y\"", vec![Challenge::Basic, bearer("y", None, None)]),
            ("Bearer service=\"no realm\"", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.append("www-authenticate", "Basic realm=x".parse().unwrap());
        headers.append("www-authenticate", "Bearer realm=y".parse().unwrap());
        assert_eq!(challenge(&headers), Some(bearer("y", None, None)));
    }

    #[test]
    fn scopes_of_a_repository_are_joined() {
        let mut scopes = Scopes::default();
        for scope in ["repository:a/b:pull", "repository:a/b:push,pull", "repository:c:pull", "nonsense"] {
            scopes.add(scope);
        }
        assert_eq!(scopes.render(), ["repository:a/b:pull,push", "repository:c:pull"]);
        assert_eq!(form(&[("scope", "repository:a/b:pull,push"), ("x", "é &")]), "scope=repository%3Aa%2Fb%3Apull%2Cpush&x=%C3%A9%20%26");
    }

    proptest! {
        #[test]
        fn any_header_is_read_to_its_end(text in "[ -~é]{0,80}") {
            parse(&text);
        }
    }
}
