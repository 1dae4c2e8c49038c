//! What an interpreter was asked to run, by its arguments. Pure.

use super::paths;
use super::runtime::Runtime;

/// What the arguments name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// A file of the project, by its path in the container: the first of these
    /// that there is.
    Files(Vec<String>),
    /// The pages in a folder of the container.
    Pages(String),
}

/// What the process runs; `None` when its arguments don't tell.
pub(super) fn program(runtime: Runtime, argv: &[String], cwd: &str) -> Option<Program> {
    let arguments: Vec<&str> = argv.iter().skip(1).map(String::as_str).collect();
    match runtime {
        Runtime::Python => python(argv, &arguments, cwd),
        Runtime::Node => node(&arguments, cwd),
        Runtime::Ruby => ruby(argv, &arguments, cwd),
        Runtime::Perl => perl(&arguments, cwd),
        Runtime::Php => php(&arguments, cwd),
        Runtime::Shell => shell(&arguments, cwd),
        Runtime::Other => other(argv, &arguments, cwd),
        Runtime::Native | Runtime::Jvm | Runtime::Nginx => None,
    }
}

/// The first argument that is no option; `valued` are options whose value is the
/// next argument, `ending` those after which there is no file.
fn first_operand<'a>(arguments: &[&'a str], valued: &[&str], ending: &[&str]) -> Option<(&'a str, usize)> {
    let mut index = 0;
    while let Some(argument) = arguments.get(index) {
        if ending.contains(argument) {
            return None;
        }
        if *argument == "--" {
            return arguments.get(index + 1).map(|operand| (*operand, index + 1));
        }
        if !argument.starts_with('-') || *argument == "-" {
            return (*argument != "-").then_some((*argument, index));
        }
        index += if valued.contains(argument) { 2 } else { 1 };
    }
    None
}

fn file(cwd: &str, path: &str) -> Program {
    Program::Files(vec![paths::join(cwd, path)])
}

/// The value of `--name VALUE` or `--name=VALUE`.
fn option<'a>(arguments: &[&'a str], names: &[&str]) -> Option<&'a str> {
    arguments.iter().enumerate().find_map(|(index, argument)| {
        let value = argument.split_once('=').filter(|(name, _)| names.contains(name)).map(|(_, value)| value);
        value.or_else(|| names.contains(argument).then(|| arguments.get(index + 1).copied()).flatten())
    })
}

const PYTHON_SERVERS: [&str; 12] =
    ["gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve", "waitress", "flask", "celery", "fastapi", "uwsgi", "rq"];

fn python(argv: &[String], arguments: &[&str], cwd: &str) -> Option<Program> {
    // A process that gave itself a name: `gunicorn: master [shop.web:app]`.
    if let Some(title) = argv.first().filter(|first| first.starts_with("gunicorn: ")) {
        let inside = title.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        return inside.and_then(|(module, _)| module_files(cwd, module));
    }
    if let Some(position) = module_option(arguments) {
        let name = *arguments.get(position + 1)?;
        let rest = arguments.get(position + 2..).unwrap_or_default();
        return match name {
            "http.server" => Some(Program::Pages(paths::join(cwd, option(rest, &["-d", "--directory"]).unwrap_or(".")))),
            _ if PYTHON_SERVERS.contains(&name) => python_server(name, rest, cwd),
            _ => module_files(cwd, name),
        };
    }
    let (script, index) = first_operand(arguments, &["-X", "-W", "--check-hash-based-pycs"], &["-c"])?;
    let name = paths::name(script);
    if PYTHON_SERVERS.contains(&name) { python_server(name, &arguments[index + 1..], cwd) } else { Some(file(cwd, script)) }
}

/// Where `-m` is, if it comes before a script.
fn module_option(arguments: &[&str]) -> Option<usize> {
    let mut index = 0;
    loop {
        match *arguments.get(index)? {
            "-m" => return Some(index),
            "-X" | "-W" => index += 2,
            "-c" => return None,
            option if option.starts_with('-') => index += 1,
            _ => return None,
        }
    }
}

