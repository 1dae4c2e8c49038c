//! What is said about a run.

use crate::request::{Request, Timeline};
use console::Style;
use devloop_core::deploy::{Applied, AppliedObject, Change, Orphan};
use devloop_core::dockerfile::Step;
use devloop_core::image::ImageSet;
use devloop_core::output::{self, Format};
use devloop_core::project::Service;
use devloop_core::ui::Ui;
use devloop_core::{ErrorContext, ExitStatus, Result};
use serde::Serialize;

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It did, or would do, this.
    Report(Report),
    /// All is said.
    Ended(ExitStatus),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Whether nothing was changed.
    pub(crate) dry_run: bool,
    pub(crate) services: Vec<ServiceReport>,
    /// Objects that the project no longer has, and that were removed.
    pub(crate) pruned: Vec<String>,
    /// Those that are left.
    pub(crate) leftovers: Vec<String>,
}

/// What would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DiffReport {
    pub(crate) changes: Vec<ChangeReport>,
}

/// What would change of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ChangeReport {
    kind: String,
    name: String,
    namespace: Option<String>,
    /// Whether it would be new.
    created: bool,
    /// A unified diff.
    diff: String,
}

impl ChangeReport {
    pub(crate) fn new(object: &AppliedObject, diff: String) -> Self {
        let (kind, name, namespace) = (object.kind.clone(), object.name.clone(), object.namespace.clone());
        Self { kind, name, namespace, created: object.change == Change::Created, diff }
    }
}

/// What was done for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceReport {
    name: String,
    /// The image's reference.
    image: String,
    /// The manifest's, or the index's.
    digest: String,
    /// What there is an image for, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<String>,
    /// To all nodes together; in a dry run, what would be sent.
    sent_bytes: u64,
    phases_ms: PhasesMs,
    /// Whether the workload got a new specification.
    rolled_out: bool,
    /// Names of the pods that run the image.
    pods: Vec<String>,
    /// Of the build of a Dockerfile, if one was begun.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step>,
}

/// How long each phase took, in milliseconds. `apply` is one for all services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PhasesMs {
    pub(crate) compile: u64,
    pub(crate) assemble: u64,
    pub(crate) deliver: u64,
    pub(crate) apply: u64,
    pub(crate) ready: u64,
}

impl ServiceReport {
    pub(crate) fn new(
        service: &Service,
        image: &ImageSet,
        sent_bytes: u64,
        phases_ms: PhasesMs,
        pods: Vec<String>,
        rolled_out: bool,
    ) -> Self {
        let (name, digest) = (service.name.clone(), image.digest.clone());
        let platforms = image.images().iter().filter(|_| image.has_index()).map(|image| format!("linux/{}", image.architecture)).collect();
        Self { name, image: image.reference.clone(), digest, platforms, sent_bytes, phases_ms, rolled_out, pods, steps: Vec::new() }
    }

    pub(crate) fn with_steps(self, steps: Vec<Step>) -> Self {
        Self { steps, ..self }
    }
}

/// Prints the data, and the timeline where it was asked for.
pub(crate) fn finish(ui: &Ui, request: &Request, report: &Report) -> Result<()> {
    if request.timeline == Timeline::Print {
        report.services.iter().for_each(|service| ui.say(timeline(service)));
    }
    output::print(request.format, report, || table(report))
}

/// Prints a report as one line of JSON, where JSON was asked for.
pub(crate) fn event(ui: &Ui, request: &Request, report: &Report) -> Result<()> {
    if request.timeline == Timeline::Print {
        report.services.iter().for_each(|service| ui.say(timeline(service)));
    }
    match request.format {
        Format::Text => Ok(()),
        Format::Json => output::line(&serde_json::to_string(report).context("could not write JSON")?),
        Format::Yaml => output::print(Format::Yaml, report, String::new).and_then(|()| output::line("---")),
    }
}

/// Prints what would change.
pub(crate) fn diff(ui: &Ui, request: &Request, report: &DiffReport) -> Result<()> {
    if report.changes.is_empty() {
        ui.say("nothing would change");
        if request.format == Format::Text {
            return Ok(());
        }
    }
    output::print(request.format, report, || report.changes.iter().map(|change| colored(&change.diff)).collect::<String>())
}

