//! What becomes of stern's flags, flag by flag; `STERN.md` is made of it.

use crate::args::Args;
use crate::render::Form;
use crate::render::stamp::StampForm;
use crate::request::Request;
use clap::{CommandFactory, Parser};
use devloop_core::args::ColorChoice;
use devloop_core::logs::{CONNECTIONS, ContainerState, Since};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// What a stern user gets.
enum Here {
    /// The same under the same name.
    Same(&'static str),
    /// The same under another.
    Renamed(&'static str, &'static str),
    /// Something else or nothing, and why.
    Absent(&'static str),
}

use Here::{Absent, Renamed, Same};

/// The flags that stern 1.35 documents: long and short name, and what is here.
/// Where a flag is not there yet, the table says so by itself.
const FLAGS: [(&str, Option<char>, Here); 44] = [
    ("all-namespaces", Some('A'), Same("")),
    ("burst", None, Absent("there is no client-side throttling; the API server has priority and fairness")),
    ("color", None, Same("")),
    ("completion", None, Absent("scripts come with `COMPLETE=bash kubectl-logs_tail` (zsh, fish)")),
    ("condition", None, Same("")),
    ("config", None, Same("the file is `~/.config/devloop/logs-tail.yaml`; the keys are the flags, as in stern")),
    ("container", Some('c'), Same("")),
    ("container-colors", None, Same("")),
    ("container-state", None, Same("")),
    ("context", None, Same("")),
    ("diff-container", Some('d'), Same("")),
    ("ephemeral-containers", None, Same("")),
    ("exclude", Some('e'), Same("looks at whole stack traces; `--no-fold` takes line by line")),
    ("exclude-container", Some('E'), Same("")),
    ("exclude-pod", None, Same("")),
    ("field-selector", None, Same("")),
    ("highlight", Some('H'), Same("")),
    ("include", Some('i'), Same("looks at whole stack traces; `--no-fold` takes line by line")),
    ("init-containers", None, Same("")),
    ("kubeconfig", None, Same("")),
    ("max-log-requests", None, Same("waits at the limit, where stern ends")),
    ("namespace", Some('n'), Same("")),
    ("no-follow", None, Same("")),
    ("node", None, Same("")),
    ("only-log-lines", None, Same("")),
    ("output", Some('o'), Same("`json` has stern's keys, and `timestamp`, `pod` and `container`")),
    ("pod-colors", None, Same("")),
    ("prompt", Some('p'), Same("")),
    ("qps", None, Absent("there is no client-side throttling; the API server has priority and fairness")),
    ("selector", Some('l'), Same("")),
    ("show-hidden-options", None, Absent("no option is hidden")),
    ("since", Some('s'), Same("the default is all there is, not 48 hours")),
    ("stdin", None, Same("")),
    ("tail", None, Same("")),
    ("template", None, Same("takes Jinja, too; a Go template is recognised by its `.Name`, and `--stern-template` takes nothing else")),
    ("template-file", Some('T'), Same("")),
    ("timestamps", Some('t'), Same("takes a pattern such as `%H:%M:%S`, too")),
    ("timezone", None, Same("")),
    ("verbosity", None, Renamed("verbose", "`-v`, `-vv`, `-vvv`")),
    ("version", Some('v'), Renamed("version", "`-V`; `-v` says more")),
    ("extjson (of --output)", None, Renamed("output", "`-o extjson`")),
    ("ppextjson (of --output)", None, Renamed("output", "`-o ppextjson`")),
    ("define, template, block (in templates)", None, Absent("a template is in one piece")),
    ("html, js, urlquery, call (in templates)", None, Absent("nothing that a log line needs")),
];

/// What of a command line is looked at.
type Check = fn(&Args, &Request) -> bool;

/// A command line of a stern user for each flag that is here, and what it means.
const USES: [(&str, &[&str], Check); 36] = [
    ("all-namespaces", &[".", "-A"], |_, request| request.places.all_namespaces && request.places.namespaces.is_none()),
    ("color", &["web", "--color", "always"], |args, _| args.global.color == ColorChoice::Always),
    ("condition", &["web", "--condition=ready=false"], |_, request| {
        request.options.choice.condition.as_ref().is_some_and(|condition| condition.name == "ready" && !condition.is_true)
    }),
    ("config", &["web", "--config", "stern.yaml"], |args, _| args.output.config.as_deref() == Some("stern.yaml".as_ref())),
    ("container", &["web", "-c", "^app"], |_, request| {
        request.options.choice.wants_container("app-1") && !request.options.choice.wants_container("proxy")
    }),
    ("container-colors", &["web", "--pod-colors", "91,92", "--container-colors", "31,32"], |_, request| {
        let colors = request.setup.look.palette.colors("web", "app");
        [("91", "31"), ("92", "32")].contains(&colors)
    }),
    ("container-state", &["web", "--container-state", "running,waiting"], |_, request| {
        request.options.choice.states == [ContainerState::Running, ContainerState::Waiting]
    }),
    ("context", &["web", "--context", "staging"], |_, request| request.places.clusters[0].context.as_deref() == Some("staging")),
    ("diff-container", &["web", "-d"], |args, _| args.output.diff_container),
    ("ephemeral-containers", &["web", "--ephemeral-containers=false"], |_, request| request.options.choice.without_ephemeral),
    ("exclude", &["web", "-e", "health", "-e", "ready"], |_, request| request.setup.judge.filter.exclude.len() == 2),
    ("exclude-container", &["web", "-E", "istio"], |_, request| !request.options.choice.wants_container("istio-proxy")),
    ("exclude-pod", &["web", "--exclude-pod", "canary"], |_, request| request.options.choice.exclude_pods.len() == 1),
    ("field-selector", &["--field-selector", "spec.nodeName=a"], |_, request| request.places.fields.as_deref() == Some("spec.nodeName=a")),
    ("highlight", &["web", "-H", "error"], |_, request| request.setup.look.highlight.len() == 1 && request.setup.judge.filter.is_empty()),
    ("include", &["web", "-i", "error"], |_, request| request.setup.judge.filter.include.len() == 1),
    ("init-containers", &["web", "--init-containers=false"], |_, request| request.options.choice.without_init),
    ("kubeconfig", &["web", "--kubeconfig", "k"], |_, request| request.places.clusters[0].kubeconfig.as_deref() == Some("k".as_ref())),
    ("max-log-requests", &["web", "--max-log-requests", "-1"], |_, request| request.options.connections == CONNECTIONS),
    ("namespace", &["web", "-n", "a,b"], |_, request| request.places.namespaces.as_ref().is_some_and(|names| names.len() == 2)),
    ("no-follow", &["web", "--no-follow"], |_, request| !request.follow),
    ("node", &["web", "--node", "a"], |_, request| request.places.fields.as_deref() == Some("spec.nodeName=a")),
    ("only-log-lines", &["web", "--only-log-lines"], |_, request| !request.setup.says_sources),
    ("output", &["web", "-o", "json"], |_, request| request.setup.look.form == Form::Json),
    ("pod-colors", &["web", "--pod-colors", "38;2;255;97;136"], |_, request| {
        request.setup.look.palette.colors("a", "b").0 == "38;2;255;97;136"
    }),
    ("prompt", &["-p"], |_, request| request.asks),
    ("selector", &["-l", "app=web"], |_, request| request.places.labels.as_deref() == Some("app=web")),
    ("since", &["web", "-s", "48h0m0s"], |_, request| request.options.since == Some(Since::Ago(SignedDuration::from_hours(48)))),
    ("stdin", &["--stdin"], |_, request| request.reads_stdin),
    ("tail", &["web", "--tail", "-1"], |_, request| request.options.tail.is_none()),
    ("template", &["web", "--template", "{{.Message}}"], |_, request| request.setup.look.template.is_some()),
    ("template-file", &["web", "-T", "file"], |args, _| args.output.template_file.is_some()),
    ("timestamps", &["web", "-t=short"], |_, request| {
        request.setup.look.stamp.as_ref().is_some_and(|stamp| stamp.form == StampForm::Short)
    }),
    ("timezone", &["web", "-t", "--timezone", "UTC"], |_, request| {
        request.setup.look.stamp.as_ref().is_some_and(|stamp| stamp.zone == TimeZone::UTC)
    }),
    ("extjson (of --output)", &["web", "-o", "extjson"], |_, request| request.setup.look.form == Form::ExtendedJson),
    ("ppextjson (of --output)", &["web", "-o", "ppextjson"], |_, request| request.setup.look.form == Form::PrettyJson),
];

/// Flags of stern that this plugin has had from the start, whatever is added.
const HELD: [&str; 19] = [
    "color",
    "config",
    "container",
    "container-colors",
    "context",
    "diff-container",
    "exclude",
    "highlight",
    "include",
    "kubeconfig",
    "namespace",
    "no-follow",
    "only-log-lines",
    "output",
    "pod-colors",
    "selector",
    "stdin",
    "tail",
    "template",
];

fn has(long: &str, short: Option<char>) -> (bool, bool) {
    let mut command = Args::command();
    command.build();
    let found = command.get_arguments().find(|arg| arg.get_long() == Some(long));
    (found.is_some(), found.is_some_and(|arg| short.is_none_or(|short| arg.get_short() == Some(short))))
}

fn table() -> String {
    let mut text = String::from(
        "# For users of stern\n\nChange the program's name; this is what its flags (stern 1.35) are here. Made by a test from the command line itself.\n\n| stern | here | |\n|---|---|---|\n",
    );
    for (long, short, here) in &FLAGS {
        let name = match short {
            _ if long.contains(' ') => {
                format!("`{}`{}", long.split(" (").next().unwrap_or(long), long.find(" (").map_or("", |at| &long[at..]))
            }
            Some(short) => format!("`--{long}`, `-{short}`"),
            None => format!("`--{long}`"),
        };
        let (here, note) = match here {
            Same(note) => match has(long, *short) {
                (true, true) => ("the same".to_owned(), (*note).to_owned()),
                (true, false) => {
                    (format!("`--{long}`"), format!("without the short name{}{note}", if note.is_empty() { "" } else { "; " }))
                }
                (false, _) => ("not yet".to_owned(), String::new()),
            },
            Renamed(name, note) => {
                assert!(has(name, None).0, "--{name}");
                (format!("`--{name}`"), (*note).to_owned())
            }
            Absent(why) => {
                assert!(!has(long, None).0, "--{long} is there");
                ("no".to_owned(), (*why).to_owned())
            }
        };
        text += &format!("| {name} | {here} | {note} |\n");
    }
    text
}

#[test]
fn the_table_for_users_of_stern_is_current() {
    for long in HELD {
        let short = FLAGS.iter().find(|(name, ..)| *name == long).and_then(|(_, short, _)| *short);
        assert_eq!(has(long, short), (true, true), "--{long}");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/STERN.md");
    if std::env::var_os("UPDATE_STERN_MD").is_some() {
        std::fs::write(path, table()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), table(), "run this test once with UPDATE_STERN_MD=1");
}

#[test]
fn a_command_line_for_stern_means_the_same_here() {
    for (flag, words, check) in USES {
        let args =
            Args::try_parse_from(std::iter::once(&"kubectl-logs_tail").chain(words)).unwrap_or_else(|error| panic!("{flag}: {error}"));
        let request = Request::new(args.clone(), None, true, Timestamp::now()).unwrap_or_else(|error| panic!("{flag}: {error}"));
        assert!(check(&args, &request), "{flag}: {words:?}");
    }
    let is_here = |here: &Here| matches!(here, Same(_)) || matches!(here, Renamed("output", _));
    let missing: Vec<&str> = FLAGS
        .iter()
        .filter(|(flag, _, here)| is_here(here) && USES.iter().all(|(used, ..)| used != flag))
        .map(|(flag, ..)| *flag)
        .collect();
    assert!(missing.is_empty(), "without a use: {missing:?}");
}
