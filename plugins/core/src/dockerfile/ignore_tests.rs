use super::*;
use proptest::prelude::*;

fn matcher(text: &str) -> Matcher {
    let patterns = read(text);
    Matcher::new(patterns.iter().map(String::as_str)).unwrap()
}

/// The paths that stay, of these.
fn kept<'a>(text: &str, paths: &[&'a str]) -> Vec<&'a str> {
    let matcher = matcher(text);
    paths.iter().copied().filter(|path| !matcher.fits(path)).collect()
}

#[test]
fn a_file_is_read_line_by_line() {
    let text = "\u{feff}# comment\n  # a name that begins with a blank is none\r\n/rooted\n./here/../there/\n\n! /kept \n/\n!\n.\n";
    assert_eq!(read(text), ["# a name that begins with a blank is none", "rooted", "there", "!kept", "/", "!", "."]);
}

#[test]
fn patterns_for_git_start_at_the_root() {
    assert_eq!(read_for_git("# x\n*.md\n!./README.md\n/docs\n"), ["/*.md", "!/README.md", "/docs"]);
}

/// Verdicts of `moby/patternmatcher` v0.6.0, which was asked for each of them.
#[test]
fn patterns_mean_what_they_mean_to_docker() {
    let table: [(&str, &str, bool); 47] = [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("dir/**", "dirt", false),
        ("**/dir", "dir", true),
        ("**/dir", "a/b/dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/*.txt", "a.txt", true),
        ("**/*.txt", "a/b/c.txt", true),
        ("**file", "dir/myfile", true),
        ("a**b", "axb", false),
        ("a**b", "ax/b", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("*", "file", true),
        ("*", ".env", true),
        ("*.md", "sub/x.md", false),
        ("*/temp*", "a/temporary", true),
        ("*/temp*", "a/b/temp", false),
        ("*/*/temp*", "a/b/temp", true),
        ("temp?", "tempa", true),
        ("temp?", "temp/", false),
        ("a.b", "aXb", false),
        ("a+b(c)", "a+b(c)", true),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("[^a-c]x", "dx", true),
        ("a[[]b", "a[b", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("a\\?", "a?", true),
        ("/dir", "dir/file", true),
        ("dir/", "dir/file", true),
        ("../outside", "outside", false),
        (".", "file", false),
        ("/", "file", false),
        ("dir\n!dir/keep", "dir/keep", false),
        ("dir\n!dir/keep", "dir/other", true),
        ("*\n!src", "src/deep/file", false),
        ("*\n!src\nsrc/*.log", "src/a.log", true),
        ("!keep\n*", "keep", true),
        ("**/*.go\n!**/keep.go", "a/b/keep.go", false),
        ("dir\n!dir\n dir/x", "dir/x/y", true),
    ];
    for (patterns, path, ignored) in table {
        assert_eq!(matcher(patterns).fits(path), ignored, "{patterns:?} {path}");
    }
}

#[test]
fn the_last_line_that_fits_decides() {
    let paths = ["README.md", "README-secret.md", "CHANGELOG.md", "docs/a.md", "src/main.rs"];
    assert_eq!(kept("*.md\n!README*.md\nREADME-secret.md", &paths), ["README.md", "docs/a.md", "src/main.rs"]);
    assert_eq!(kept("*.md\nREADME-secret.md\n!README*.md", &paths), ["README.md", "README-secret.md", "docs/a.md", "src/main.rs"]);
    assert_eq!(kept("", &paths), paths);
}

#[test]
fn what_cant_be_read_is_named() {
    for (text, pattern) in [("!", "!"), ("a[b", "a[b"), ("a\\", "a\\"), ("[]a]", "[]a]"), ("[a-]", "[a-]"), ("[z-a]", "[z-a]")] {
        let patterns = read(text);
        assert_eq!(Matcher::new(patterns.iter().map(String::as_str)).unwrap_err().pattern, pattern);
    }
}

#[test]
fn folders_are_left_out_whole_where_nothing_in_them_can_count() {
    let plain = matcher("node_modules\n!node_modules/kept/x");
    assert!(plain.may_take_back_below("node_modules"));
    assert!(plain.may_take_back_below("node_modules/kept"));
    assert!(!plain.may_take_back_below("node_modules/other"));
    assert!(matcher("*\n!**/x").may_take_back_below("any"));
    assert!(!matcher("*\n").may_take_back_below("any"));
}

proptest! {
    /// A folder that is left out whole holds nothing that would be kept.
    #[test]
    fn nothing_is_lost_with_a_folder(
        lines in proptest::collection::vec("!?[ab*/]{1,6}", 0..5),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let patterns = read(&lines.join("\n"));
        let Ok(matcher) = Matcher::new(patterns.iter().map(String::as_str)) else { return Ok(()) };
        let folders = path.match_indices('/').map(|(index, _)| &path[..index]);
        let left_out = folders.into_iter().any(|folder| matcher.fits(folder) && !matcher.may_take_back_below(folder));
        prop_assert!(!left_out || matcher.fits(&path));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n]{0,60}", path in "[ -~]{1,20}") {
        let patterns = read(&text);
        if let Ok(matcher) = Matcher::new(patterns.iter().map(String::as_str)) {
            let _ = matcher.fits(&path);
        }
    }

    #[test]
    fn a_plain_name_fits_itself_and_what_is_in_it(name in "[a-z]{1,8}", below in "[a-z]{1,8}") {
        let matcher = matcher(&name);
        let inside = format!("{name}/{below}");
        prop_assert!(matcher.fits(&name) && matcher.fits(&inside));
        let elsewhere = format!("{below}/{name}");
        prop_assert!(below == name || !matcher.fits(&elsewhere));
    }
}
