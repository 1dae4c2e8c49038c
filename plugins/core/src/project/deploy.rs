//! How a service gets into a cluster: where its manifests come from, and where
//! in them images are named.

use super::parse::{inside_paths, target, text};
use crate::target::Target;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a service gets into a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploySpec {
    /// Files or folders of Kubernetes manifests, relative to the root. A folder
    /// with a `kustomization.yaml` is built by Kustomize.
    #[serde(default, deserialize_with = "inside_paths")]
    pub manifests: Vec<PathBuf>,
    /// A chart, whose rendered manifests are applied beside the others.
    #[serde(default)]
    pub helm: Option<HelmSpec>,
    /// Where objects of kinds that have no pod spec name images.
    #[serde(default)]
    pub images: Vec<ImageField>,
    /// The workload that runs the image.
    #[serde(deserialize_with = "target")]
    pub target: Target,
    /// The container in it; the first one when absent.
    #[serde(default)]
    pub container: Option<String>,
}

impl DeploySpec {
    /// A workload that somebody else deploys.
    pub fn of(target: Target, container: Option<String>) -> Self {
        Self { manifests: Vec::new(), helm: None, images: Vec::new(), target, container }
    }
}

/// A Helm chart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelmSpec {
    /// A folder below the root, or a chart as helm names it (`repo/chart`,
    /// `oci://...`).
    #[serde(deserialize_with = "chart")]
    pub chart: String,
    /// The release's name; the service's when absent.
    #[serde(default)]
    pub release: Option<String>,
    /// Files of values, relative to the root; the last one wins.
    #[serde(default, deserialize_with = "inside_paths")]
    pub values: Vec<PathBuf>,
    /// Single values by their path in the chart's values (`--set-json`).
    #[serde(default)]
    pub set: BTreeMap<String, serde_json::Value>,
}

/// A field that holds the reference of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageField {
    /// Of objects of this kind.
    #[serde(deserialize_with = "kind")]
    pub kind: String,
    /// The way to it from the object's root.
    #[serde(deserialize_with = "steps")]
    pub path: Vec<ImageStep>,
}

/// A step on the way to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageStep {
    /// A key of a map.
    Key(String),
    /// An item of a list, from 0.
    Item(usize),
    /// All items of a list, or all values of a map.
    All,
}

fn chart<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |chart| {
        if chart.is_empty() || chart.starts_with('-') {
            return Err(format!("{chart:?} is no chart; for example ./charts/web, repo/web or oci://host/web"));
        }
        Ok(chart.to_owned())
    })
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |kind| if kind.is_empty() { Err("the kind is empty".to_owned()) } else { Ok(kind.to_owned()) })
}

fn steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ImageStep>, D::Error> {
    text(deserializer, parse_steps)
}

/// Reads the plain part of JSONPath: keys, `[n]`, `[*]`, `['key']`, with or
/// without `$`, a leading dot and braces around it
/// (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>).
fn parse_steps(path: &str) -> Result<Vec<ImageStep>, String> {
    let refuse = || format!("{path:?} is no path of a field; for example spec.image or spec.pools[*].image");
    let braced = path.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(path.trim());
    let mut rest = braced.strip_prefix('$').unwrap_or(braced);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let quoted = inner.strip_prefix('\'').and_then(|quoted| quoted.split_once("']"));
            if let Some((key, after)) = quoted {
                steps.push(ImageStep::Key(key.to_owned()));
                rest = after;
                continue;
            }
            let (index, after) = inner.split_once(']').ok_or_else(refuse)?;
            steps.push(match index {
                "*" => ImageStep::All,
                number => ImageStep::Item(number.parse().map_err(|_| refuse())?),
            });
            rest = after;
            continue;
        }
        let dotted = rest.strip_prefix('.');
        if dotted.is_none() && !steps.is_empty() {
            return Err(refuse());
        }
        let key = dotted.unwrap_or(rest);
        let end = key.find(['.', '[']).unwrap_or(key.len());
        let fits = |character: char| character.is_alphanumeric() || "-_/*".contains(character);
        if end == 0 || !key[..end].chars().all(fits) {
            return Err(refuse());
        }
        steps.push(if &key[..end] == "*" { ImageStep::All } else { ImageStep::Key(key[..end].to_owned()) });
        rest = &key[end..];
    }
    if steps.is_empty() { Err(refuse()) } else { Ok(steps) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::parse_text;

    fn key(key: &str) -> ImageStep {
        ImageStep::Key(key.to_owned())
    }

    #[test]
    fn the_plain_part_of_jsonpath_is_read() {
        let pools = [key("spec"), key("pools"), ImageStep::All, key("image")];
        for path in ["spec.pools[*].image", ".spec.pools[*].image", "{.spec.pools[*].image}", "$.spec['pools'].*.image"] {
            assert_eq!(parse_steps(path).unwrap(), pools, "{path}");
        }
        assert_eq!(parse_steps("a[2].b-c").unwrap(), [key("a"), ImageStep::Item(2), key("b-c")]);
        for path in ["", "$", "a..b", "a[x]", "a[", "a b", "a[?(@.x)]", "{a", "a[1]b"] {
            assert!(parse_steps(path).is_err(), "{path}");
        }
    }

    fn service(deploy: &str) -> Result<DeploySpec, String> {
        let text = format!("apiVersion: devloop/v1\nservices:\n  - name: web\n    deploy:\n      target: web\n{deploy}");
        parse_text(&text).map(|services| services[0].deploy.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn charts_and_fields_are_read_and_mistakes_have_a_place() {
        let deploy = service("      helm: { chart: ./chart, values: [a.yaml], set: { image.tag: x, replicas: 2 } }\n").unwrap();
        let helm = deploy.helm.unwrap();
        assert_eq!((helm.chart.as_str(), helm.values.len(), &helm.set["replicas"]), ("./chart", 1, &2.into()));
        insta::assert_snapshot!(service("      helm: { chart: --post-renderer=x }\n").unwrap_err(), @r#"devloop.yaml:6:22: services[0].deploy.helm.chart: "--post-renderer=x" is no chart; for example ./charts/web, repo/web or oci://host/web"#);
        insta::assert_snapshot!(service("      helm: { chart: x, value: [a] }\n").unwrap_err(), @"devloop.yaml:6:25: services[0].deploy.helm: unknown field `value`, expected one of `chart`, `release`, `values`, `set`");
        insta::assert_snapshot!(service("      images: [{ kind: X, path: 'a b' }]\n").unwrap_err(), @r#"devloop.yaml:6:33: services[0].deploy.images[0].path: "a b" is no path of a field; for example spec.image or spec.pools[*].image"#);
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_read_or_refused(path in "[a\\[\\]'.*$1{}]{0,12}") {
            let _ = parse_steps(&path);
        }
    }
}
