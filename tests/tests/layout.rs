//! What the README promises of the repository's shape.

use std::path::Path;

/// Each plugin has its folder, its manifest and its end-to-end file.
#[test]
fn every_plugin_has_all_of_its_parts() {
    let root = devloop_tests::repository();
    let mut plugins: Vec<String> =
        std::fs::read_dir(root.join("plugins")).unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    plugins.retain(|name| !["core", "agent"].contains(&name.as_str()));
    plugins.push("devenv".to_owned());
    assert!(plugins.len() >= 4, "{plugins:?}");
    for plugin in plugins {
        let manifest = root.join("krew-manifests").join(format!("{plugin}.yaml"));
        let text = std::fs::read_to_string(&manifest).unwrap_or_else(|error| panic!("{}: {error}", manifest.display()));
        let parsed: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(parsed["metadata"]["name"].as_str(), Some(plugin.as_str()));
        let tests = root.join("tests/e2e").join(format!("{}.rs", plugin.replace('-', "_")));
        assert!(tests.exists(), "{} is missing", tests.display());
    }
}

/// Each example is a project that our programs understand, and says what it is.
#[test]
fn examples_are_projects() {
    let examples = devloop_tests::repository().join("devenv/examples");
    let readme = std::fs::read_to_string(examples.join("README.md")).unwrap();
    for entry in std::fs::read_dir(&examples).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        let project = devloop_core::project::load(None, &entry.path()).unwrap_or_else(|error| panic!("{name}: {:?}", error.chain()));
        // One of several services has names of its own for them.
        assert!(project.services.len() > 1 || project.services[0].name == name, "{name}: {:?}", project.services[0].name);
        assert!(readme.contains(&format!("[{name}]({name})")), "{name} is not in the README");
    }
}

/// A `main` does nothing but start what the library has.
#[test]
fn mains_are_short() {
    let root = devloop_tests::repository();
    for main in ["plugins/agent", "plugins/rebuild", "plugins/hot-reload", "plugins/logs-tail", "plugins/debug-attach", "devenv"] {
        let path = root.join(main).join("src/main.rs");
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 15, "{} has {lines} lines", path.display());
    }
}

/// The manifests' own versions and the workspace's are one.
#[test]
fn versions_agree() {
    let root: &Path = &devloop_tests::repository();
    for entry in std::fs::read_dir(root.join("krew-manifests")).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        assert!(text.contains(concat!("version: v", env!("CARGO_PKG_VERSION"))), "{:?}", entry.path());
    }
}
