//! Without a Dockerfile: from what runs in the container to the local files
//! behind it. Pure.

use super::argv::{self, Program};
use super::local::{Local, rule_path, shown};
use super::runtime::{Runtime, runtime_of};
use super::{DetectError, Found, Reason, RemoteProcess, artifact, paths, what_binary, what_build, what_sync};
use crate::project::SyncRule;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is never of use in a container.
const LEFT_OUT: [&str; 6] = ["/devloop.yaml", "__pycache__/", "*.pyc", ".venv/", "venv/", ".git*"];

/// What of the project the process is made of; nothing when it can't be told.
pub(super) fn find(local: &Local, process: &RemoteProcess) -> Result<Option<Found>, DetectError> {
    let runtime = runtime_of(&process.executable, &process.argv);
    match runtime {
        Runtime::Native => native(local, process),
        Runtime::Nginx => nginx(local, process).map(Some),
        _ => {
            let program = argv::program(runtime, &process.argv, &process.cwd).or_else(|| start_script(local, process));
            match program {
                Some(Program::Files(files)) => interpreted(local, process, &files),
                Some(Program::Pages(folder)) => {
                    let why = format!("the process serves it: {}", process.argv.join(" "));
                    let index = if runtime == Runtime::Php { "index.php" } else { "index.html" };
                    pages(local, &folder, index, &why).map(Some)
                }
                None => Ok(None),
            }
        }
    }
}

/// A compiled program is known by its name.
fn native(local: &Local, process: &RemoteProcess) -> Result<Option<Found>, DetectError> {
    let executable = process.executable.trim_end_matches(" (deleted)");
    let place = format!("{executable} runs in the container");
    let Some(program) = artifact::by_name(local, paths::name(executable), &place)? else { return Ok(None) };
    let reasons =
        vec![Reason::new(what_build(&program.build), program.why), Reason::new(what_binary(executable), "it is the program that runs")];
    Ok(Some(Found { build: Some((program.build, executable.to_owned())), sync: Vec::new(), reasons }))
}

/// `npm start` doesn't say what it starts; package.json does.
fn start_script(local: &Local, process: &RemoteProcess) -> Option<Program> {
    let title = process.argv.first()?;
    let (tool, script) = title.split_once(' ').or_else(|| Some((title, process.argv.get(1)?)))?;
    if !["npm", "yarn", "pnpm"].contains(&paths::name(tool)) {
        return None;
    }
    let script = script.trim_start_matches("run ").split(' ').next().unwrap_or(script);
    let packages = local.nearest(local.texts.keys().filter(|path| path.ends_with("package.json")).collect(), |path| folder_of(path));
    let [package] = packages.as_slice() else { return None };
    let document: serde_json::Value = serde_json::from_str(&local.texts[*package]).ok()?;
    let words: Vec<String> = document["scripts"][script].as_str()?.split_whitespace().map(str::to_owned).collect();
    let start = words.iter().position(|word| ["node", "nodemon", "ts-node", "tsx", "bun"].contains(&word.as_str()))?;
    argv::program(Runtime::Node, &words[start..], &process.cwd)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The local file that is the program tells which local folder is which folder
/// of the container.
fn interpreted(local: &Local, process: &RemoteProcess, files: &[String]) -> Result<Option<Found>, DetectError> {
    for path in files {
        let candidates = alike(local, path, &process.cwd);
        let candidates = local.nearest(candidates, |candidate| &candidate.folder);
        match candidates.as_slice() {
            [] => {}
            [one] => return Ok(Some(whole_folder(local, process, path, one))),
            several => {
                return Err(DetectError::Ambiguous {
                    what: format!("which file {path} of the container is"),
                    choices: several.iter().map(|candidate| candidate.file.display().to_string()).collect(),
                    advice: "go to the folder of the one that is meant and run the command there".to_owned(),
                });
            }
        }
    }
    Ok(None)
}

/// A local file that may be a file of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alike {
    file: PathBuf,
    /// The local folder, and the container's, that are the same then.
    folder: PathBuf,
    to: String,
}

