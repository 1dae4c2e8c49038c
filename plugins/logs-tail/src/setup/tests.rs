use super::*;
use crate::args::Args;
use clap::Parser;

fn setup(arguments: &[&str]) -> Result<Setup> {
    let args = Args::try_parse_from(["kubectl-logs_tail", "--stdin"].iter().chain(arguments)).unwrap();
    Setup::new(&args.lines, &args.output, None, true)
}

#[test]
fn traces_are_joined_when_something_is_filtered() {
    let folds = |arguments: &[&str]| setup(arguments).unwrap().joining.folds;
    assert!(!folds(&[]) && folds(&["--fold"]) && folds(&["-i", "x"]) && folds(&["--group"]) && !folds(&["-i", "x", "--no-fold"]));
    let setup =
        setup(&["-C", "2", "--max-line", "64k", "-t=short", "-d", "-o", "raw", "--output-dir", "x", "--output-max-size", "1G"]).unwrap();
    assert_eq!(setup.judge.around, Around { before: 2, after: 2 });
    assert_eq!((setup.joining.max_line, setup.look.colors, setup.says_sources), (65536, false, false));
    assert_eq!(setup.files, Some(FileOptions { folder: "x".into(), max_size: 1 << 30, keep: 5 }));
}

#[test]
fn what_cannot_be_read_is_a_usage_error_that_shows_the_place() {
    let errors: Vec<String> = [
        &["-i", "a("][..],
        &["-e", "[z-a]"],
        &["-H", "*"],
        &["--where", "status >= && x"],
        &["--jq", "select(.a"],
        &["--template", "{{ nothing(message) }}"],
        &["--template", "{{.Message"],
        &["--stern-template", "{{template \"x\"}}"],
        &["--timestamps=shrot"],
        &["-t", "--timezone", "Mars/Base"],
        &["--max-line", "5x"],
        &["--pod-colors", "red"],
    ]
    .iter()
    .map(|arguments| {
        let error = setup(arguments).unwrap_err();
        assert_eq!(error.status().code(), 2, "{arguments:?}");
        error.to_string()
    })
    .collect();
    insta::assert_snapshot!(errors.join("\n"));
}
