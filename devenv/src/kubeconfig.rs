//! The user's kubeconfig: our context goes in and comes out, all else stays.
//!
//! The file is locked the way client-go locks it (`FILE.lock`, made with
//! `O_EXCL`), so that a `kubectl config` at the same time loses nothing.

use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::{cluster, files};
use serde_yaml_ng::{Mapping, Value};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a context needs: the API's address and a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name of the context, the cluster and the user.
    pub name: String,
    /// URL of the API server.
    pub server: String,
    /// PEM, base64 as the format wants it.
    pub certificate_authority: String,
    /// PEM, base64.
    pub client_certificate: String,
    /// PEM, base64.
    pub client_key: String,
}

/// The file that `kubectl config` would write to.
///
/// # Errors
/// When neither `KUBECONFIG` nor `HOME` is set.
pub fn user_path() -> Result<PathBuf> {
    let first = cluster::kubeconfig_paths().into_iter().next();
    let path = first.ok_or_else(|| CommandError::new("neither KUBECONFIG nor HOME is set, so there is no kubeconfig to write to"))?;
    // A kubeconfig that is a link stays one.
    Ok(std::fs::canonicalize(&path).unwrap_or(path))
}

/// Adds or replaces the context and makes it the current one. Answers the
/// context that was current before, unless that was this one.
///
/// # Errors
/// When the file can't be locked, read or written; it is unchanged then.
pub fn merge(path: &Path, entry: &Entry) -> Result<Option<String>> {
    edit(path, |config| {
        let before = config.get("current-context").and_then(Value::as_str).map(str::to_owned);
        insert(config, entry);
        before.filter(|before| !before.is_empty() && *before != entry.name)
    })
}

/// Removes the context; where it is the current one, `previous` takes its place
/// if that still exists. A file that holds nothing else goes, too.
///
/// # Errors
/// When the file can't be locked, read or written; it is unchanged then.
pub fn remove(path: &Path, name: &str, previous: Option<&str>) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let empty = edit(path, |config| {
        take_out(config, name, previous);
        holds_nothing(config)
    })?;
    if empty {
        files::remove_all(path).with_context(|| format!("could not remove {}", path.display()))?;
    }
    Ok(())
}

/// Makes a context that is there already, maybe in another file of
/// `KUBECONFIG`, the current one. The first file has the say.
///
/// # Errors
/// When the file can't be locked, read or written; it is unchanged then.
pub fn make_current(path: &Path, name: &str) -> Result<()> {
    edit(path, |config| {
        config.entry("apiVersion".into()).or_insert("v1".into());
        config.entry("kind".into()).or_insert("Config".into());
        config.insert("current-context".into(), name.into());
    })
}

/// Gives the current context back, unless somebody has chosen another since:
/// only `name` is replaced.
///
/// # Errors
/// When the file can't be locked, read or written; it is unchanged then.
pub fn give_back_current(path: &Path, name: &str, previous: Option<&str>) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    edit(path, |config| {
        if config.get("current-context").and_then(Value::as_str) == Some(name) {
            config.insert("current-context".into(), previous.unwrap_or_default().into());
        }
    })
}

/// Where a context of the kubeconfig leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The file that says so.
    pub path: PathBuf,
    /// URL of the API server; empty when the context leads nowhere.
    pub server: String,
    /// Base64 as the format wants it; empty when it is not part of the file.
    pub certificate_authority: String,
}

impl Destination {
    /// Whether an entry leads to the same cluster.
    pub fn is_of(&self, entry: &Entry) -> bool {
        (self.server.as_str(), self.certificate_authority.as_str()) == (&entry.server, &entry.certificate_authority)
    }
}

