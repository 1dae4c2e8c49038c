use super::super::dockerfile;
use super::*;
use proptest::prelude::*;

/// What an image of this Dockerfile holds of these files.
fn holds(files: &[&str], text: &str) -> String {
    let files: Vec<(&str, &str)> = files.iter().map(|path| (*path, "")).collect();
    let local = Local::of(&files);
    let chosen = Chosen { path: "Dockerfile".into(), why: String::new() };
    let stages = dockerfile::parse(text).unwrap();
    let (recipe, _) = Recipe::new(&local, &chosen, &stages);
    let content = recipe.content(stages.len() - 1).unwrap();
    let rules = content.files.iter().map(|(rule, _)| format!("{} -> {} {:?}", rule.from.display(), rule.to, rule.ignore));
    let left_out = content.left_out.iter().map(|reason| format!("{}: {}", reason.what, reason.why));
    rules.chain(left_out).collect::<Vec<_>>().join("\n")
}

const FILES: [&str; 10] = [
    "app.py",
    "wsgi.py",
    "README.md",
    "static/a.css",
    "static/img/x.png",
    "conf/app.toml",
    "conf/sub/b.toml",
    "pkg.py/x",
    "my docs/1.md",
    "devloop.yaml",
];

#[test]
fn files_and_folders_go_where_docker_puts_them() {
    let text = r#"FROM python
WORKDIR /app
COPY app.py .
COPY app.py main.py
COPY app.py wsgi.py /opt/x
COPY app.py /etc
COPY README.md /new/name
COPY README.md /app
COPY static static/
COPY static/ /srv
COPY conf/app.toml /etc/app/
COPY README.md /etc/app
COPY ["my docs", "/docs/"]
COPY --parents conf/app.toml /p/
COPY --exclude=*.png static /q
COPY nothing /x
ADD a.tar.gz https://example.com/y /x/
COPY --from=nginx /etc/nginx /etc/nginx
COPY ../README.md /up
COPY static /
"#;
    insta::assert_snapshot!(holds(&FILES, text));
}

#[test]
fn patterns_follow_what_is_made_later() {
    let text = "FROM python\nWORKDIR /app\nCOPY *.py ./\nCOPY conf/*.toml /etc/app/\nCOPY */app.toml /x/\nCOPY *.rs /x/\nCOPY st?tic /y\n";
    insta::assert_snapshot!(holds(&FILES, text));
}

#[test]
fn a_whole_context_leaves_out_what_is_about_the_container() {
    insta::assert_snapshot!(holds(&["app.py"], "FROM python\nCOPY . /x\nFROM python\nCOPY . /app\nCOPY . .\n"));
}

#[test]
fn an_ignore_file_of_the_dockerfile_alone_counts() {
    let local = Local::of(&[("app.py", ""), ("Dockerfile.dockerignore", "# x\n\n*.md\n!./README.md\n/docs\n")]);
    let chosen = Chosen { path: "Dockerfile".into(), why: String::new() };
    let stages = dockerfile::parse("FROM x\nCOPY . /app\nCOPY app.py /x/").unwrap();
    let content = Recipe::new(&local, &chosen, &stages).0.content(0).unwrap();
    assert_eq!(content.files[0].0.ignore, ["/devloop.yaml", "/*.md", "!/README.md", "/docs"]);
    assert_eq!(content.files[1].0.ignore, [""; 0]);
}

#[test]
fn stages_are_followed() {
    let text = r#"FROM node AS base
WORKDIR /app
COPY package.json .
FROM base AS build
COPY . .
RUN npm run build
FROM base
COPY --from=build /app/static ./public
COPY --from=build /app/dist ./dist
COPY --from=build /app/app.js /app/lib/
COPY --from=build /app /all
COPY --from=build /none/* /x/
"#;
    insta::assert_snapshot!(holds(&["package.json", "app.js", "static/a.css", "devloop.yaml"], text));
}

#[test]
fn neither_patterns_nor_stages_take_forever() {
    let name = "a".repeat(200);
    assert!(!fits(&format!("{}b", "*a".repeat(40)), &name));
    let stages: String =
        (1..60).map(|index| format!("FROM x AS s{index}\nCOPY --from=s{0} /a /a\nCOPY --from=s{0} /a /b\n", index - 1)).collect();
    assert!(holds(&["app.py"], &format!("FROM x AS s0\nCOPY . /a\n{stages}")).starts_with(". -> /a"));
}

#[test]
fn the_context_is_where_the_files_are() {
    let local = Local::of(&[("web/Dockerfile", ""), ("web/app.py", ""), ("lib.py", "")]);
    let chosen = Chosen { path: "web/Dockerfile".into(), why: String::new() };
    let context = |text: &str| {
        let stages = dockerfile::parse(text).unwrap();
        let (recipe, reason) = Recipe::new(&local, &chosen, &stages);
        format!("{} ({})", shown(&recipe.context), reason.why)
    };
    assert_eq!(context("FROM a\nCOPY app.py /x"), "web (what it copies is there, and not in the root)");
    assert_eq!(context("FROM a\nCOPY lib.py web /x/"), ". (what it copies is in the root, and not beside it)");
    assert_eq!(context("FROM a\nCOPY . /x/"), "web (it is the Dockerfile's own folder)");
}

#[test]
fn patterns_fit_as_they_do_in_docker() {
    for (pattern, name) in [("*.py", "a.py"), ("a?c", "abc"), ("[a-c]x", "bx"), ("[^a]x", "bx"), ("*", ".hidden"), ("a*b*c", "a1b2c")] {
        assert!(fits(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in
        [("*.py", "a.pyc"), ("a?c", "ac"), ("[a-c]x", "dx"), ("[^a]x", "ax"), ("[a", "a"), ("[", "a"), ("[]", "a"), ("", "a")]
    {
        assert!(!fits(pattern, name), "{pattern} {name}");
    }
}

proptest! {
    #[test]
    fn rules_stay_in_the_project_and_out_of_the_root(
        copies in proptest::collection::vec(("(--from=b )?", "[a-z./*\\[]{1,8}", "[a-z./]{1,8}"), 1..5),
        files in proptest::collection::vec("[a-c]{1,2}(/[a-c]{1,2}){0,2}", 1..5),
    ) {
        let files: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "")).collect();
        let local = Local::of(&files);
        let lines: Vec<String> = copies.iter().map(|(from, source, to)| format!("COPY {from}{source} {to}")).collect();
        let text = format!("FROM x AS b\nCOPY . /a\nFROM y\nWORKDIR /w\n{}", lines.join("\n"));
        let stages = dockerfile::parse(&text).unwrap();
        let chosen = Chosen { path: "Dockerfile".into(), why: String::new() };
        let (recipe, _) = Recipe::new(&local, &chosen, &stages);
        let content = recipe.content(stages.len() - 1).unwrap();
        for (rule, _) in &content.files {
            prop_assert!(rule.to.starts_with('/') && rule.to != "/" && !rule.to.split('/').any(|part| part == ".."));
            prop_assert!(rule.from.is_relative() && !rule.from.iter().any(|part| part == ".."), "{rule:?}");
        }
    }
}
