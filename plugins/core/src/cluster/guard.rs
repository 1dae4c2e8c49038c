//! Keeps a tool that changes things off a cluster that looks like production
//! until its user has said once that it is meant.
//!
//! What was allowed is remembered by the context's name and the server's URL: a
//! context that leads elsewhere one day is asked about again.

use crate::environment::Directories;
use crate::error::{CommandError, ErrorContext, ErrorHint, Result};
use crate::files::{self, FileLock};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// How the contexts of clusters that are made for development start.
const LOCAL_PREFIXES: [&str; 8] = ["kind-", "k3d-", "minikube", "devloop-", "docker-desktop", "rancher-desktop", "orbstack", "colima"];

/// A context that its user has allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allowed {
    /// Its name.
    pub context: String,
    /// The URL of the API server that it led to.
    pub server: String,
}

/// What came of the question whether a context may be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It doesn't look like production.
    Local,
    /// It was allowed before.
    Remembered,
    /// It is allowed now, which is to be remembered.
    Granted,
    /// It isn't allowed.
    Refused {
        /// Where the context led when it was allowed, if it ever was.
        known_server: Option<String>,
    },
}

/// Whether a context may be worked on. `granted` is the name that the user gave
/// to `--allow-context`.
pub fn judge(context: &str, server: &str, remembered: &[Allowed], granted: Option<&str>) -> Verdict {
    if looks_local(context, server) {
        return Verdict::Local;
    }
    if remembered.iter().any(|allowed| allowed.context == context && same_server(&allowed.server, server)) {
        return Verdict::Remembered;
    }
    if granted == Some(context) {
        return Verdict::Granted;
    }
    let known = remembered.iter().rev().find(|allowed| allowed.context == context);
    Verdict::Refused { known_server: known.map(|allowed| allowed.server.clone()) }
}

/// Whether a context is of a cluster for development: its API server is on this
/// machine, or its name is one that such clusters' tools give.
pub fn looks_local(context: &str, server: &str) -> bool {
    LOCAL_PREFIXES.iter().any(|prefix| context.starts_with(prefix)) || is_loopback(server)
}

/// Whether a URL's host is this machine's loopback.
pub fn is_loopback(server: &str) -> bool {
    let Some((_, rest)) = server.split_once("://") else { return false };
    // What follows the last `@` is the host: a name before it proves nothing.
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    is_loopback_host(host)
}

/// The same of a host alone, an IPv6 address without its brackets.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The allowed contexts of this user.
#[derive(Clone, Debug)]
pub struct Guard {
    path: PathBuf,
}

impl Guard {
    /// What is remembered in devloop's state.
    pub fn new(directories: &Directories) -> Self {
        Self { path: directories.state.join("allowed-contexts.json") }
    }

    /// Lets the context pass or refuses it; remembers what is allowed now.
    ///
    /// # Errors
    /// When the context may not be worked on, or the list can't be read or
    /// written.
    pub fn check(&self, context: &str, server: &str, granted: Option<&str>) -> Result<Verdict> {
        if let Some(other) = granted.filter(|granted| *granted != context) {
            return Err(CommandError::usage(format!("--allow-context names {other:?}, but the context is {context:?}")))
                .hint(format!("choose that context with `--context {other}`"));
        }
        // A list that is damaged must not keep anybody off a local cluster.
        if looks_local(context, server) {
            return Ok(Verdict::Local);
        }
        let verdict = judge(context, server, &self.read()?, granted);
        match &verdict {
            Verdict::Local | Verdict::Remembered => {}
            Verdict::Granted => self.remember(context, server)?,
            Verdict::Refused { known_server } => return Err(refusal(context, server, known_server.as_deref())),
        }
        Ok(verdict)
    }

    fn remember(&self, context: &str, server: &str) -> Result<()> {
        let lock = self.path.with_extension("lock");
        let _lock = FileLock::acquire(&lock).with_context(|| format!("could not lock {}", lock.display()))?;
        let mut allowed = self.read()?;
        allowed.retain(|known| known.context != context);
        allowed.push(Allowed { context: context.to_owned(), server: server.to_owned() });
        let text = serde_json::to_vec_pretty(&allowed).context("could not write the allowed contexts")?;
        files::write_atomic(&self.path, &text, 0o600).with_context(|| format!("could not write {}", self.path.display()))
    }

    fn read(&self) -> Result<Vec<Allowed>> {
        let content = files::read_optional(&self.path).with_context(|| format!("could not read {}", self.path.display()))?;
        match content {
            Some(content) => serde_json::from_slice(&content)
                .with_context(|| format!("{} is damaged", self.path.display()))
                .hint(format!("remove it with `rm {}`; contexts have to be allowed again then", self.path.display())),
            None => Ok(Vec::new()),
        }
    }
}