/// `gunicorn shop.web:app`, `flask --app shop run`, `celery -A shop worker`.
fn python_server(name: &str, arguments: &[&str], cwd: &str) -> Option<Program> {
    let base =
        option(arguments, &["--chdir", "--app-dir", "--working-dir"]).map_or_else(|| cwd.to_owned(), |folder| paths::join(cwd, folder));
    let named = option(arguments, &["--app", "-A", "--module", "-w"]).filter(|_| ["flask", "celery", "uwsgi"].contains(&name));
    let is_module = |argument: &&&str| {
        let module = argument.split(':').next().unwrap_or_default();
        let fits = module.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()));
        fits && !module.starts_with(|first: char| first.is_ascii_digit()) && argument.contains(':')
    };
    if let Some(module) = named.or_else(|| arguments.iter().find(is_module).copied()) {
        let module = module.strip_suffix(".py").unwrap_or(module);
        return module_files(&base, module);
    }
    if let Some(script) = arguments.iter().find(|argument| argument.ends_with(".py")) {
        return Some(file(&base, script));
    }
    match name {
        // What it looks for by itself.
        "flask" => Some(Program::Files(vec![paths::join(&base, "wsgi.py"), paths::join(&base, "app.py")])),
        "fastapi" => Some(Program::Files(["main.py", "app.py", "api.py", "app/main.py"].map(|path| paths::join(&base, path)).into())),
        // A module alone, without the name of an application in it.
        "gunicorn" | "hypercorn" => {
            let (module, _) = first_operand(arguments, &["-b", "--bind", "-w", "--workers", "-k", "-c", "--config", "-t"], &[])?;
            module_files(&base, module)
        }
        _ => None,
    }
}

fn module_files(base: &str, module: &str) -> Option<Program> {
    let module = module.split([':', '(']).next().unwrap_or_default();
    let path = module.replace('.', "/");
    if path.is_empty() || path.contains("//") || path.starts_with('/') || path.contains(char::is_whitespace) {
        return None;
    }
    let files = [format!("{path}.py"), format!("{path}/__main__.py"), format!("{path}/__init__.py")];
    Some(Program::Files(files.map(|file| paths::join(base, &file)).into()))
}

fn node(arguments: &[&str], cwd: &str) -> Option<Program> {
    const VALUED: [&str; 10] =
        ["-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file", "--title", "-c"];
    const NAMES: [&str; 8] = ["run", "start", "exec", "x", "nodemon", "ts-node", "tsx", "node"];
    let (script, index) = first_operand(arguments, &VALUED, &["-e", "--eval", "-p", "--print"])?;
    // A runner that is itself a script: what it runs is its first operand.
    let is_runner = ["nodemon", "ts-node", "tsx"].contains(&paths::name(script).trim_end_matches(".js")) || NAMES.contains(&script);
    if is_runner {
        let (script, _) = first_operand(&arguments[index + 1..], &VALUED, &["-e", "--eval"])?;
        return Some(node_files(cwd, script));
    }
    Some(node_files(cwd, script))
}

/// As node looks for them.
pub(super) fn node_files(cwd: &str, script: &str) -> Program {
    let path = paths::join(cwd, script);
    let prefix = path.trim_end_matches('/');
    let endings = ["", ".js", ".mjs", ".cjs", ".ts", ".json", "/index.js", "/index.mjs", "/index.ts"];
    // Nothing is left of the root itself.
    Program::Files(endings.iter().map(|ending| format!("{prefix}{ending}")).filter(|path| path.starts_with('/')).collect())
}

