//! What kind of program runs, by its names, and what makes each kind take note
//! of a changed file. Pure.
//!
//! | runtime | files | what is done |
//! |---|---|---|
//! | Python | `.py` `.pyc` `.so` | restart |
//! | Node | `.js` `.mjs` `.cjs` `.jsx` `.ts` `.mts` `.cts` `.tsx` `.json` `.node` | restart |
//! | Ruby | `.rb` `.ru` | restart |
//! | Perl | `.pl` `.pm` `.psgi` | restart |
//! | JVM | `.class` `.jar` | restart |
//! | shell | `.sh` `.bash` | restart |
//! | any of these | the file that its arguments name | restart |
//! | nginx | `.conf`, `mime.types` | SIGHUP |
//! | PHP, native, others | all | none |
//!
//! All else, such as templates, pages, styles and images, is read when it is
//! needed, or can't be told from such: none.

use super::{RemoteProcess, paths};
use crate::project::{ReloadAction, ReloadRule};

/// A kind of program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Compiled to machine code, as far as can be told.
    Native,
    /// `CPython`, `PyPy`.
    Python,
    /// Node and what stands in for it.
    Node,
    /// Ruby.
    Ruby,
    /// PHP, which reads its files at each request.
    Php,
    /// Perl.
    Perl,
    /// A shell.
    Shell,
    /// Java and the like.
    Jvm,
    /// nginx and its kin.
    Nginx,
    /// An interpreter or server that nothing more is known about.
    Other,
}

/// Names of programs, without versions.
const NAMES: [(Runtime, &[&str]); 9] = [
    (Runtime::Python, &["python", "pypy"]),
    (Runtime::Node, &["node", "nodejs", "bun", "deno"]),
    (Runtime::Ruby, &["ruby", "jruby", "truffleruby"]),
    (Runtime::Php, &["php", "php-fpm", "php-cgi", "frankenphp"]),
    (Runtime::Perl, &["perl"]),
    (Runtime::Shell, &["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "fish"]),
    (Runtime::Jvm, &["java"]),
    (Runtime::Nginx, &["nginx", "nginx-debug", "openresty", "tengine", "angie"]),
    (
        Runtime::Other,
        &["httpd", "apache", "lighttpd", "caddy", "busybox", "toybox", "beam.smp", "erl", "lua", "luajit", "dotnet", "mono", "rscript"],
    ),
];

/// What kind of program this is, by the path of its executable and its
/// arguments.
pub fn runtime_of(executable: &str, argv: &[String]) -> Runtime {
    let name = paths::name(executable.trim_end_matches(" (deleted)"));
    let first = argv.first().map_or("", |argument| argument.trim_start_matches('-'));
    // One program under many names, or with the name as its first argument.
    let applet = if name == "busybox" || name == "toybox" {
        let own = paths::name(first);
        if own == name { argv.get(1).map_or("", String::as_str) } else { own }
    } else {
        ""
    };
    let candidates = [paths::name(applet), name, if name.is_empty() { paths::name(first) } else { "" }];
    let candidates: Vec<String> = candidates.iter().filter(|name| !name.is_empty()).map(|name| without_version(name)).collect();
    let known = |name: &String| NAMES.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(runtime, _)| *runtime);
    if candidates.is_empty() {
        return Runtime::Other;
    }
    candidates.iter().find_map(known).unwrap_or(Runtime::Native)
}

/// `python` of `python3.11`, `php-fpm` of `php-fpm8.2`.
fn without_version(name: &str) -> String {
    name.to_ascii_lowercase()
        .trim_end_matches(|character: char| character.is_ascii_digit() || character == '.')
        .trim_end_matches('-')
        .to_owned()
}

/// Endings of files, or whole names, and what is done about them.
fn table(runtime: Runtime) -> (&'static [&'static str], ReloadAction) {
    match runtime {
        Runtime::Python => (&["*.py", "*.pyc", "*.so"], ReloadAction::Restart),
        Runtime::Node => {
            (&["*.js", "*.mjs", "*.cjs", "*.jsx", "*.ts", "*.mts", "*.cts", "*.tsx", "*.json", "*.node"], ReloadAction::Restart)
        }
        Runtime::Ruby => (&["*.rb", "*.ru"], ReloadAction::Restart),
        Runtime::Perl => (&["*.pl", "*.pm", "*.psgi"], ReloadAction::Restart),
        Runtime::Jvm => (&["*.class", "*.jar"], ReloadAction::Restart),
        Runtime::Shell => (&["*.sh", "*.bash"], ReloadAction::Restart),
        Runtime::Nginx => (&["*.conf", "mime.types"], ReloadAction::Signal("HUP".to_owned())),
        Runtime::Native | Runtime::Php | Runtime::Other => (&[], ReloadAction::None),
    }
}

/// What makes such a program take note of a changed file: see the table above.
pub fn guess_action(runtime: Runtime, path_in_container: &str) -> ReloadAction {
    let name = paths::name(path_in_container);
    let (patterns, action) = table(runtime);
    let fits = |pattern: &&str| match pattern.strip_prefix('*') {
        Some(ending) => name.ends_with(ending),
        None => name == *pattern,
    };
    if patterns.iter().any(fits) { action } else { ReloadAction::None }
}

/// Like [`guess_action`], for a process that runs: a file that its arguments
/// name, whatever its ending, is the program itself.
pub fn guess_for(process: &RemoteProcess, path_in_container: &str) -> ReloadAction {
    let runtime = runtime_of(&process.executable, &process.argv);
    if names_file(runtime, process, path_in_container) { ReloadAction::Restart } else { guess_action(runtime, path_in_container) }
}