/// The local files whose paths have most of the end of `path` in common.
fn alike(local: &Local, path: &str, cwd: &str) -> Vec<Alike> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some(name) = parts.last() else { return Vec::new() };
    let common = |file: &PathBuf| file.iter().rev().zip(parts.iter().rev()).take_while(|(own, part)| *own == **part).count();
    let most = local.named(name).map(common).max().unwrap_or_default();
    let best = local.named(name).filter(|file| common(file) == most);
    let mapped = best.map(|file| {
        // Where the process works is where the project begins, if the file is
        // below it there and here.
        let below = paths::below(path, cwd).filter(|_| cwd != "/").map(|rest| rest.split('/').count());
        let depth = below.map_or(most, |below| below.min(most));
        let to = parts[..parts.len() - depth].join("/");
        let folder: PathBuf = file.iter().take(file.iter().count() - depth).collect();
        Alike { file: file.clone(), folder, to: format!("/{to}") }
    });
    mapped.collect()
}

fn whole_folder(local: &Local, process: &RemoteProcess, path: &str, one: &Alike) -> Found {
    let why = format!("{} is {path}, which the process runs: {}", one.file.display(), process.argv.join(" "));
    // A script in the root of the container, or beside others in /usr/bin: only
    // the file itself is the project's.
    let shared = ["/", "/bin", "/sbin", "/etc", "/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/tmp"];
    let rule = if shared.contains(&one.to.as_str()) {
        SyncRule { from: one.file.clone(), to: path.to_owned(), ignore: Vec::new() }
    } else {
        SyncRule { from: rule_path(&one.folder), to: one.to.clone(), ignore: ignores(local, &one.folder) }
    };
    let reasons = vec![Reason::new(what_sync(&rule), why)];
    Found { build: None, sync: vec![rule], reasons }
}

fn ignores(local: &Local, folder: &Path) -> Vec<String> {
    let python = local.files.iter().any(|file| file.starts_with(folder) && file.extension().is_some_and(|ending| ending == "py"));
    LEFT_OUT
        .iter()
        .filter(|pattern| if **pattern == LEFT_OUT[0] { folder.as_os_str().is_empty() } else { python || pattern.starts_with(".git") })
        .map(|pattern| (*pattern).to_owned())
        .collect()
}

/// nginx serves a folder that its configuration names.
fn nginx(local: &Local, process: &RemoteProcess) -> Result<Found, DetectError> {
    /// Where nginx's own image has its pages.
    const USUAL: &str = "/usr/share/nginx/html";
    let roots: BTreeSet<String> = local
        .texts
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|ending| ending == "conf"))
        .flat_map(|(_, text)| roots(text))
        .collect();
    let (root, why) = match roots.iter().collect::<Vec<_>>().as_slice() {
        [] => (USUAL.to_owned(), format!("no configuration here names a root, so nginx is taken to serve {USUAL}, as its image does")),
        [one] => ((*one).clone(), format!("the nginx configuration in the project says `root {one}`")),
        several => {
            return Err(DetectError::Ambiguous {
                what: format!("which folder {} serves", process.executable),
                choices: several.iter().map(|root| format!("root {root}")).collect(),
                advice: "say which with `sync` in a devloop.yaml".to_owned(),
            });
        }
    };
    pages(local, &root, "index.html", &why)
}

/// The absolute folders of `root` directives.
fn roots(text: &str) -> Vec<String> {
    let statements = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let roots = statements.split([';', '{', '}']).map(|statement| statement.split_whitespace().collect::<Vec<_>>());
    let roots = roots.filter_map(|words| match words.as_slice() {
        ["root", path] => Some(path.trim_matches(['"', '\''])).filter(|path| path.starts_with('/') && !path.contains('$')),
        _ => None,
    });
    roots.map(|path| paths::join("/", path)).collect()
}