fn ruby(argv: &[String], arguments: &[&str], cwd: &str) -> Option<Program> {
    let rack = || Some(Program::Files(vec![paths::join(cwd, "config.ru")]));
    if argv.first().is_some_and(|title| ["puma ", "puma: ", "unicorn ", "passenger "].iter().any(|name| title.starts_with(name))) {
        return rack();
    }
    let (script, index) = first_operand(arguments, &["-r", "-I", "-C", "-E"], &["-e"])?;
    let rest = &arguments[index + 1..];
    match paths::name(script) {
        "puma" | "rackup" | "unicorn" | "thin" | "falcon" => {
            rest.iter().find(|argument| argument.ends_with(".ru")).map_or_else(rack, |path| Some(file(cwd, path)))
        }
        "rails" => rack(),
        "bundle" if rest.first() == Some(&"exec") => ruby(&[], rest.get(1..)?, cwd),
        _ => Some(file(cwd, script)),
    }
}

fn perl(arguments: &[&str], cwd: &str) -> Option<Program> {
    let (script, index) = first_operand(arguments, &["-I", "-M"], &["-e", "-E"])?;
    match paths::name(script) {
        "plackup" | "starman" | "hypnotoad" | "morbo" => {
            let app = arguments[index + 1..].iter().find(|argument| argument.ends_with(".psgi") || argument.ends_with(".pl"));
            Some(file(cwd, app.unwrap_or(&"app.psgi")))
        }
        _ => Some(file(cwd, script)),
    }
}

fn php(arguments: &[&str], cwd: &str) -> Option<Program> {
    if arguments.contains(&"-S") {
        return Some(Program::Pages(paths::join(cwd, option(arguments, &["-t", "--docroot"]).unwrap_or("."))));
    }
    match first_operand(arguments, &["-d", "-c", "-y", "-t"], &["-r"]) {
        Some((script, _)) => Some(file(cwd, script)),
        // php-fpm: where it begins to look is where its pages are.
        None => (cwd != "/").then(|| Program::Pages(cwd.to_owned())),
    }
}

fn shell(arguments: &[&str], cwd: &str) -> Option<Program> {
    if arguments.iter().take_while(|argument| argument.starts_with('-')).any(|argument| is_command_option(argument)) {
        return None;
    }
    first_operand(arguments, &["-o", "-O", "--rcfile"], &[]).map(|(script, _)| file(cwd, script))
}

/// `-c`, also among others: `-ec`.
fn is_command_option(argument: &str) -> bool {
    !argument.starts_with("--") && argument.contains('c')
}

