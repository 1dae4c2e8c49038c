//! How a program in an image was built: which `cargo build` or `go build` of a
//! Dockerfile made it. Pure.

use super::dockerfile::{Action, Origin, words};
use super::image::{Content, Recipe};
use super::local::{CargoBinary, GoMain, Local, inside};
use super::{DetectError, paths};
use crate::project::{Build, CargoBuild, GoBuild};
use std::path::{Path, PathBuf};

/// A program of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) build: Build,
    pub(super) why: String,
}

/// A command in a `RUN`.
struct Command {
    line: usize,
    words: Vec<String>,
    /// Where it runs, in the stage.
    folder: String,
}

/// The program that a stage makes at this path, if it makes one there.
pub(super) fn made(recipe: &Recipe<'_>, stage: usize, path: &str, content: &Content) -> Result<Option<Program>, DetectError> {
    let commands = commands(recipe, stage);
    let place = |command: &Command| format!("{}:{}: {}", recipe.path.display(), command.line, command.words.join(" "));
    for command in &commands {
        if let Some(program) = go_build(recipe, command, content, &place(command)).into_iter().find(|(made, _)| made == path) {
            return Ok(Some(program.1));
        }
    }
    if let Some(command) = commands.iter().find(|command| is_cargo_build(&command.words)) {
        let name = cargo_output(path).map(str::to_owned).or_else(|| copied_output(&commands, path));
        let name = name.unwrap_or_else(|| paths::name(path).to_owned());
        if let Some(program) = cargo(recipe.local, &name, &place(command))? {
            return Ok(Some(program));
        }
    }
    // `make web`, a script: the name has to do, where nothing else is there.
    let builds = commands.iter().find(|command| {
        let tool = command.words.first().map_or("", |word| paths::name(word));
        ["make", "just", "task", "mage", "bazel"].contains(&tool) || tool.ends_with(".sh")
    });
    match builds.filter(|_| !content.files.iter().any(|(rule, _)| rule.to == path)) {
        Some(command) => by_name(recipe.local, paths::name(path), &place(command)),
        None => Ok(None),
    }
}

/// The programs that a stage's `go build` puts into a folder.
pub(super) fn made_below(
    recipe: &Recipe<'_>,
    stage: usize,
    folder: &str,
    content: &Content,
) -> Result<Vec<(String, Program)>, DetectError> {
    let commands = commands(recipe, stage);
    let place = |command: &Command| format!("{}:{}: {}", recipe.path.display(), command.line, command.words.join(" "));
    let all = commands.iter().flat_map(|command| go_build(recipe, command, content, &place(command)));
    Ok(all.filter(|(made, _)| paths::below(made, folder).is_some_and(|rest| !rest.is_empty())).collect())
}

/// The one program of the project that has this name.
pub(super) fn by_name(local: &Local, name: &str, place: &str) -> Result<Option<Program>, DetectError> {
    let go: Vec<&GoMain> = local.go.iter().filter(|main| main.name() == name).collect();
    let cargo = cargo(local, name, place)?;
    match (cargo, go.as_slice()) {
        (program, []) => Ok(program),
        (None, [main]) => Ok(Some(Program { build: go_program(main, Vec::new()), why: format!("{place}; {name} is a main package") })),
        (cargo, mains) => {
            let cargo = cargo.map(|_| format!("the cargo binary {name}"));
            let mains = mains.iter().map(|main| format!("the Go package {} of {}", main.argument(), main.module));
            Err(DetectError::Ambiguous {
                what: format!("which program {name} is"),
                choices: cargo.into_iter().chain(mains).collect(),
                advice: "say which with `build` in a devloop.yaml".to_owned(),
            })
        }
    }
}

