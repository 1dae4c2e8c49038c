//! Credentials for a registry, from Docker's `config.json` and from the helper
//! programs that it names
//! (<https://docs.docker.com/reference/cli/docker/login/#credential-stores>,
//! <https://github.com/docker/docker-credential-helpers>).

use super::RegistryError;
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a helper may take: it may ask its user to unlock a key ring.
const PATIENCE: Duration = Duration::from_secs(60);
/// A helper's user name for what is not a password but a token to get tokens with.
const TOKEN_USER: &str = "<token>";

/// What a registry is told about who asks. Its secrets are shown to nobody else.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Password {
        username: String,
        secret: String,
    },
    /// An OAuth 2 refresh token.
    Identity(String),
    /// A token that the registry takes as it is.
    Registry(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::Identity(_) => "Identity(…)",
            Self::Registry(_) => "Registry(…)",
        })
    }
}

/// What counts of `config.json`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

/// An entry of `auths`; Docker has these names in lower case.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What the file says about one registry.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Here(Credential),
    /// A helper's name, and what the registry is called there.
    Helper(String, String),
}

/// Looks credentials up; `None` when there are none, and the registry has to do
/// without. `host` is what the user calls it.
pub(super) async fn find(config: Option<&Path>, host: &str) -> Result<Option<Credential>, RegistryError> {
    let Some(path) = config else { return Ok(None) };
    let failed = |reason: String| RegistryError::Credentials { registry: host.to_owned(), reason };
    let content = crate::files::read_optional(path).map_err(|error| failed(format!("could not read {}: {error}", path.display())))?;
    let Some(content) = content else { return Ok(None) };
    // The parser's words may quote what it read; its position is enough.
    let config: DockerConfig = serde_json::from_slice(&content)
        .map_err(|error| failed(format!("{}:{}:{} is not Docker's configuration", path.display(), error.line(), error.column())))?;
    match config.look_up(host) {
        Found::Nothing => Ok(None),
        Found::Here(credential) => Ok(Some(credential)),
        Found::Helper(name, server) => ask_helper(&name, &server).await.map_err(failed),
    }
}

impl DockerConfig {
    /// Pure. A helper for this registry comes first, then the one for all, then
    /// the file itself, as with Docker.
    fn look_up(&self, host: &str) -> Found {
        let keys = keys(host);
        let of_registry = keys.iter().find_map(|key| Some((self.cred_helpers.get(key)?, key.clone())));
        let of_all = self.creds_store.as_ref().filter(|name| !name.is_empty()).map(|name| {
            // A helper knows a registry by the very words of the login.
            let known = keys.iter().find(|key| self.auths.contains_key(*key)).unwrap_or(&keys[0]);
            (name, known.clone())
        });
        if let Some((name, server)) = of_registry.or(of_all) {
            return Found::Helper(name.clone(), server);
        }
        keys.iter().find_map(|key| self.auths.get(key)?.credential()).map_or(Found::Nothing, Found::Here)
    }
}

/// What a registry may be called in the file, the usual name first.
fn keys(host: &str) -> Vec<String> {
    if host == super::endpoint::DOCKER_HUB {
        // Docker Hub's name for logins, from its early days.
        return ["https://index.docker.io/v1/", "index.docker.io", "docker.io"].map(str::to_owned).to_vec();
    }
    vec![
        host.to_owned(),
        format!("https://{host}"),
        format!("http://{host}"),
        format!("https://{host}/"),
        format!("https://{host}/v1/"),
        format!("https://{host}/v2/"),
    ]
}

impl Entry {
    fn credential(&self) -> Option<Credential> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Some(Credential::Identity(token));
        }
        if let Some(token) = given(&self.registrytoken) {
            return Some(Credential::Registry(token));
        }
        if let Some(auth) = given(&self.auth) {
            let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (username, secret) = text.split_once(':')?;
            return Some(Credential::Password { username: username.to_owned(), secret: secret.trim_end_matches('\0').to_owned() });
        }
        Some(Credential::Password { username: given(&self.username)?, secret: given(&self.password)? })
    }
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    secret: String,
}

