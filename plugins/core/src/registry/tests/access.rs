//! A registry that asks who it is, and one with a certificate of its own.

use super::*;
use crate::deliver::Progress;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use std::os::unix::fs::PermissionsExt;

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// `me` with password `hush`, by bcrypt.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuulzd.YqjLDl8lvpSmVj3De/fioSBHnUa\n";

async fn with_passwords() -> Option<Server> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("htpasswd");
    std::fs::write(&path, HTPASSWD).unwrap();
    let more = format!("auth: {{htpasswd: {{realm: here, path: '{}'}}}}\n", path.display());
    Server::start_with(folder, free_port().await, "", &more).await
}

/// Docker's configuration as a file.
fn access(folder: &Path, config: &str) -> Access {
    let path = folder.join("config.json");
    std::fs::write(&path, config).unwrap();
    Access { docker_config: Some(path), ..Access::default() }
}

async fn push_as(registry: &str, built: &Image, access: Access) -> Result<Pushed, RegistryError> {
    let options = PushOptions { access, ..PushOptions::default() };
    push_with(registry, &built.clone().into(), "team/x", "1", &options, &Progress::default()).await
}

#[tokio::test]
async fn a_password_comes_from_dockers_configuration_or_a_helper() {
    let Some(server) = with_passwords().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (registry, built) = (server.address.to_string(), image(folder.path(), &[vec![1; 100_000]]));
    let anonymous = push_as(&registry, &built, Access::default()).await.unwrap_err();
    assert!(matches!(&anonymous, RegistryError::Refused { status: 401, .. }), "{anonymous}");
    let hint = crate::ui::render_error(&anonymous.into());
    assert!(hint.contains(&format!("docker login {registry}")), "{hint}");
    let auth = |text: &str| format!(r#"{{"auths": {{"{registry}": {{"auth": "{}"}}}}}}"#, STANDARD.encode(text));
    let wrong = push_as(&registry, &built, access(folder.path(), &auth("me:wrong"))).await.unwrap_err();
    assert!(matches!(&wrong, RegistryError::Refused { status: 401, .. }) && !format!("{wrong:?}").contains("wrong"), "{wrong:?}");
    let pushed = push_as(&registry, &built, access(folder.path(), &auth("me:hush"))).await.unwrap();
    assert_eq!(pushed.sent_layers, 1);
    // A helper is found on PATH; its name here is one that nothing else has.
    let name = format!("devloop-test-{}", server.address.port());
    let program = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join(format!("docker-credential-{name}")))
        .find(|path| std::fs::write(path, format!("#!/bin/sh\n[ \"$1 $(cat)\" = 'get {registry}' ] || exit 1\necho '{{\"ServerURL\": \"\", \"Username\": \"me\", \"Secret\": \"hush\"}}'\n")).is_ok())
        .expect("a folder of PATH can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let helped = push_as(&registry, &built, access(folder.path(), &format!(r#"{{"credHelpers": {{"{registry}": "{name}"}}}}"#))).await;
    std::fs::write(&program, "#!/bin/sh\necho credentials not found in native keychain; exit 1\n").unwrap();
    let none = push_as(&registry, &built, access(folder.path(), &format!(r#"{{"credsStore": "{name}"}}"#))).await.unwrap_err();
    std::fs::remove_file(&program).unwrap();
    let gone = push_as(&registry, &built, access(folder.path(), &format!(r#"{{"credsStore": "{name}"}}"#))).await.unwrap_err();
    assert_eq!(helped.unwrap().sent_bytes, 0, "the image was there");
    assert!(matches!(none, RegistryError::Refused { status: 401, .. }), "{none}");
    assert!(gone.to_string().contains(&format!("could not run docker-credential-{name}")), "{gone}");
}

/// Signs tokens as registries want them (JWT, `x5c`), for whoever has the password.
async fn token_server(key: &KeyPair, certificate: &str, seen: Arc<Mutex<Vec<String>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &random).unwrap();
    let certificate = certificate.to_owned();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 8192];
            let count = client.read(&mut head).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..count]).into_owned();
            seen.lock().unwrap().push(text.clone());
            let password = text.contains(&format!("authorization: Basic {}", STANDARD.encode("me:hush")));
            let allowed = password || text.contains("refresh_token=long");
            let now = jiff::Timestamp::now().as_second();
            let header = serde_json::json!({"typ": "JWT", "alg": "ES256", "x5c": [certificate]});
            let actions = if allowed { vec!["pull", "push"] } else { vec![] };
            let claims = serde_json::json!({
                "iss": "us", "sub": "me", "aud": "here", "exp": now + 60, "nbf": now - 5, "iat": now, "jti": "1",
                "access": [{"type": "repository", "name": "team/x", "actions": actions}],
            });
            let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
            let signature = URL_SAFE_NO_PAD.encode(key.sign(&random, signed.as_bytes()).unwrap());
            let body = format!("{{\"access_token\": \"{signed}.{signature}\"}}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_sends_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["us".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("root.pem"), certificate.pem()).unwrap();
    let seen = Arc::default();
    let tokens = token_server(&key, &STANDARD.encode(certificate.der()), Arc::clone(&seen)).await;
    let more = format!(
        "auth: {{token: {{realm: 'http://127.0.0.1:{tokens}/token?x=1', service: here, issuer: us, rootcertbundle: '{}'}}}}\n",
        folder.path().join("root.pem").display()
    );
    let files = tempfile::tempdir().unwrap();
    let Some(server) = Server::start_with(folder, free_port().await, "", &more).await else { return };
    let registry = server.address.to_string();
    let built = image(files.path(), &[vec![1; 100_000]]);
    let refused = push_as(&registry, &built, Access::default()).await.unwrap_err();
    assert!(matches!(&refused, RegistryError::Refused { status: 401, .. }), "{refused}");
    seen.lock().unwrap().clear();
    let config = |entry: &str| format!(r#"{{"auths": {{"{registry}": {entry}}}}}"#);
    let password = config(&format!(r#"{{"auth": "{}"}}"#, STANDARD.encode("me:hush")));
    assert_eq!(push_as(&registry, &built, access(files.path(), &password)).await.unwrap().sent_layers, 1);
    // One token is enough for all that a push does.
    let asked = seen.lock().unwrap().split_off(0);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].contains("/token?x=1&service=here&scope=repository%3Ateam%2Fx%3Apull%2Cpush&account=me"), "{asked:?}");
    let identity = config(r#"{"identitytoken": "long"}"#);
    let other = image(files.path(), &[vec![2; 1000]]);
    assert_eq!(push_as(&registry, &other, access(files.path(), &identity)).await.unwrap().sent_layers, 1);
    assert!(seen.lock().unwrap()[0].starts_with("POST /token?x=1 "));
}

/// A name that is not loopback's to us, and leads there all the same: by itself,
/// with a free port, and as an address.
async fn named_host() -> Option<(String, String, SocketAddr)> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    let host = format!("{name}:{}", free_port().await);
    let resolved = tokio::net::lookup_host(&host).await;
    let address = resolved.ok().and_then(|mut found| found.find(SocketAddr::is_ipv4));
    if address.is_none() {
        eprintln!("skipped: this machine's name leads nowhere");
    }
    Some((name, host, address?))
}

#[tokio::test]
async fn a_registry_with_its_own_authority_is_trusted_by_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, key) = (authority("ours"), KeyPair::generate().unwrap());
    let Some((name, host, address)) = named_host().await else { return };
    let issue = |key: &KeyPair| CertificateParams::new(vec![name.clone()]).unwrap().signed_by(key, &ours).unwrap().pem();
    let path = |file: &str| folder.path().join(file);
    std::fs::write(path("server.pem"), issue(&key)).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    std::fs::write(path("ca.pem"), ours.pem()).unwrap();
    let http = format!(
        "  tls: {{certificate: '{}', key: '{}', clientcas: ['{}']}}\n",
        path("server.pem").display(),
        path("server.key").display(),
        path("ca.pem").display()
    );
    let certificates = tempfile::tempdir().unwrap();
    let own = certificates.path().join(&host);
    std::fs::create_dir(&own).unwrap();
    let files = tempfile::tempdir().unwrap();
    let built = image(files.path(), &[vec![1; 100_000]]);
    let Some(_server) = Server::start_at_address(folder, address, &http, "").await else { return };
    let access = Access { certificates: vec![certificates.path().to_owned()], ..Access::default() };
    let unknown = crate::ui::render_error(&push_as(&host, &built, access.clone()).await.unwrap_err().into());
    assert!(unknown.contains(&format!("certs.d/{host}/ca.crt")), "{unknown}");
    std::fs::write(own.join("ca.crt"), ours.pem()).unwrap();
    // This one wants to see a certificate of ours, too.
    assert!(push_as(&host, &built, access.clone()).await.is_err());
    let client = KeyPair::generate().unwrap();
    std::fs::write(own.join("me.cert"), issue(&client)).unwrap();
    std::fs::write(own.join("me.key"), client.serialize_pem()).unwrap();
    assert_eq!(push_as(&host, &built, access).await.unwrap().sent_layers, 1);
}

#[tokio::test]
async fn encryption_is_done_without_where_that_is_allowed_by_name() {
    let Some((_, host, address)) = named_host().await else { return };
    let Some(_server) = Server::start_at_address(tempfile::tempdir().unwrap(), address, "", "").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = image(folder.path(), &[vec![1; 1000]]);
    let refused = crate::ui::render_error(&push_as(&host, &built, Access::default()).await.unwrap_err().into());
    assert!(refused.contains(&format!("--insecure-registry {host}")), "{refused}");
    assert_eq!(push_as(&host, &built, Access::default().with_insecure(std::slice::from_ref(&host))).await.unwrap().sent_layers, 1);
}