fn names_file(runtime: Runtime, process: &RemoteProcess, path: &str) -> bool {
    let interprets = matches!(runtime, Runtime::Python | Runtime::Node | Runtime::Ruby | Runtime::Perl | Runtime::Jvm | Runtime::Shell);
    interprets && process.argv.iter().skip(1).any(|argument| !argument.starts_with('-') && paths::join(&process.cwd, argument) == path)
}

/// The table's part for a runtime, as rules of a devloop.yaml.
pub(super) fn rules_of(runtime: Runtime) -> Option<ReloadRule> {
    let (patterns, action) = table(runtime);
    (!patterns.is_empty()).then(|| ReloadRule { on: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(), action })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patterns::Patterns;
    use proptest::prelude::*;
    use std::path::Path;

    const ALL: [Runtime; 10] = [
        Runtime::Native,
        Runtime::Python,
        Runtime::Node,
        Runtime::Ruby,
        Runtime::Php,
        Runtime::Perl,
        Runtime::Shell,
        Runtime::Jvm,
        Runtime::Nginx,
        Runtime::Other,
    ];

    fn runtime(executable: &str, argv: &str) -> Runtime {
        runtime_of(executable, &argv.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn programs_are_known_by_their_names() {
        for (executable, argv, expected) in [
            ("/usr/local/bin/python3.11", "python app.py", Runtime::Python),
            ("/usr/bin/pypy3", "pypy3 x", Runtime::Python),
            ("/usr/bin/python3.11", "gunicorn: master [app:app]", Runtime::Python),
            ("/usr/local/bin/node", "npm start", Runtime::Node),
            ("/usr/bin/nodejs", "x", Runtime::Node),
            ("/usr/sbin/php-fpm8.2", "php-fpm: master process", Runtime::Php),
            ("/usr/local/bin/php", "php -S 0:80", Runtime::Php),
            ("/usr/bin/bash", "bash run.sh", Runtime::Shell),
            ("/bin/busybox", "sh /run.sh", Runtime::Shell),
            ("/bin/busybox", "busybox sh -c x", Runtime::Shell),
            ("/bin/busybox", "-ash", Runtime::Shell),
            ("/bin/busybox", "httpd -f", Runtime::Other),
            ("/usr/lib/jvm/bin/java", "java -jar x.jar", Runtime::Jvm),
            ("/usr/sbin/nginx", "nginx: master process nginx", Runtime::Nginx),
            ("/usr/bin/perl5.36.0", "perl x.pl", Runtime::Perl),
            ("/usr/local/bin/ruby", "puma 6.4", Runtime::Ruby),
            ("/app/shop", "/app/shop", Runtime::Native),
            ("/app/shop (deleted)", "python", Runtime::Native),
            ("", "/usr/bin/python3 x", Runtime::Python),
            ("", "", Runtime::Other),
        ] {
            assert_eq!(runtime(executable, argv), expected, "{executable} {argv}");
        }
    }

    #[test]
    fn changed_files_ask_for_what_the_table_says() {
        let restart = [
            (Runtime::Python, "/app/a.py"),
            (Runtime::Python, "/app/x.cpython-311.so"),
            (Runtime::Node, "/app/package.json"),
            (Runtime::Node, "/app/a.ts"),
            (Runtime::Ruby, "/app/config.ru"),
            (Runtime::Perl, "/app/a.pl"),
            (Runtime::Shell, "/run.sh"),
        ];
        for (runtime, path) in restart {
            assert_eq!(guess_action(runtime, path), ReloadAction::Restart, "{path}");
        }
        for path in ["/etc/nginx/conf.d/x.conf", "/etc/nginx/mime.types"] {
            assert_eq!(guess_action(Runtime::Nginx, path), ReloadAction::Signal("HUP".into()), "{path}");
        }
        for (runtime, path) in [
            (Runtime::Python, "/app/templates/a.html"),
            (Runtime::Python, "/app/a.jinja"),
            (Runtime::Nginx, "/srv/index.html"),
            (Runtime::Php, "/srv/index.php"),
            (Runtime::Native, "/app/static/a.js"),
            (Runtime::Other, "/x.conf"),
        ] {
            assert_eq!(guess_action(runtime, path), ReloadAction::None, "{path}");
        }
    }

    #[test]
    fn the_file_that_runs_needs_no_ending() {
        let process = RemoteProcess {
            executable: "/bin/dash".into(),
            argv: ["sh", "-e", "bin/serve"].map(str::to_owned).into(),
            cwd: "/app".into(),
            main_argv: Vec::new(),
        };
        assert_eq!(guess_for(&process, "/app/bin/serve"), ReloadAction::Restart);
        assert_eq!(guess_for(&process, "/app/bin/other"), ReloadAction::None);
        let native = RemoteProcess { executable: "/app/shop".into(), ..process };
        assert_eq!(guess_for(&native, "/app/bin/serve"), ReloadAction::None);
    }

    proptest! {
        #[test]
        fn the_rules_of_a_file_say_what_is_guessed_without_one(index in 0..ALL.len(), path in "[a-z]{0,3}/[a-z]{1,4}(\\.(py|js|rb|pl|sh|conf|types|jar|html|json|so))?") {
            let guessed = guess_action(ALL[index], &format!("/{path}"));
            let rule = rules_of(ALL[index]);
            let fits = rule.as_ref().is_some_and(|rule| {
                Patterns::new(Path::new("/"), rule.on.iter().map(String::as_str)).unwrap().fit(Path::new(&format!("/{path}")))
            });
            prop_assert_eq!(if fits { rule.unwrap().action } else { ReloadAction::None }, guessed);
        }
    }
}
