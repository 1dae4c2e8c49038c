//! Names of images, spelled out the way Docker and containerd do.

/// Spells a name out: `shop:dev` is `docker.io/library/shop:dev` to a node
/// (<https://github.com/distribution/reference>).
///
/// # Errors
/// What is wrong with the name.
pub fn normalize(name: &str) -> Result<String, String> {
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) if is_digest(digest) => (rest, Some(digest)),
        Some((_, digest)) => return Err(format!("{digest:?} is not a digest")),
        None => (name, None),
    };
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (path, tag) = match rest[last..].split_once(':') {
        Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(format!("{tag:?} is not a tag"));
    }
    let (registry, path) = match path.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
        _ if path.contains('/') => (DEFAULT_REGISTRY, path.to_owned()),
        _ => (DEFAULT_REGISTRY, format!("library/{path}")),
    };
    // Its other name, from its early days.
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if let Some(part) = path.split('/').find(|part| !is_path_component(part)) {
        return Err(format!("{part:?} is not a part of a name: lower-case letters, digits, and . _ - between them"));
    }
    let tag = tag.or(digest.is_none().then_some("latest")).map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    Ok(format!("{registry}/{path}{tag}{digest}"))
}

/// The parts of a name that was spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) registry: &'a str,
    pub(crate) path: &'a str,
    /// Empty where there is only a digest.
    pub(crate) tag: &'a str,
    pub(crate) digest: Option<&'a str>,
}

/// Takes apart what [`normalize`] gives.
pub(crate) fn parts(name: &str) -> Parts<'_> {
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    let (registry, rest) = name.split_once('/').unwrap_or((DEFAULT_REGISTRY, name));
    let (path, tag) = rest.split_once(':').unwrap_or((rest, ""));
    Parts { registry, path, tag, digest }
}

const DEFAULT_REGISTRY: &str = "docker.io";

/// Whether this is `sha256:` and 64 hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    let hex = |hex: &str| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.strip_prefix("sha256:").is_some_and(hex)
}

fn is_registry(text: &str) -> bool {
    let known = text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|byte| byte.is_ascii_uppercase());
    known && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
}

fn is_tag(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with(['.', '-'])
}

fn is_path_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<u8>| byte.is_some_and(plain);
    ends(text.bytes().next()) && ends(text.bytes().last()) && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_are_spelled_out() {
        for (short, long) in [
            ("shop", "docker.io/library/shop:latest"),
            ("shop:dev", "docker.io/library/shop:dev"),
            ("me/shop", "docker.io/me/shop:latest"),
            ("docker.io/shop", "docker.io/shop:latest"),
            ("index.docker.io/me/shop:1", "docker.io/me/shop:1"),
            ("localhost/shop", "localhost/shop:latest"),
            ("localhost:5001/a/b:c", "localhost:5001/a/b:c"),
            ("devloop.local/shop:0a", "devloop.local/shop:0a"),
        ] {
            assert_eq!(normalize(short).unwrap(), long);
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(normalize(&format!("shop@{digest}")).unwrap(), format!("docker.io/library/shop@{digest}"));
    }

    #[test]
    fn a_name_has_parts() {
        let whole = format!("localhost:5001/a/b:c@sha256:{}", "0".repeat(64));
        let parts = parts(&whole);
        assert_eq!((parts.registry, parts.path, parts.tag), ("localhost:5001", "a/b", "c"));
        assert!(parts.digest.is_some_and(is_digest));
        assert_eq!(super::parts("docker.io/library/x:latest").tag, "latest");
    }

    #[test]
    fn what_is_no_name_is_told() {
        for bad in ["", "Shop", "shop:", "shop:-x", "a//b", "shop@sha256:x", "shop ", "-shop", "a/../b", "shop\n", "$(x)"] {
            assert!(normalize(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_a_fixed_point(text in "[a-zA-Z0-9._:/@ -]{0,40}") {
            if let Ok(name) = normalize(&text) {
                prop_assert_eq!(normalize(&name).unwrap(), name);
            }
        }
    }
}
