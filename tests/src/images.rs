//! Images of the examples, made of this machine's own runtimes: an interpreter
//! or a server, the shared libraries that it is linked with, and the example's
//! files. No registry is asked for anything.
//!
//! Whatever is made lies below `target/images`, where the next run finds what is
//! slow to make: the compiled library of Python.

use crate::program::Program;
use crate::{repository, toolbox};
use devloop_core::image;
use devloop_core::project::{FileMapping, ImageSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name that an example's image has in manifests, once it is loaded.
pub fn reference(example: &str) -> String {
    format!("devloop.local/{example}:test")
}

/// What an image's program is, and which folders belong to it.
struct Runtime {
    /// The program on this machine.
    program: PathBuf,
    /// Where it goes.
    path: String,
    /// Folders below `target/images`, and where they go.
    folders: Vec<(PathBuf, String)>,
}

/// How an example's image is made.
struct Recipe {
    runtime: Runtime,
    /// After the program; all of it when there is an entry point of its own.
    cmd: Vec<&'static str>,
    entrypoint: Option<&'static str>,
    env: Vec<(&'static str, &'static str)>,
    /// Files and folders of the example, and where they go.
    files: Vec<(&'static str, &'static str)>,
}

/// Whether the image of an example is made here.
pub fn has_recipe(example: &str) -> bool {
    ["go-web", "java-web", "node-web", "python-web", "static-site", "shell-loop"].contains(&example)
}

/// Makes the image of an example from a copy of its folder; answers the archive
/// for `kubectl devenv load`.
///
/// # Panics
/// When the runtime isn't installed or the image can't be made.
pub fn archive(example: &str, folder: &Path) -> PathBuf {
    let images = repository().join("target/images");
    std::fs::create_dir_all(&images).unwrap();
    let recipe = recipe(example, folder, &images);
    // What goes into an image lies in one folder.
    let own = images.join("apps").join(example);
    devloop_core::files::remove_all(&own).unwrap();
    let mut files: Vec<FileMapping> = recipe
        .runtime
        .folders
        .iter()
        .map(|(from, to)| FileMapping { from: from.strip_prefix(&images).unwrap().to_owned(), to: to.clone() })
        .collect();
    for (from, to) in &recipe.files {
        let staged = own.join(from);
        copy_tree(&folder.join(from), &staged, &|_| true);
        files.push(FileMapping { from: staged.strip_prefix(&images).unwrap().to_owned(), to: (*to).to_owned() });
    }
    let program = recipe.runtime.path.clone();
    let entrypoint = recipe.entrypoint.map_or_else(|| program.clone(), str::to_owned);
    let spec = ImageSpec {
        name: example.to_owned(),
        entrypoint: vec![entrypoint],
        cmd: recipe.cmd.iter().map(|word| (*word).to_owned()).collect(),
        env: recipe.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>(),
        binary: Some(program),
        files,
        ports: vec![8080],
        ..ImageSpec::default()
    };
    write(&images, &spec, &recipe.runtime.program, reference(example))
}

/// Makes an image of what lies in a folder; answers the archive, which is written there.
pub(crate) fn write(folder: &Path, spec: &ImageSpec, binary: &Path, reference: String) -> PathBuf {
    let ingredients = image::Ingredients::of(folder).with_binary(binary);
    let mut image = image::assemble(&folder.join("cache"), spec, &ingredients).unwrap();
    image.reference = reference;
    let path = folder.join(format!("{}.tar", spec.name));
    image.write_archive(&vec![true; image.layers.len()], std::fs::File::create(&path).unwrap()).unwrap();
    path
}

/// Makes an image of an example's runtime alone, as something to build upon;
/// answers the archive, and the name that the image has in it.
///
/// # Panics
/// When the runtime isn't installed or the image can't be made.
pub fn base(example: &str, folder: &Path) -> (PathBuf, String) {
    let images = repository().join("target/images");
    std::fs::create_dir_all(&images).unwrap();
    let Recipe { runtime, env, .. } = recipe(example, folder, &images);
    let folders = runtime.folders.iter();
    let spec = ImageSpec {
        name: format!("{example}-base"),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        binary: Some(runtime.path.clone()),
        files: folders.map(|(from, to)| FileMapping { from: from.strip_prefix(&images).unwrap().to_owned(), to: to.clone() }).collect(),
        ..ImageSpec::default()
    };
    let ingredients = image::Ingredients::of(&images).with_binary(&runtime.program);
    let mut image = image::assemble(&images.join("cache"), &spec, &ingredients).unwrap();
    image.reference = reference(&spec.name);
    let path = images.join(format!("{example}-base.tar"));
    image.write_archive(&[], std::fs::File::create(&path).unwrap()).unwrap();
    (path, image.reference)
}

fn recipe(example: &str, folder: &Path, images: &Path) -> Recipe {
    let files_of = |files: &[(&'static str, &'static str)]| files.to_vec();
    match example {
        "go-web" => Recipe {
            runtime: go(folder, images),
            cmd: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            files: files_of(&[("static", "/app/static")]),
        },
        "node-web" => Recipe {
            runtime: node(images),
            cmd: vec!["/app/src/server.js"],
            entrypoint: None,
            env: Vec::new(),
            files: files_of(&[("src", "/app/src"), ("public", "/app/public")]),
        },
        "python-web" => Recipe {
            runtime: python(images),
            cmd: vec!["/app/src/app.py"],
            entrypoint: None,
            env: vec![("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONUNBUFFERED", "1")],
            files: files_of(&[("src", "/app/src"), ("static", "/app/static")]),
        },
        "java-web" => Recipe {
            runtime: java(folder, images),
            cmd: vec!["-cp", "/app/classes", "Web"],
            entrypoint: None,
            env: Vec::new(),
            files: files_of(&[("classes", "/app/classes")]),
        },
        "static-site" => Recipe {
            runtime: nginx(images),
            cmd: vec!["-g", "daemon off;"],
            entrypoint: None,
            env: Vec::new(),
            files: files_of(&[("nginx.conf", "/etc/nginx/nginx.conf"), ("site", "/srv")]),
        },
        "shell-loop" => Recipe {
            runtime: shell(images),
            cmd: Vec::new(),
            entrypoint: Some("/app/serve.sh"),
            env: vec![("PATH", "/bin")],
            files: files_of(&[("bin/serve.sh", "/app/serve.sh"), ("www", "/srv/www")]),
        },
        other => panic!("no recipe for the image of {other}"),
    }
}

fn go(folder: &Path, images: &Path) -> Runtime {
    let program = images.join("go-web.bin");
    let build = Program::new("go").args(["build", "-trimpath", "-o"]).args([&program]).args(["./cmd/web"]);
    build.current_dir(folder).env("CGO_ENABLED", "0").run().ok();
    Runtime { program, path: "/app/web".to_owned(), folders: Vec::new() }
}

fn node(images: &Path) -> Runtime {
    let program = installed("node");
    let mut folders = libraries(&images.join("node"), &[&program]);
    // Debian's Node keeps parts of itself there.
    let parts = Path::new("/usr/share/nodejs");
    if parts.is_dir() && !program.starts_with("/usr/local") {
        let staged = images.join("node/parts");
        for part in ["acorn", "acorn-walk", "cjs-module-lexer", "undici"].iter().map(|name| parts.join(name)).filter(|part| part.is_dir()) {
            copy_tree(&part, &staged.join(part.file_name().unwrap()), &|_| true);
        }
        if staged.is_dir() {
            folders.push((staged, parts.display().to_string()));
        }
    }
    Runtime { program, path: "/usr/bin/node".to_owned(), folders }
}

fn python(images: &Path) -> Runtime {
    let python = installed("python3");
    let ask = "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sysconfig.get_path('stdlib'))";
    let answer = Program::new(&python).args(["-c", ask]).run().ok();
    let [program, library] = answer.lines().collect::<Vec<_>>()[..] else { panic!("{answer}") };
    // Its foreign functions, which a debugger takes, need a library of their own.
    let modules = std::fs::read_dir(Path::new(library).join("lib-dynload")).into_iter().flatten().flatten().map(|entry| entry.path());
    let foreign = modules.into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("_ctypes.")));
    let programs: Vec<&Path> = std::iter::once(Path::new(program)).chain(foreign.as_deref()).collect();
    let mut folders = libraries(&images.join("python"), &programs);
    let staged = images.join("python/library");
    // The library is large and seldom changes: it is compiled once.
    let stamp = images.join("python/stamp");
    let wanted = format!("{program} {:?}", std::fs::metadata(program).unwrap().modified().unwrap());
    if std::fs::read_to_string(&stamp).ok().as_deref() != Some(wanted.as_str()) {
        devloop_core::files::remove_all(&staged).unwrap();
        copy_tree(Path::new(library), &staged, &is_of_python);
        let compile = ["-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"];
        Program::new(&python).args(compile).args([&staged]).run().ok();
        std::fs::write(&stamp, &wanted).unwrap();
    }
    folders.push((staged, library.to_owned()));
    Runtime { program: program.into(), path: program.to_owned(), folders }
}

