//! Images as tables and documents.

use super::plan::{Fate, Row};
use crate::args::ListForm;
use devloop_core::Result;
use devloop_core::output::{self, Format};
use devloop_core::ui::human_bytes;

/// Prints what there is.
pub(super) fn list(form: ListForm, rows: &[Row]) -> Result<()> {
    output::print(format(form), &rows, || table(rows, form == ListForm::Wide))
}

/// Prints what became of it.
pub(super) fn collected(form: ListForm, rows: &[Row], dry_run: bool) -> Result<()> {
    output::print(format(form), &rows, || fates(rows, dry_run))
}

fn format(form: ListForm) -> Format {
    match form {
        ListForm::Text | ListForm::Wide => Format::Text,
        ListForm::Json => Format::Json,
        ListForm::Yaml => Format::Yaml,
    }
}

fn table(rows: &[Row], wide: bool) -> String {
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells = vec![row.place.clone(), row.image.clone(), human_bytes(row.bytes), age(row.age_seconds), users(row, wide)];
            if wide {
                cells.extend([row.digest.clone(), row.id.clone()]);
            }
            cells
        })
        .collect();
    let header = ["PLACE", "IMAGE", "SIZE", "AGE", "USED BY", "DIGEST", "IMAGE ID"];
    output::table(&header[..if wide { 7 } else { 5 }], &lines)
}

fn fates(rows: &[Row], dry_run: bool) -> String {
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let fate = match (row.fate, dry_run) {
                (Fate::Remove, true) => "would be removed".to_owned(),
                (Fate::Remove, false) => "removed".to_owned(),
                (Fate::InUse, _) => format!("kept: used by {}", users(row, false)),
                (Fate::TooYoung, _) => "kept: too young".to_owned(),
                (Fate::InRegistry, _) => "kept: registries are left alone".to_owned(),
                (Fate::NotMade, _) => "kept: not made by a rebuild".to_owned(),
                (Fate::Failed, _) => "kept: could not be removed".to_owned(),
                (Fate::Stays, _) => "kept".to_owned(),
            };
            vec![row.place.clone(), row.image.clone(), human_bytes(row.bytes), age(row.age_seconds), fate]
        })
        .collect();
    output::table(&["PLACE", "IMAGE", "SIZE", "AGE", "RESULT"], &lines)
}

/// Pods come first: what runs is what people look for.
fn users(row: &Row, all: bool) -> String {
    let mut users: Vec<&str> = row.used_by.iter().map(String::as_str).collect();
    users.sort_by_key(|user| !user.starts_with("pod/"));
    match users.as_slice() {
        [] => "-".to_owned(),
        _ if all => users.join(","),
        [one] => (*one).to_owned(),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

/// As kubectl has it: the largest unit that fits.
fn age(seconds: Option<u64>) -> String {
    match seconds {
        None => "?".to_owned(),
        Some(seconds) if seconds < 120 => format!("{seconds}s"),
        Some(seconds) if seconds < 2 * 3600 => format!("{}m", seconds / 60),
        Some(seconds) if seconds < 2 * 86_400 => format!("{}h", seconds / 3600),
        Some(seconds) => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::plan::{decide, tests::made};
    use std::time::Duration;

    #[test]
    fn images_are_listed_for_people_and_tools() {
        let mut rows = made();
        insta::assert_snapshot!(table(&rows, false));
        insta::assert_snapshot!(table(&rows[5..], true));
        decide(&mut rows, Duration::from_secs(600));
        insta::assert_snapshot!(fates(&rows, true));
        insta::assert_snapshot!(serde_json::to_string_pretty(&rows[4..5]).unwrap());
    }
}