/// The local folder that has the page a server begins with.
fn pages(local: &Local, to: &str, index: &str, why: &str) -> Result<Found, DetectError> {
    let all: Vec<PathBuf> = local.named(index).map(|file| folder_of(file).to_owned()).collect();
    let mut outermost: Vec<PathBuf> =
        all.iter().filter(|folder| !all.iter().any(|other| other != *folder && folder.starts_with(other))).cloned().collect();
    outermost = local.nearest(outermost, |folder| folder.as_path());
    // Several: the one that is called like the container's.
    let alike: Vec<PathBuf> =
        outermost.iter().filter(|folder| folder.file_name().is_some_and(|name| name == paths::name(to))).cloned().collect();
    if outermost.len() > 1 && alike.len() == 1 {
        outermost = alike;
    }
    match outermost.as_slice() {
        [] => {
            Err(DetectError::Nothing { looked_at: vec![why.to_owned(), format!("no folder here has an {index}")], example: String::new() })
        }
        _ if to == "/" => Err(DetectError::Nothing {
            looked_at: vec![why.to_owned(), "the container's root holds more than pages".to_owned()],
            example: String::new(),
        }),
        [folder] => {
            let rule = SyncRule { from: rule_path(folder), to: to.to_owned(), ignore: ignores(local, folder) };
            let why = format!("{why}; the folder {} has an {index}", shown(folder));
            let reasons = vec![Reason::new(what_sync(&rule), why)];
            Ok(Found { build: None, sync: vec![rule], reasons })
        }
        several => Err(DetectError::Ambiguous {
            what: format!("which folder is {to} of the container"),
            choices: several.iter().map(|folder| shown(folder)).collect(),
            advice: "go to the one that is meant and run the command there".to_owned(),
        }),
    }
}

/// What a specification says will run, where no process is known.
pub(super) fn from_spec(command: &[String], args: &[String], working_dir: Option<&str>) -> Option<RemoteProcess> {
    let argv: Vec<String> = command.iter().chain(args).cloned().collect();
    let argv = without_shell(&argv).unwrap_or(argv);
    // Without a command, what runs is the image's own business.
    let program = argv.first().filter(|program| !command.is_empty() && !program.is_empty())?.clone();
    let cwd = working_dir.filter(|folder| folder.starts_with('/')).unwrap_or("/").to_owned();
    let executable = if program.contains('/') { paths::join(&cwd, &program) } else { program };
    Some(RemoteProcess { executable, main_argv: argv.clone(), argv, cwd })
}

/// The words of `sh -c "exec python app.py"`, if they are no more than that.
fn without_shell(argv: &[String]) -> Option<Vec<String>> {
    let [shell, option, script] = argv else { return None };
    let plain = !script.contains(['|', '&', ';', '<', '>', '(', ')', '$', '`', '"', '\'', '\\', '*', '?', '\n', '=']);
    if runtime_of(shell, &[]) != Runtime::Shell || option != "-c" || !plain {
        return None;
    }
    let words = script.split_whitespace().map(str::to_owned);
    Some(words.skip_while(|word| word == "exec").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_says_what_runs() {
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        let shown = |command: &str, args: &[String], cwd: Option<&str>| {
            from_spec(&words(command), args, cwd).map(|process| format!("{} {:?} {}", process.executable, process.argv, process.cwd))
        };
        assert_eq!(shown("python|app.py", &[], Some("/app")).unwrap(), r#"python ["python", "app.py"] /app"#);
        assert_eq!(shown("./web", &words("-v"), Some("/app")).unwrap(), r#"/app/web ["./web", "-v"] /app"#);
        assert_eq!(shown("/bin/sh|-c|exec node server.js", &[], None).unwrap(), r#"node ["node", "server.js"] /"#);
        assert_eq!(shown("/bin/sh|-c|a && b", &[], None).unwrap(), r#"/bin/sh ["/bin/sh", "-c", "a && b"] /"#);
        assert_eq!(from_spec(&[], &words("x"), None), None);
        assert_eq!(shown("", &[], None), None);
    }

    #[test]
    fn the_roots_of_an_nginx_configuration_are_found() {
        let text = "# root /no;\nserver { listen 80; root /srv/www/; location / { root \"/x\"; } location /y { root $z; }\n root html; }";
        assert_eq!(roots(text), ["/srv/www", "/x"]);
    }
}
