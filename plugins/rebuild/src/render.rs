//! What is said about a run.

use crate::request::{Request, Timeline};
use devloop_core::Result;
use devloop_core::deploy::{Applied, AppliedObject, Change};
use devloop_core::image::Image;
use devloop_core::output;
use devloop_core::project::Service;
use devloop_core::ui::Ui;
use serde::Serialize;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Whether nothing was changed.
    pub(crate) dry_run: bool,
    pub(crate) services: Vec<ServiceReport>,
}

/// What was done for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceReport {
    name: String,
    /// The image's reference.
    image: String,
    /// The manifest's.
    digest: String,
    /// To all nodes together; in a dry run, what would be sent.
    sent_bytes: u64,
    phases_ms: PhasesMs,
    /// Whether the workload got a new specification.
    rolled_out: bool,
    /// Names of the pods that run the image.
    pods: Vec<String>,
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
    pub(crate) fn new(service: &Service, image: &Image, sent_bytes: u64, phases_ms: PhasesMs, pods: Vec<String>, rolled_out: bool) -> Self {
        let (name, digest) = (service.name.clone(), image.manifest_digest.clone());
        Self { name, image: image.reference.clone(), digest, sent_bytes, phases_ms, rolled_out, pods }
    }
}

/// Prints the data, and the timeline where it was asked for.
pub(crate) fn finish(ui: &Ui, request: &Request, report: &Report) -> Result<()> {
    if request.timeline == Timeline::Print {
        report.services.iter().for_each(|service| ui.say(timeline(service)));
    }
    output::print(request.format, report, || table(report))
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
            sent_bytes: 4096,
            phases_ms: PhasesMs { compile: 400, assemble: 20, deliver: 130, apply: 40, ready: 900 },
            rolled_out: true,
            pods: vec!["shop-1".into()],
        };
        Report { dry_run: false, services: vec![service] }
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
              ]
            }
          ]
        }
        "#);
    }
}
