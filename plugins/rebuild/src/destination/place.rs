//! A registry, and the names of images in it. Pure.

use devloop_core::deliver::ledger::Entry;
use devloop_core::image::{ImageSet, reference};
use devloop_core::registry::Hosting;
use devloop_core::{CommandError, Result};

/// A registry and the names of images in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `HOST[:PORT]` to push to.
    pub(super) host: String,
    /// What nodes know it by.
    from_nodes: String,
    names: Names,
}

/// How images are called there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    /// By their own names and tags, after this; empty or ends with `/`.
    Below(String),
    /// There is one, and it is called so.
    One { repository: String, tag: String },
}

impl Place {
    /// What the cluster says it has.
    pub(super) fn of(hosting: Hosting) -> Self {
        Self { from_nodes: hosting.from_nodes().to_owned(), host: hosting.host, names: Names::Below(String::new()) }
    }

    /// Reads `--push`, for so many images: a registry with or without a path, or
    /// the whole name of the only image, which has a tag.
    pub(super) fn parse(text: &str, images: usize) -> Result<Self> {
        let refuse = || {
            CommandError::usage(format!("--push {text:?} names no registry")).with_hint(
                "write HOST[:PORT][/PATH] for all images, or HOST[:PORT]/NAME:TAG for one, such as localhost:5001 or docker.io/me/shop:dev",
            )
        };
        let (host, path) = text.trim_end_matches('/').split_once('/').unwrap_or((text.trim_end_matches('/'), ""));
        let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
        // Without a dot or a port it would be a part of a name to every other tool.
        if !is_host || !(host.contains(['.', ':']) || host == "localhost") {
            return Err(refuse());
        }
        let names = match path.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => {
                if images > 1 {
                    return Err(CommandError::usage(format!("--push {text:?} names one image, and there are {images} to push"))
                        .with_hint(format!("leave out \":{tag}\", or name one service")));
                }
                Names::One { repository: repository.to_owned(), tag: tag.to_owned() }
            }
            _ if path.is_empty() => Names::Below(String::new()),
            _ => Names::Below(format!("{path}/")),
        };
        let probe = match &names {
            Names::One { repository, tag } => format!("{host}/{repository}:{tag}"),
            Names::Below(prefix) => format!("{host}/{prefix}x:1"),
        };
        if path.contains('@') || reference::normalize(&probe).is_err() {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), from_nodes: host.to_owned(), names })
    }

    /// Whether it is on this machine, as far as its name tells.
    pub(super) fn is_local(&self) -> bool {
        let host = self.host.rsplit_once(':').map_or(self.host.as_str(), |(host, _)| host);
        host == "localhost" || host.starts_with("127.") || host == "[::1]"
    }

    /// Repository and tag of an image, whichever registry its reference names.
    pub(super) fn repository(&self, image: &ImageSet) -> (String, String) {
        match &self.names {
            Names::One { repository, tag } => (repository.clone(), tag.clone()),
            Names::Below(prefix) => {
                let name = image.reference.split('@').next().unwrap_or_default();
                let name = name.rsplit('/').next().unwrap_or_default();
                let (name, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
                (format!("{prefix}{name}"), tag.to_owned())
            }
        }
    }

    /// The name that nodes pull it by: the tag is for people, the digest counts.
    pub(super) fn reference(&self, image: &ImageSet) -> String {
        let (repository, tag) = self.repository(image);
        format!("{}/{repository}:{tag}@{}", self.from_nodes, image.digest)
    }

    /// Other repositories of this registry that may have a base's layers: those
    /// that were pushed to last.
    pub(super) fn neighbours(&self, repository: &str, pushed: &[Entry]) -> Vec<String> {
        const ENOUGH: usize = 3;
        let mut names: Vec<String> = Vec::new();
        for entry in pushed.iter().rev().filter(|entry| entry.registry == self.host) {
            let name = entry.reference.split('@').next().and_then(|name| Some(name.split_once('/')?.1.rsplit_once(':')?.0.to_owned()));
            if let Some(name) = name.filter(|name| name != repository && !names.contains(name)) {
                names.push(name);
            }
        }
        names.truncate(ENOUGH);
        names
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use devloop_core::image::{Image, Layer};

    pub(in crate::destination) fn image(layers: Vec<Layer>) -> ImageSet {
        let image = Image {
            reference: "devloop.local/shop:abc".into(),
            manifest_digest: "sha256:abc".into(),
            architecture: "amd64".into(),
            layers,
            config: vec![],
            manifest: vec![],
        };
        image.into()
    }

    #[test]
    fn an_image_in_a_registry_is_named_by_what_nodes_know_it_by() {
        let hosting = Hosting { host: "localhost:5001".into(), host_from_container_runtime: Some("reg:5000".into()), ..Hosting::default() };
        let named = |place: Place| place.reference(&image(vec![]));
        assert_eq!(named(Place::of(hosting)), "reg:5000/shop:abc@sha256:abc");
        assert_eq!(named(Place::parse("example.com:8/a/b/", 2).unwrap()), "example.com:8/a/b/shop:abc@sha256:abc");
        assert_eq!(named(Place::parse("localhost", 2).unwrap()), "localhost/shop:abc@sha256:abc");
        assert_eq!(named(Place::parse("docker.io/me/web:dev", 1).unwrap()), "docker.io/me/web:dev@sha256:abc");
        // Named once more, as for a delivery, it is the same.
        let place = Place::parse("example.com", 1).unwrap();
        let once = image(vec![]).named(&place.reference(&image(vec![])));
        assert_eq!(place.reference(&once), once.reference);
    }

    #[test]
    fn what_names_no_registry_is_refused() {
        for text in [
            "",
            "/",
            "shop",
            "me/shop:1",
            "a b",
            "example.com/Shop",
            "example.com/x:",
            "example.com//x",
            "http://example.com",
            "example.com/x@sha256:a",
        ] {
            assert_eq!(Place::parse(text, 1).unwrap_err().status().code(), 2, "{text}");
        }
        let error = Place::parse("example.com/x:1", 2).unwrap_err();
        assert_eq!(error.to_string(), "--push \"example.com/x:1\" names one image, and there are 2 to push");
    }

    #[test]
    fn layers_may_come_from_what_was_pushed_last() {
        let entry = |registry: &str, name: &str| Entry {
            registry: registry.into(),
            reference: format!("{registry}/{name}:1@sha256:a"),
            digest: "sha256:a".into(),
            bytes: 0,
            delivered: 0,
        };
        let pushed =
            [entry("a.io", "team/cart"), entry("b.io", "x"), entry("a.io", "team/shop"), entry("a.io", "web"), entry("a.io", "web")];
        assert_eq!(Place::parse("a.io/team", 1).unwrap().neighbours("team/shop", &pushed), ["web", "team/cart"]);
    }
}