/// Looks a context up in all files of the kubeconfig; the first that has it
/// counts, as for kubectl.
///
/// # Errors
/// When a file can't be read.
pub fn find(context: &str) -> Result<Option<Destination>> {
    for path in cluster::kubeconfig_paths() {
        if let Some(found) = find_in(&path, context)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn find_in(path: &Path, context: &str) -> Result<Option<Destination>> {
    let Some(content) = files::read_optional(path).with_context(|| format!("could not read {}", path.display()))? else {
        return Ok(None);
    };
    let config: Value = serde_yaml_ng::from_slice(&content).with_context(|| format!("{} is not YAML", path.display()))?;
    let named = |list: &str, name: &str| config.get(list)?.as_sequence()?.iter().find(|item| is_named(item, name)).cloned();
    let Some(found) = named("contexts", context) else { return Ok(None) };
    let cluster = found.get("context").and_then(|inner| inner.get("cluster")).and_then(Value::as_str).unwrap_or_default();
    let cluster = named("clusters", cluster).and_then(|cluster| cluster.get("cluster").cloned()).unwrap_or_default();
    let text = |key: &str| cluster.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Some(Destination { path: path.to_owned(), server: text("server"), certificate_authority: text("certificate-authority-data") }))
}

/// Reads the entry of a kubeconfig that has one only, as tools print it for a
/// cluster of theirs.
///
/// # Errors
/// When it has another form.
pub fn parse_entry(text: &str, name: &str) -> Result<Entry> {
    let config: Value = serde_yaml_ng::from_str(text).with_context(|| format!("the kubeconfig of {name} is not YAML"))?;
    let first = |list: &str, inner: &str, key: &str| {
        let value = config.get(list).and_then(|list| list.get(0)).and_then(|item| item.get(inner)).and_then(|item| item.get(key));
        value.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| CommandError::new(format!("the kubeconfig of {name} has no {key}")))
    };
    Ok(Entry {
        name: name.to_owned(),
        server: first("clusters", "cluster", "server")?,
        certificate_authority: first("clusters", "cluster", "certificate-authority-data")?,
        client_certificate: first("users", "user", "client-certificate-data")?,
        client_key: first("users", "user", "client-key-data")?,
    })
}

/// Refuses a file that can't be changed, before anything is made that would
/// have to be written down in it. One without any permission to write was made
/// so by somebody, even where root could write.
///
/// # Errors
/// With what can't be written.
pub fn check_writable(path: &Path) -> Result<()> {
    use nix::unistd::{AccessFlags, access};
    use std::os::unix::fs::PermissionsExt;
    let refuse = |path: &Path, reason: &str| {
        Err(CommandError::new(format!("{} can't be written: {reason}", path.display())))
            .hint("make it writable, or name another file with KUBECONFIG")
    };
    if let Ok(metadata) = path.metadata() {
        if metadata.permissions().mode() & 0o222 == 0 {
            return refuse(path, "it is read-only");
        }
        if let Err(error) = access(path, AccessFlags::W_OK) {
            return refuse(path, error.desc());
        }
    }
    // It is replaced, and locked, by files beside it.
    let folder = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match access(folder, AccessFlags::W_OK) {
        Ok(()) => Ok(()),
        Err(error) => refuse(folder, error.desc()),
    }
}

fn holds_nothing(config: &Mapping) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Sequence(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Mapping(mapping) => mapping.is_empty(),
        _ => false,
    };
    config.iter().all(|(key, value)| matches!(key.as_str(), Some("apiVersion" | "kind")) || is_empty(value))
}

/// Whether the file has exactly this entry.
pub fn contains(path: &Path, entry: &Entry) -> bool {
    let Ok(Some(content)) = files::read_optional(path) else { return false };
    let Ok(Value::Mapping(mut config)) = serde_yaml_ng::from_slice(&content) else { return false };
    let before = config.clone();
    insert(&mut config, entry);
    config.insert("current-context".into(), before.get("current-context").cloned().unwrap_or(Value::Null));
    before == config
}

/// A kubeconfig with this one context, as YAML.
///
/// # Errors
/// Never, in practice: the structure is plain.
pub fn standalone(entry: &Entry) -> Result<String> {
    let mut config = Mapping::new();
    insert(&mut config, entry);
    serde_yaml_ng::to_string(&config).context("could not write the kubeconfig as YAML")
}