/// Colours as git has them, where stdout has any.
fn colored(diff: &str) -> String {
    let lines = diff.lines().map(|line| {
        let style = match line.as_bytes().first() {
            _ if line.starts_with("---") || line.starts_with("+++") => Style::new().bold(),
            Some(b'+') => Style::new().green(),
            Some(b'-') => Style::new().red(),
            Some(b'@') => Style::new().cyan(),
            _ => Style::new(),
        };
        format!("{}\n", style.apply_to(line))
    });
    lines.collect()
}

/// What is said of an object that the project no longer has.
pub(crate) fn leftover(orphan: &Orphan) -> String {
    let place = orphan.id.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
    let what = format!("{}{place} is no longer in the manifests", orphan.id);
    match orphan.kept {
        Some(reason) => format!("{what}; it is never removed, for {reason}"),
        None => format!("{what}; --prune removes it"),
    }
}

fn timeline(service: &ServiceReport) -> String {
    let PhasesMs { compile, assemble, deliver, apply, ready } = service.phases_ms;
    let total = compile + assemble + deliver + apply + ready;
    let name = &service.name;
    format!(
        "{name}: compile {compile} ms, assemble {assemble} ms, deliver {deliver} ms, apply {apply} ms, ready {ready} ms, total {total} ms"
    )
}

fn table(report: &Report) -> String {
    let result = |service: &ServiceReport| match (report.dry_run, service.rolled_out) {
        (false, true) => "rolled out",
        (true, true) => "would roll out",
        (_, false) => "unchanged",
    };
    let rows: Vec<Vec<String>> =
        report.services.iter().map(|service| vec![service.name.clone(), service.image.clone(), result(service).to_owned()]).collect();
    output::table(&["SERVICE", "IMAGE", "RESULT"], &rows)
}

/// Says what an apply did, but for what was as it should be.
pub(crate) fn applied(ui: &Ui, applied: &Applied) {
    let changed: Vec<String> = applied.objects.iter().filter(|object| object.change != Change::Unchanged).map(line).collect();
    ui.say(if changed.is_empty() { "the manifests are applied already".to_owned() } else { format!("applied {}", changed.join(", ")) });
}

/// Says what an apply would do.
pub(crate) fn would_apply(ui: &Ui, applied: &Applied) {
    let lines: Vec<String> = applied.objects.iter().map(line).collect();
    ui.say(format!("would apply {}", lines.join(", ")));
}

fn line(object: &AppliedObject) -> String {
    let change = match object.change {
        Change::Created => "created",
        Change::Configured => "configured",
        Change::Unchanged => "unchanged",
    };
    format!("{}/{} ({change})", object.kind.to_lowercase(), object.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let service = ServiceReport {
            name: "shop".into(),
            image: "devloop.local/shop:0123456789abcdef".into(),
            digest: "sha256:0123456789abcdef".into(),
            platforms: vec![],
            sent_bytes: 4096,
            phases_ms: PhasesMs { compile: 400, assemble: 20, deliver: 130, apply: 40, ready: 900 },
            rolled_out: true,
            pods: vec!["shop-1".into()],
            steps: vec![Step { name: "[1/1] COPY . /".into(), cached: true, ms: 0 }],
        };
        Report { dry_run: false, services: vec![service], pruned: vec![], leftovers: vec!["configmap/old".into()] }
    }

    #[test]
    fn a_run_is_told_to_people_and_tools() {
        insta::assert_snapshot!(timeline(&report().services[0]), @"shop: compile 400 ms, assemble 20 ms, deliver 130 ms, apply 40 ms, ready 900 ms, total 1490 ms");
        insta::assert_snapshot!(table(&report()), @r"
        SERVICE   IMAGE                                 RESULT
        shop      devloop.local/shop:0123456789abcdef   rolled out
        ");
        insta::assert_snapshot!(serde_json::to_string_pretty(&report()).unwrap(), @r#"
        {
          "dryRun": false,
          "services": [
            {
              "name": "shop",
              "image": "devloop.local/shop:0123456789abcdef",
              "digest": "sha256:0123456789abcdef",
              "sentBytes": 4096,
              "phasesMs": {
                "compile": 400,
                "assemble": 20,
                "deliver": 130,
                "apply": 40,
                "ready": 900
              },
              "rolledOut": true,
              "pods": [
                "shop-1"
              ],
              "steps": [
                {
                  "name": "[1/1] COPY . /",
                  "cached": true,
                  "ms": 0
                }
              ]
            }
          ],
          "pruned": [],
          "leftovers": [
            "configmap/old"
          ]
        }
        "#);
    }
}