/// The cargo binary of this name.
fn cargo(local: &Local, name: &str, place: &str) -> Result<Option<Program>, DetectError> {
    let found: Vec<&CargoBinary> = local.cargo.iter().filter(|binary| binary.binary == name).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => {
            let build =
                CargoBuild { package: one.package.clone(), binary: one.binary.clone(), profile: None, manifest: one.manifest.clone() };
            Ok(Some(Program { build: Build::Cargo(build), why: format!("{place}; {name} is a binary of the package {}", one.package) }))
        }
        several => Err(DetectError::Ambiguous {
            what: format!("which package's binary {name} is"),
            choices: several.iter().map(|binary| format!("package {}", binary.package)).collect(),
            advice: "say which with `build: {cargo: {package: …}}` in a devloop.yaml".to_owned(),
        }),
    }
}

/// The commands of a stage, and of those that it is built upon.
fn commands(recipe: &Recipe<'_>, stage: usize) -> Vec<Command> {
    let stage = &recipe.stages[stage];
    let mut all = match stage.base {
        Origin::Stage(earlier) => commands(recipe, earlier),
        Origin::Context | Origin::Image(_) => Vec::new(),
    };
    for step in &stage.steps {
        let Action::Run { script, workdir } = &step.action else { continue };
        let mut folder = workdir.clone();
        for part in script.split(['\n', ';', '|', '&', '(', ')']) {
            let words = words(part, '\\').iter().map(|word| word.replace(['"', '\''], "")).collect::<Vec<_>>();
            // Flags of RUN and variables of one command stand in front of it.
            let words: Vec<String> = words.into_iter().skip_while(|word| word.starts_with("--") || is_assignment(word)).collect();
            match words.first().map(String::as_str) {
                Some("cd") => folder = paths::join(&folder, words.get(1).map_or("/", String::as_str)),
                Some(_) => all.push(Command { line: step.line, words, folder: folder.clone() }),
                None => {}
            }
        }
    }
    all
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()))
}

fn is_cargo_build(words: &[String]) -> bool {
    let cargo = words.iter().position(|word| paths::name(word) == "cargo" || word == "cross");
    let builds = ["build", "b", "install", "zigbuild", "auditable", "rustc"];
    cargo.is_some_and(|cargo| words[cargo..].iter().any(|word| builds.contains(&word.as_str())))
}

/// The name in `…/target/release/web` or `…/target/TRIPLE/PROFILE/web`.
fn cargo_output(path: &str) -> Option<&str> {
    path.split('/').any(|part| part == "target").then(|| paths::name(path))
}

/// The name of the cargo output that a command puts at `path`.
fn copied_output(commands: &[Command], path: &str) -> Option<String> {
    let copies = commands.iter().filter(|command| ["cp", "mv", "install"].contains(&command.words[0].as_str()));
    copies.rev().find_map(|command| {
        let (to, sources) = command.words[1..].split_last()?;
        let to = paths::join(&command.folder, to);
        let source = sources.iter().find_map(|source| cargo_output(source))?;
        (to == path || paths::join(&to, source) == path).then(|| source.to_owned())
    })
}

/// What a `go build` or `go install` makes, by path in the stage.
fn go_build(recipe: &Recipe<'_>, command: &Command, content: &Content, place: &str) -> Vec<(String, Program)> {
    let Some(start) = command.words.iter().position(|word| paths::name(word) == "go") else { return Vec::new() };
    let installs = match command.words.get(start + 1).map(String::as_str) {
        Some("build") => false,
        Some("install") => true,
        _ => return Vec::new(),
    };
    let flags = GoFlags::read(&command.words[start + 2..]);
    let packages = if flags.packages.is_empty() { vec![".".to_owned()] } else { flags.packages.clone() };
    let mains: Vec<&GoMain> = packages.iter().flat_map(|package| go_mains(recipe, &command.folder, package, content)).collect();
    let output = flags.output.as_ref().map(|output| (paths::join(&command.folder, output), output.ends_with('/')));
    let placed = |main: &GoMain| match &output {
        _ if installs => paths::join("/go/bin", main.name()),
        Some((path, into_folder)) if *into_folder || mains.len() > 1 => paths::join(path, main.name()),
        Some((path, _)) => path.clone(),
        None => paths::join(&command.folder, main.name()),
    };
    mains.iter().map(|main| (placed(main), Program { build: go_program(main, flags.kept.clone()), why: place.to_owned() })).collect()
}

