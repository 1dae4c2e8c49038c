//! What the matrix needs to know about each example.

/// An example, and how it shows what was done to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct App {
    /// Of the example's folder.
    pub(crate) name: &'static str,
    /// For the names of tests.
    pub(crate) id: &'static str,
    /// The folder of its pages.
    pub(crate) pages: &'static str,
    /// One of them, to be taken away.
    pub(crate) spare: &'static str,
    /// Where they are in the container.
    pub(crate) served: &'static str,
    /// What the service itself writes among them.
    pub(crate) own: Option<&'static str>,
    /// The URL's path that shows the code's greeting.
    pub(crate) version: &'static str,
    /// The file with the greeting.
    pub(crate) code: &'static str,
    /// Where that is in the container, unless it is compiled.
    pub(crate) code_inside: Option<&'static str>,
    /// What it says.
    pub(crate) greeting: &'static str,
    /// The event that tells that new code runs.
    pub(crate) renewed: &'static str,
    /// What only compiled ones have.
    pub(crate) compiled: Option<Compiled>,
}

/// Ways to break the code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// A word of the file with the greeting, and what no compiler takes for it.
    pub(crate) broken: (&'static str, &'static str),
    /// What the compiler says about that.
    pub(crate) complaint: &'static str,
    /// The main file, a text in it, and that text with an end soon after the start.
    pub(crate) crash: (&'static str, &'static str, &'static str),
}

/// What a crash says.
pub(crate) const LAST_WORDS: &str = "the roof is on fire";

pub(crate) const APPS: [App; 6] = [
    App {
        name: "shop",
        id: "rust",
        pages: "static",
        spare: "style.css",
        served: "/srv/static",
        own: None,
        version: "/api/version",
        code: "src/greeting.rs",
        code_inside: None,
        greeting: "hello from shop",
        renewed: "swapped",
        compiled: Some(Compiled {
            broken: ("pub(crate) const", "pub(crate) konst"),
            complaint: "expected one of",
            crash: ("src/main.rs", "fn main() -> ExitCode {", "fn main() -> ExitCode {\n    panic!(\"the roof is on fire\");"),
        }),
    },
    App {
        name: "go-web",
        id: "go",
        pages: "static",
        spare: "about.txt",
        served: "/srv/static",
        own: None,
        version: "/version",
        code: "cmd/web/greeting.go",
        code_inside: None,
        greeting: "hello from go-web",
        renewed: "swapped",
        compiled: Some(Compiled {
            broken: ("const", "konst"),
            complaint: "syntax error",
            crash: ("cmd/web/main.go", "func main() {", "func main() {\n\tlog.Fatal(\"the roof is on fire\")"),
        }),
    },
    App {
        name: "node-web",
        id: "node",
        pages: "public",
        spare: "about.txt",
        served: "/app/public",
        own: None,
        version: "/version",
        code: "src/greeting.js",
        code_inside: Some("/app/src/greeting.js"),
        greeting: "hello from node-web",
        renewed: "restarted",
        compiled: None,
    },
    App {
        name: "python-web",
        id: "python",
        pages: "static",
        spare: "about.txt",
        served: "/app/static",
        own: None,
        version: "/version",
        code: "src/greeting.py",
        code_inside: Some("/app/src/greeting.py"),
        greeting: "hello from python-web",
        renewed: "restarted",
        compiled: None,
    },
    App {
        name: "static-site",
        id: "nginx",
        pages: "site",
        spare: "about.txt",
        served: "/srv",
        own: None,
        version: "/version",
        code: "nginx.conf",
        code_inside: Some("/etc/nginx/nginx.conf"),
        greeting: "hello from static-site",
        renewed: "reloaded",
        compiled: None,
    },
    App {
        name: "shell-loop",
        id: "shell",
        pages: "www",
        spare: "about.txt",
        served: "/srv/www",
        own: Some("version"),
        version: "/version",
        code: "bin/serve.sh",
        code_inside: Some("/app/serve.sh"),
        greeting: "hello from shell-loop",
        renewed: "restarted",
        compiled: None,
    },
];