async fn ask_helper(name: &str, server: &str) -> Result<Option<Credential>, String> {
    let program = format!("docker-credential-{name}");
    if name.contains('/') {
        return Err(format!("{name:?} is not the name of a credential helper"));
    }
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("could not run {program}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that doesn't read says why when it ends.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.map_err(|_| format!("{program} does not answer"))?.map_err(|error| format!("could not run {program}: {error}"))?;
    if !output.status.success() {
        // Its errors are on stdout.
        let said = String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout }).trim().to_owned();
        return if said.contains("credentials not found") { Ok(None) } else { Err(format!("{program} failed: {said}")) };
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).map_err(|_| format!("{program} answers no credentials"))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credential::Identity(answer.secret),
        _ => Credential::Password { username: answer.username, secret: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(config: &str, host: &str) -> Found {
        serde_json::from_str::<DockerConfig>(config).unwrap().look_up(host)
    }

    fn password(username: &str, secret: &str) -> Found {
        Found::Here(Credential::Password { username: username.into(), secret: secret.into() })
    }

    #[test]
    fn what_docker_wrote_is_found_under_all_its_names() {
        // "me:se:cret"
        let entry = r#"{"auth": "bWU6c2U6Y3JldA=="}"#;
        for key in ["example.com:5000", "https://example.com:5000", "https://example.com:5000/v2/"] {
            assert_eq!(look_up(&format!(r#"{{"auths": {{"{key}": {entry}}}}}"#), "example.com:5000"), password("me", "se:cret"), "{key}");
        }
        let hub = format!(r#"{{"auths": {{"https://index.docker.io/v1/": {entry}}}}}"#);
        assert_eq!(look_up(&hub, "docker.io"), password("me", "se:cret"));
        assert_eq!(look_up(&hub, "example.com"), Found::Nothing);
        assert_eq!(look_up(r#"{"auths": {"a": {"username": "u", "password": "p"}}}"#, "a"), password("u", "p"));
        assert_eq!(
            look_up(r#"{"auths": {"a": {"auth": "dTpw", "identitytoken": "t"}}}"#, "a"),
            Found::Here(Credential::Identity("t".into()))
        );
        // Docker leaves an empty entry where a helper has the secret.
        assert_eq!(look_up(r#"{"auths": {"a": {}}}"#, "a"), Found::Nothing);
        assert_eq!(look_up(r#"{"auths": {"a": {"auth": "?"}}}"#, "a"), Found::Nothing);
    }

    #[test]
    fn a_helper_for_the_registry_comes_before_the_one_for_all() {
        let config = r#"{"auths": {"https://b": {}, "a": {"auth": "dTpw"}}, "credsStore": "pass", "credHelpers": {"a": "ecr-login"}}"#;
        assert_eq!(look_up(config, "a"), Found::Helper("ecr-login".into(), "a".into()));
        assert_eq!(look_up(config, "b"), Found::Helper("pass".into(), "https://b".into()));
        assert_eq!(look_up(config, "c"), Found::Helper("pass".into(), "c".into()));
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = [
            Credential::Password { username: "u".into(), secret: "hush".into() },
            Credential::Identity("hush".into()),
            Credential::Registry("hush".into()),
        ];
        assert!(!format!("{shown:?}").contains("hush"));
    }

    #[tokio::test]
    async fn a_damaged_file_is_named_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert_eq!(find(Some(&path), "a").await.unwrap(), None);
        std::fs::write(&path, r#"{"auths": {"a": {"auth": 17}}}"#).unwrap();
        let error = find(Some(&path), "a").await.unwrap_err().to_string();
        assert!(error.contains("config.json:1:27 is not Docker's configuration"), "{error}");
    }
}