fn go_program(main: &GoMain, flags: Vec<String>) -> Build {
    let folder = (!main.folder.as_os_str().is_empty()).then(|| main.folder.clone());
    Build::Go(GoBuild { package: main.argument(), folder, flags })
}

/// The main packages that an argument of `go build` stands for.
fn go_mains<'a>(recipe: &'a Recipe<'_>, folder: &str, package: &str, content: &Content) -> Vec<&'a GoMain> {
    let own = |main: &GoMain| main.folder.join(&main.package);
    if !package.starts_with('.') && !package.starts_with('/') && !package.ends_with(".go") {
        let import = |main: &GoMain| format!("{}/{}", main.module, main.package.display()).trim_end_matches('/').to_owned();
        return recipe.local.go.iter().filter(|main| import(main) == package).collect();
    }
    let (package, all) = package.strip_suffix("...").map_or((package, false), |front| (front, true));
    // `go build main.go` is the package of that file.
    let package = if package.ends_with(".go") { package.rsplit_once('/').map_or(".", |(front, _)| front) } else { package };
    let path = paths::join(folder, package);
    let Some(local) = local_folder(recipe, &path, content) else { return Vec::new() };
    recipe.local.go.iter().filter(|main| own(main) == local || (all && own(main).starts_with(&local))).collect()
}

/// The local folder that a stage has at this path.
fn local_folder(recipe: &Recipe<'_>, path: &str, content: &Content) -> Option<PathBuf> {
    let rules = content.files.iter().rev().filter_map(|(rule, _)| paths::below(path, &rule.to).map(|rest| (rule, rest)));
    let mut found = rules.filter_map(|(rule, rest)| inside(&rule.from.iter().filter(|part| *part != ".").collect::<PathBuf>(), rest));
    // Copied file by file, or to the root: the context has it at the same place.
    let by_module = || {
        let modules = recipe.local.go.iter().map(|main| main.folder.as_path()).filter(|folder| folder.starts_with(&recipe.context));
        let module = modules.min_by_key(|folder| folder.components().count())?;
        let workdir = content.files.iter().find(|(rule, _)| rule.from.ends_with("go.mod")).map(|(rule, _)| paths::parent(&rule.to));
        inside(module, paths::below(path, workdir?)?)
    };
    found.find(|folder| recipe.local.entry(folder).is_some()).or_else(by_module).or_else(|| path_in_context(&recipe.context, path))
}

fn path_in_context(context: &Path, path: &str) -> Option<PathBuf> {
    inside(context, path)
}

#[derive(Default)]
struct GoFlags {
    output: Option<String>,
    packages: Vec<String>,
    /// Those that change what is built.
    kept: Vec<String>,
}