fn insert(config: &mut Mapping, entry: &Entry) {
    config.entry("apiVersion".into()).or_insert("v1".into());
    config.entry("kind".into()).or_insert("Config".into());
    let cluster = mapping([("certificate-authority-data", entry.certificate_authority.as_str()), ("server", &entry.server)]);
    let user = mapping([("client-certificate-data", entry.client_certificate.as_str()), ("client-key-data", &entry.client_key)]);
    let context = mapping([("cluster", entry.name.as_str()), ("user", &entry.name)]);
    for (list, key, value) in [("clusters", "cluster", cluster), ("users", "user", user), ("contexts", "context", context)] {
        let mut named = Mapping::new();
        named.insert("name".into(), entry.name.as_str().into());
        named.insert(key.into(), value);
        let named = Value::Mapping(named);
        let items = sequence(config, list);
        match items.iter_mut().find(|item| is_named(item, &entry.name)) {
            // A namespace that the user set on our context is theirs.
            Some(existing) if list == "contexts" => {
                if let Some(Value::Mapping(existing)) = existing.get_mut("context") {
                    existing.insert("cluster".into(), entry.name.as_str().into());
                    existing.insert("user".into(), entry.name.as_str().into());
                } else {
                    *existing = named;
                }
            }
            Some(existing) => *existing = named,
            None => items.push(named),
        }
    }
    config.insert("current-context".into(), entry.name.as_str().into());
}

fn take_out(config: &mut Mapping, name: &str, previous: Option<&str>) {
    for list in ["clusters", "users", "contexts"] {
        sequence(config, list).retain(|item| !is_named(item, name));
    }
    if config.get("current-context").and_then(Value::as_str) == Some(name) {
        let back = previous.filter(|previous| sequence(config, "contexts").iter().any(|item| is_named(item, previous)));
        config.insert("current-context".into(), back.unwrap_or_default().into());
    }
}

fn mapping<const N: usize>(pairs: [(&str, &str); N]) -> Value {
    Value::Mapping(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

fn is_named(item: &Value, name: &str) -> bool {
    item.get("name").and_then(Value::as_str) == Some(name)
}

/// The list under `key`; `null` and absence, both usual in the wild, become an
/// empty one.
fn sequence<'a>(config: &'a mut Mapping, key: &str) -> &'a mut Vec<Value> {
    let value = config.entry(key.into()).or_insert(Value::Null);
    if !value.is_sequence() {
        *value = Value::Sequence(Vec::new());
    }
    match value {
        Value::Sequence(items) => items,
        _ => unreachable!("made a sequence just above"),
    }
}

fn edit<T>(path: &Path, change: impl FnOnce(&mut Mapping) -> T) -> Result<T> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let _lock = Lock::acquire(path)?;
    let content = files::read_optional(path).with_context(|| format!("could not read {}", path.display()))?.unwrap_or_default();
    let parsed: Value = serde_yaml_ng::from_slice(&content).with_context(|| format!("{} is not YAML", path.display()))?;
    let mut config = match parsed {
        Value::Null => Mapping::new(),
        Value::Mapping(config) => config,
        _ => return Err(CommandError::new(format!("{} is not a kubeconfig", path.display()))),
    };
    let before = config.clone();
    let result = change(&mut config);
    if config != before || content.is_empty() {
        let text = serde_yaml_ng::to_string(&config).context("could not write the kubeconfig as YAML")?;
        files::write_atomic(path, text.as_bytes(), 0o600).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(result)
}

/// client-go's lock file; ours holds our process id, so that one left by a
/// killed run of ours can be told from one that is in use.
struct Lock {
    path: PathBuf,
}