fn other(argv: &[String], arguments: &[&str], cwd: &str) -> Option<Program> {
    let named = |name: &str| argv.iter().take(2).any(|argument| paths::name(argument) == name);
    if named("httpd") && (named("busybox") || arguments.contains(&"-f") || arguments.contains(&"-h")) {
        return Some(Program::Pages(paths::join(cwd, option(arguments, &["-h"]).unwrap_or("."))));
    }
    if named("caddy") && arguments.contains(&"file-server") {
        return Some(Program::Pages(paths::join(cwd, option(arguments, &["--root", "-r"]).unwrap_or("."))));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(runtime: Runtime, command: &str) -> String {
        let argv: Vec<String> = command.split('|').map(str::to_owned).collect();
        match program(runtime, &argv, "/app") {
            Some(Program::Files(files)) => files[0].clone(),
            Some(Program::Pages(folder)) => format!("pages of {folder}"),
            None => "?".to_owned(),
        }
    }

    #[test]
    fn arguments_name_the_program() {
        let cases = [
            (Runtime::Python, "python|app.py|--port|80", "/app/app.py"),
            (Runtime::Python, "python3|-u|-X|dev|/srv/x.py", "/srv/x.py"),
            (Runtime::Python, "python|-u|-m|shop.web|x", "/app/shop/web.py"),
            (Runtime::Python, "python|-m|http.server|80", "pages of /app"),
            (Runtime::Python, "python|-m|http.server|--directory|/srv", "pages of /srv"),
            (Runtime::Python, "python|-m|uvicorn|main:app|--reload", "/app/main.py"),
            (Runtime::Python, "python|/usr/local/bin/gunicorn|-b|0.0.0.0:80|shop.web:app", "/app/shop/web.py"),
            (Runtime::Python, "python|/usr/local/bin/gunicorn|--chdir|src|web:create_app()", "/app/src/web.py"),
            (Runtime::Python, "python|/usr/local/bin/gunicorn|-w|4|web", "/app/web.py"),
            (Runtime::Python, "python|/usr/local/bin/uvicorn|--host|0.0.0.0|pkg.main:app|--app-dir=src", "/app/src/pkg/main.py"),
            (Runtime::Python, "python|/usr/local/bin/flask|--app|shop|run", "/app/shop.py"),
            (Runtime::Python, "python|/usr/local/bin/flask|run", "/app/wsgi.py"),
            (Runtime::Python, "python|/usr/local/bin/celery|-A|shop.tasks|worker", "/app/shop/tasks.py"),
            (Runtime::Python, "gunicorn: master [shop.web:app]", "/app/shop/web.py"),
            (Runtime::Python, "python|manage.py|runserver", "/app/manage.py"),
            (Runtime::Python, "python|-c|x", "?"),
            (Runtime::Python, "python|-m", "?"),
            (Runtime::Node, "node|server.js", "/app/server.js"),
            (Runtime::Node, "node|--inspect|-r|dotenv/config|./src/x", "/app/src/x"),
            (Runtime::Node, "node|/app/node_modules/.bin/nodemon|src/index.js", "/app/src/index.js"),
            (Runtime::Node, "bun|run|index.ts", "/app/index.ts"),
            (Runtime::Node, "node|-e|1", "?"),
            (Runtime::Node, "npm start", "?"),
            (Runtime::Ruby, "ruby|-I|lib|app.rb", "/app/app.rb"),
            (Runtime::Ruby, "puma 6.4.2 (tcp://0.0.0.0:3000) [app]", "/app/config.ru"),
            (Runtime::Ruby, "ruby|bin/rails|server", "/app/config.ru"),
            (Runtime::Ruby, "ruby|/usr/bin/bundle|exec|puma|x.ru", "/app/x.ru"),
            (Runtime::Perl, "perl|-w|server.pl", "/app/server.pl"),
            (Runtime::Perl, "perl|/usr/bin/plackup|-p|80|x.psgi", "/app/x.psgi"),
            (Runtime::Php, "php|-S|0:80|-t|public", "pages of /app/public"),
            (Runtime::Php, "php-fpm: master process (/etc/x.conf)", "pages of /app"),
            (Runtime::Php, "php|worker.php", "/app/worker.php"),
            (Runtime::Shell, "sh|-eu|run", "/app/run"),
            (Runtime::Shell, "/bin/sh|/entrypoint.sh|x", "/entrypoint.sh"),
            (Runtime::Shell, "sh|-ec|echo", "?"),
            (Runtime::Other, "busybox|httpd|-f|-h|/www", "pages of /www"),
            (Runtime::Other, "caddy|file-server|--root|/srv", "pages of /srv"),
            (Runtime::Other, "beam.smp", "?"),
        ];
        for (runtime, command, expected) in cases {
            assert_eq!(first(runtime, command), expected, "{command}");
        }
    }

    #[test]
    fn the_root_is_no_program() {
        let argv = ["node", "/"].map(str::to_owned);
        let Some(Program::Files(files)) = program(Runtime::Node, &argv, "/") else { panic!() };
        assert_eq!(files[0], "/index.js");
    }

    proptest! {
        #[test]
        fn any_arguments_are_read(argv in proptest::collection::vec("(-[a-z]|--[a-z]{1,4}(=x)?|[a-z.:/]{0,8}|gunicorn|-m|-c|flask|bundle|exec)", 0..6)) {
            for runtime in [Runtime::Python, Runtime::Node, Runtime::Ruby, Runtime::Perl, Runtime::Php, Runtime::Shell, Runtime::Other] {
                if let Some(Program::Files(files)) = program(runtime, &argv, "/app") {
                    prop_assert!(!files.is_empty() && files.iter().all(|file| file.starts_with('/')));
                }
            }
        }
    }
}