/// A runtime of the modules that the example needs, and the example's classes.
fn java(folder: &Path, images: &Path) -> Runtime {
    let home = installed("javac").parent().unwrap().parent().unwrap().to_owned();
    let compile = ["-g", "-d", "classes", "src/Web.java"];
    Program::new(home.join("bin/javac")).args(compile).current_dir(folder).run().ok();
    let runtime = images.join("java/runtime");
    if !runtime.join("release").is_file() {
        devloop_core::files::remove_all(&runtime).unwrap();
        let link = ["--add-modules", "java.base,jdk.httpserver,jdk.jdwp.agent", "--strip-debug", "--no-man-pages", "--no-header-files"];
        Program::new(home.join("bin/jlink")).args(link).args(["--output".as_ref(), runtime.as_os_str()]).run().ok();
    }
    let mut folders = libraries(&images.join("java"), &[&runtime.join("bin/java"), &runtime.join("lib/server/libjvm.so")]);
    // Those that are part of it.
    folders.retain(|(staged, _)| !staged.starts_with(images.join("java/lib").join(runtime.strip_prefix("/").unwrap())));
    folders.push((runtime.clone(), "/opt/java".to_owned()));
    Runtime { program: runtime.join("bin/java"), path: "/opt/java/bin/java".to_owned(), folders }
}