fn refusal(context: &str, server: &str, known_server: Option<&str>) -> CommandError {
    let error = CommandError::new(format!("context {context:?} looks like production: its API server is {server}"));
    let error = match known_server {
        Some(known) => error.caused_by(CommandError::new(format!("it was allowed when its API server was {known}"))),
        None => error,
    };
    error.with_hint(format!("if it is meant, say so once with `--allow-context {context}`"))
}

/// A final slash is no other server.
fn same_server(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAR: &str = "https://api.example.com:6443";

    fn allowed(context: &str, server: &str) -> Allowed {
        Allowed { context: context.into(), server: server.into() }
    }

    #[test]
    fn clusters_for_development_are_told_by_name_or_by_loopback() {
        for local in ["https://127.0.0.1:6443", "https://localhost", "https://[::1]:6443/x", "https://127.9.9.9", "HTTPS://LOCALHOST:1"] {
            assert!(looks_local("prod", local), "{local}");
        }
        for far in [FAR, "https://localhost.example.com", "https://localhost@example.com", "https://127.0.0.1.example.com", "", "localhost"]
        {
            assert!(!looks_local("prod", far), "{far}");
        }
        for name in ["kind-x", "k3d-x", "minikube", "minikube-2", "devloop-a", "docker-desktop", "orbstack", "colima", "rancher-desktop"] {
            assert!(looks_local(name, FAR), "{name}");
        }
        assert!(!looks_local("mykind-x", FAR));
    }

    #[test]
    fn what_looks_like_production_is_refused_until_allowed_for_that_server() {
        let remembered = [allowed("prod", FAR)];
        assert_eq!(judge("prod", FAR, &[], None), Verdict::Refused { known_server: None });
        assert_eq!(judge("prod", FAR, &[], Some("other")), Verdict::Refused { known_server: None });
        assert_eq!(judge("prod", FAR, &[], Some("prod")), Verdict::Granted);
        assert_eq!(judge("prod", FAR, &remembered, None), Verdict::Remembered);
        assert_eq!(judge("prod", &format!("{FAR}/"), &remembered, None), Verdict::Remembered);
        assert_eq!(judge("prod", "https://new", &remembered, None), Verdict::Refused { known_server: Some(FAR.into()) });
        assert_eq!(judge("stage", FAR, &remembered, None), Verdict::Refused { known_server: None });
        assert_eq!(judge("prod", "https://127.0.0.1:1", &[], None), Verdict::Local);
    }

    #[test]
    fn it_is_remembered_between_runs_and_asked_again_for_another_server() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories { state: folder.path().join("state"), cache: folder.path().into() };
        let guard = Guard::new(&directories);
        let refused = guard.check("prod", FAR, None).unwrap_err();
        assert!(refused.hints()[0].contains("--allow-context prod"), "{:?}", refused.hints());
        assert_eq!(guard.check("prod", FAR, Some("prod")).unwrap(), Verdict::Granted);
        assert_eq!(Guard::new(&directories).check("prod", FAR, None).unwrap(), Verdict::Remembered);
        let moved = guard.check("prod", "https://new", None).unwrap_err();
        assert!(moved.chain()[1].contains(FAR), "{:?}", moved.chain());
        assert_eq!(guard.check("prod", "https://new", Some("prod")).unwrap(), Verdict::Granted);
        assert_eq!(guard.check("prod", FAR, Some("other")).unwrap_err().status().code(), 2);
        std::fs::write(folder.path().join("state/allowed-contexts.json"), "[").unwrap();
        assert!(guard.check("prod", FAR, None).unwrap_err().to_string().contains("is damaged"));
        assert_eq!(guard.check("kind-x", FAR, None).unwrap(), Verdict::Local);
    }

    proptest! {
        #[test]
        fn nothing_but_a_local_look_or_a_word_lets_a_context_pass(context in ".{0,20}", server in ".{0,40}", granted in proptest::option::of(".{0,20}")) {
            let verdict = judge(&context, &server, &[], granted.as_deref());
            match verdict {
                Verdict::Local => prop_assert!(looks_local(&context, &server)),
                Verdict::Granted => prop_assert_eq!(granted, Some(context)),
                Verdict::Remembered => prop_assert!(false),
                Verdict::Refused { .. } => prop_assert_ne!(granted, Some(context)),
            }
        }
    }
}