impl GoFlags {
    fn read(words: &[String]) -> Self {
        /// Flags with a value, which may be the next word (`go help build`).
        const VALUED: [&str; 18] = [
            "o",
            "p",
            "C",
            "asmflags",
            "buildmode",
            "compiler",
            "gccgoflags",
            "gcflags",
            "installsuffix",
            "ldflags",
            "mod",
            "modfile",
            "overlay",
            "pgo",
            "pkgdir",
            "tags",
            "toolexec",
            "covermode",
        ];
        let mut flags = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                flags.packages.push(word.clone());
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None if VALUED.contains(&flag) => (flag, words.next().cloned()),
                None => (flag, None),
            };
            match (name, value) {
                ("o", value) => flags.output = value,
                ("tags", Some(tags)) => flags.kept.push(format!("-tags={tags}")),
                _ => {}
            }
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Detected, Remote, detect, what_build};
    use super::*;
    use proptest::prelude::*;

    fn project(dockerfile: &str) -> Local {
        let files =
            [("Dockerfile", dockerfile), ("go.mod", ""), ("cmd/web/main.go", ""), ("src/main.rs", ""), ("bin/shop", ""), ("run.sh", "")];
        Local::of(&files).with_cargo("shop-server", "shop").with_go("example.com/all", "cmd/web").with_go("example.com/all", "")
    }

    fn built(dockerfile: &str) -> String {
        match detect(&project(dockerfile), &Remote::of("app", "deploy/app")) {
            Ok(Detected { service, .. }) => {
                let build = service.build.as_ref().map_or_else(|| "no build".to_owned(), what_build);
                format!("{build} at {}", service.binary.as_deref().unwrap_or("none"))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn programs_are_followed_to_their_sources() {
        let cargo = "FROM rust AS b\nWORKDIR /s\nCOPY . .\n";
        let go = "FROM golang AS b\nWORKDIR /s\nCOPY . .\n";
        let end = |copy: &str, run: &str| format!("FROM scratch\nCOPY {copy}\nENTRYPOINT [\"{run}\"]\n");
        let all = [
            built(&format!("{cargo}RUN cargo build --release\n{}", end("--from=b /s/target/release/shop /usr/bin/", "shop"))),
            built(&format!("{cargo}RUN cargo install --path . --root /out\n{}", end("--from=b /out/bin/shop /shop", "/shop"))),
            built(&format!("{cargo}RUN cargo build && cp target/debug/shop /renamed\n{}", end("--from=b /renamed /app", "/app"))),
            built(&format!(
                "{cargo}RUN cargo build && mkdir /out && mv target/debug/shop /out/\n{}",
                end("--from=b /out/ /bin/", "/bin/shop")
            )),
            built(&format!("{go}RUN go build ./cmd/web\n{}", end("--from=b /s/web /", "/web"))),
            built(&format!("{go}RUN cd cmd/web && CGO_ENABLED=0 go build -o /out/x\n{}", end("--from=b /out/x /web", "/web"))),
            built(&format!("{go}RUN go install example.com/all/cmd/web\n{}", end("--from=b /go/bin/web /web", "/web"))),
            built(&format!("{go}RUN go build -ldflags \"-s -w\" -o /all main.go\n{}", end("--from=b /all /all", "/all"))),
            built(&format!("{go}RUN make\n{}", end("--from=b /s/dist/web /web", "/web"))),
            built(&end("target/release/shop /shop", "/shop")),
            built(&end("bin/shop /shop", "/shop")),
            built(&end("run.sh /run.sh", "/run.sh")),
            built("FROM rust\nWORKDIR /s\nCOPY . .\nRUN cargo build --release\nCMD [\"./target/release/shop\"]\n"),
            built(&format!("{cargo}RUN cargo build\n{}", end("--from=b /s/target/debug/other /x", "/x"))),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    const LINE: &str = "(FROM (a|b|scratch)( AS (a|b))?|COPY (--from=(a|b|0) )?(\\.|web|shop|src|/out|/s/target/release/shop|\\*|bin/\\*) (\\.|/|/x|/out/)\
        |RUN (go build|cargo build|go install|make|cp|cd)( -o| \\./cmd/web| /out/shop| \\.\\.\\.| &&| target/x)*|WORKDIR (/s|x|\\$A)\
        |ENTRYPOINT (\\[\"/x\"\\]|/out/web))";

    proptest! {
        #[test]
        fn any_dockerfile_gives_a_service_that_can_be_read_or_an_error(lines in proptest::collection::vec(LINE, 0..9), argv in "(|/x|/out/web|python3 run.py|nginx)") {
            let local = project(&lines.join("\n"));
            let mut remote = Remote::of("app", "deploy/app");
            remote.command = argv.split(' ').map(str::to_owned).collect();
            if let Ok(detected) = detect(&local, &remote) {
                let text = super::super::render_yaml(&detected);
                prop_assert_eq!(crate::project::parse_text(&text).unwrap(), [detected.service]);
            }
        }
    }
}