/// What a server needs of Python's library: neither its tests nor its tools.
fn is_of_python(path: &Path) -> bool {
    const NOT: [&str; 10] =
        ["__pycache__", "dist-packages", "site-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !NOT.contains(&&*name) && !name.starts_with("config-")
}

fn nginx(images: &Path) -> Runtime {
    let program = installed("nginx");
    let folders = libraries(&images.join("nginx"), &[&program]);
    Runtime { program, path: "/usr/sbin/nginx".to_owned(), folders }
}

fn shell(images: &Path) -> Runtime {
    let bin = images.join("shell/bin");
    toolbox::busybox_links(&bin);
    Runtime { program: toolbox::BUSYBOX.into(), path: "/bin/busybox".to_owned(), folders: vec![(bin, "/bin".to_owned())] }
}

/// A program of this machine; `scripts/setup --tests` has seen to it.
fn installed(name: &str) -> PathBuf {
    // The system's own first: what version managers put in front are scripts.
    let folders = ["/usr/bin", "/usr/sbin"].map(PathBuf::from).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = folders.chain(std::env::split_paths(&path)).map(|folder| folder.join(name)).find(|program| program.is_file());
    let found = found.unwrap_or_else(|| panic!("{name} is missing; `scripts/setup --tests` installs it"));
    found.canonicalize().unwrap()
}

/// Copies the shared libraries of programs, and their loader; answers the folders
/// that they are in.
fn libraries(staging: &Path, programs: &[&Path]) -> Vec<(PathBuf, String)> {
    let lib = staging.join("lib");
    devloop_core::files::remove_all(&lib).unwrap();
    let listed: String = programs.iter().map(|program| Program::new("ldd").args([program]).run().ok()).collect();
    let mut folders = BTreeMap::new();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
        let folder = library.parent().unwrap();
        let staged = lib.join(folder.strip_prefix("/").unwrap());
        std::fs::create_dir_all(&staged).unwrap();
        std::fs::copy(library, staged.join(library.file_name().unwrap())).unwrap();
        folders.insert(staged, folder.display().to_string());
    }
    folders.into_iter().collect()
}

/// Copies a file or a folder without what `keep` refuses; links stay links when
/// they lead to a neighbour, and become what they lead to when not.
pub(crate) fn copy_tree(from: &Path, to: &Path, keep: &dyn Fn(&Path) -> bool) {
    if !from.is_dir() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| keep(&entry.path())) {
        let target = to.join(entry.file_name());
        match std::fs::read_link(entry.path()) {
            Ok(link) if link.components().count() == 1 => std::os::unix::fs::symlink(link, target).unwrap(),
            // One that dangles is of no use in the image.
            Ok(_) if !entry.path().exists() => {}
            _ => copy_tree(&entry.path(), &target, keep),
        }
    }
}
