//! What was found and what came of it, for people and programs.

use super::plan::Item;
use devloop_core::output;
use devloop_core::ui::human_bytes;
use serde::Serialize;

/// An item, and why it could not be removed, if so.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    #[serde(flatten)]
    pub(super) item: Item,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    dry_run: bool,
    items: Vec<Done>,
    /// Of what was removed or, in a dry run, would be; as far as it is known.
    freed_bytes: u64,
    /// What could not be looked at.
    notes: Vec<String>,
}

impl Report {
    pub(super) fn new(dry_run: bool, items: Vec<Done>, notes: Vec<String>) -> Self {
        let freed_bytes = items.iter().filter(|done| done.error.is_none()).filter_map(|done| done.item.bytes).sum();
        Self { dry_run, items, freed_bytes, notes }
    }

    pub(super) fn failed(&self) -> bool {
        self.items.iter().any(|done| done.error.is_some())
    }
}

pub(super) fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    if report.items.is_empty() {
        lines.push("Nothing to remove".to_owned());
    } else {
        let row = |done: &Done| {
            let size = done.item.bytes.map_or_else(|| "unknown".to_owned(), human_bytes);
            let remark = done.error.as_ref().map_or_else(|| done.item.reason.to_owned(), |error| format!("not removed: {error}"));
            vec![done.item.what.to_owned(), done.item.place.clone(), done.item.name.clone(), size, remark]
        };
        lines.push(output::table(&["WHAT", "WHERE", "NAME", "SIZE", "WHY"], &report.items.iter().map(row).collect::<Vec<_>>()));
        let verb = if report.dry_run { "Would free" } else { "Freed" };
        lines.push(format!("\n{verb} {}", human_bytes(report.freed_bytes)));
    }
    lines.extend(report.notes.iter().map(|note| format!("Not looked at: {note}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::plan::Action;
    use super::*;

    fn done(name: &str, bytes: Option<u64>, error: Option<&str>) -> Done {
        let item = Item {
            what: "image",
            place: "devloop-dev".into(),
            name: name.into(),
            bytes,
            reason: "no container uses it, and there is a newer one",
            action: Action::CollectContainer,
        };
        Done { item, error: error.map(str::to_owned) }
    }

    #[test]
    fn a_dry_run_says_what_would_be_freed() {
        let items = vec![done("devloop.local/shop:1", Some(48_000_000), None), done("devloop.local/shop:2", None, None)];
        insta::assert_snapshot!(text(&Report::new(true, items, vec!["registry of \"x\"".into()])), @r#"
        WHAT    WHERE         NAME                   SIZE       WHY
        image   devloop-dev   devloop.local/shop:1   45.8 MiB   no container uses it, and there is a newer one
        image   devloop-dev   devloop.local/shop:2   unknown    no container uses it, and there is a newer one

        Would free 45.8 MiB
        Not looked at: registry of "x"
        "#);
        insta::assert_snapshot!(text(&Report::new(true, vec![], vec![])), @"Nothing to remove");
    }

    #[test]
    fn what_fails_is_said_and_not_counted() {
        let report = Report::new(false, vec![done("devloop.local/shop:1", Some(1000), Some("the node is gone"))], vec![]);
        assert!(report.failed());
        insta::assert_snapshot!(text(&report), @r"
        WHAT    WHERE         NAME                   SIZE     WHY
        image   devloop-dev   devloop.local/shop:1   1000 B   not removed: the node is gone

        Freed 0 B
        ");
        let expected = serde_json::json!({
            "dryRun": false,
            "items": [{
                "what": "image",
                "place": "devloop-dev",
                "name": "devloop.local/shop:1",
                "bytes": 1000,
                "reason": "no container uses it, and there is a newer one",
                "error": "the node is gone",
            }],
            "freedBytes": 0,
            "notes": [],
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }
}