impl Lock {
    fn acquire(config: &Path) -> Result<Self> {
        let mut name = config.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let started = Instant::now();
        loop {
            match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    // Only a help for later runs; the lock holds without it.
                    let _ = write!(file, "devloop {}", std::process::id());
                    return Ok(Self { path });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    if is_abandoned(&path) {
                        let _ = std::fs::remove_file(&path);
                        continue;
                    }
                }
                Err(error) => return Err(error).with_context(|| format!("could not lock {}", config.display())),
            }
            if started.elapsed() > Duration::from_secs(5) {
                return Err(CommandError::new(format!("{} is locked by another program", config.display())))
                    .hint(format!("if no kubectl is running, remove {}", path.display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_abandoned(path: &Path) -> bool {
    let content = std::fs::read_to_string(path).unwrap_or_default();
    let pid = content.strip_prefix("devloop ").and_then(|pid| pid.trim().parse().ok());
    pid.is_some_and(|pid| devloop_core::node::process_start_time(pid).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry() -> Entry {
        Entry {
            name: "devloop-default".into(),
            server: "https://127.0.0.1:16443".into(),
            certificate_authority: "Y2E=".into(),
            client_certificate: "Y2VydA==".into(),
            client_key: "a2V5".into(),
        }
    }

    const FOREIGN: &str = "apiVersion: v1\nkind: Config\npreferences: {}\nx-custom: kept\nclusters:\n- name: prod\n  cluster: {server: 'https://prod'}\nusers: null\ncontexts:\n- name: prod\n  context: {cluster: prod, user: me}\ncurrent-context: prod\n";

    #[test]
    fn merge_then_remove_gives_back_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, FOREIGN).unwrap();
        assert_eq!(merge(&path, &entry()).unwrap().as_deref(), Some("prod"));
        assert!(contains(&path, &entry()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("x-custom: kept") && text.contains("current-context: devloop-default"), "{text}");
        // Again: nothing to say, nothing changed.
        assert_eq!(merge(&path, &entry()).unwrap(), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        remove(&path, "devloop-default", Some("prod")).unwrap();
        let mut expected: Mapping = serde_yaml_ng::from_str(FOREIGN).unwrap();
        expected.insert("users".into(), Value::Sequence(Vec::new()));
        assert_eq!(serde_yaml_ng::from_str::<Mapping>(&std::fs::read_to_string(&path).unwrap()).unwrap(), expected);
    }

    #[test]
    fn the_current_context_is_changed_and_given_back_unless_another_was_chosen_since() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, FOREIGN).unwrap();
        let before: Mapping = serde_yaml_ng::from_str(FOREIGN).unwrap();
        let read = || serde_yaml_ng::from_str::<Mapping>(&std::fs::read_to_string(&path).unwrap()).unwrap();
        make_current(&path, "other").unwrap();
        assert_eq!(read().get("current-context").and_then(Value::as_str), Some("other"));
        give_back_current(&path, "somebody's", Some("prod")).unwrap();
        assert_eq!(read().get("current-context").and_then(Value::as_str), Some("other"));
        give_back_current(&path, "other", Some("prod")).unwrap();
        assert_eq!(read(), before);
        give_back_current(&folder.path().join("missing"), "other", None).unwrap();
        assert!(!folder.path().join("missing").exists());
    }

    #[test]
    fn a_missing_file_is_made_and_rubbish_is_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/config");
        merge(&path, &entry()).unwrap();
        assert!(contains(&path, &entry()));
        remove(&path, "devloop-default", None).unwrap();
        assert!(!path.exists(), "a file that we made and that holds nothing is removed");
        std::fs::write(&path, "- a list").unwrap();
        assert!(merge(&path, &entry()).unwrap_err().to_string().contains("not a kubeconfig"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "- a list");
    }

    #[test]
    fn a_namespace_set_by_the_user_survives_an_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        merge(&path, &entry()).unwrap();
        let text =
            std::fs::read_to_string(&path).unwrap().replace("    user: devloop-default", "    user: devloop-default\n    namespace: mine");
        std::fs::write(&path, &text).unwrap();
        merge(&path, &Entry { server: "https://127.0.0.1:2".into(), ..entry() }).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("namespace: mine"));
    }

    #[test]
    fn a_lock_left_by_a_killed_run_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(folder.path().join("config.lock"), "devloop 999999999").unwrap();
        merge(&path, &entry()).unwrap();
        assert!(!folder.path().join("config.lock").exists());
    }

    #[test]
    fn a_context_is_found_with_where_it_leads_and_an_entry_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, FOREIGN).unwrap();
        assert_eq!(find_in(&path, "other").unwrap(), None);
        let found = find_in(&path, "prod").unwrap().unwrap();
        assert_eq!((found.server.as_str(), found.is_of(&entry())), ("https://prod", false));
        merge(&path, &entry()).unwrap();
        assert!(find_in(&path, "devloop-default").unwrap().unwrap().is_of(&entry()));
        assert_eq!(parse_entry(&standalone(&entry()).unwrap(), "devloop-default").unwrap(), entry());
        assert!(parse_entry("clusters: []", "x").unwrap_err().to_string().contains("has no server"));
        assert_eq!(find_in(&folder.path().join("missing"), "x").unwrap(), None);
    }

    #[test]
    fn a_file_made_read_only_is_refused_even_for_root() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        check_writable(&path).unwrap();
        check_writable(&folder.path().join("new/folder/config")).unwrap();
        std::fs::write(&path, FOREIGN).unwrap();
        check_writable(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        assert!(check_writable(&path).unwrap_err().to_string().contains("config can't be written: it is read-only"));
    }
}
