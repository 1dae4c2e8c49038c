//! From a Dockerfile, and what runs, to what a service is made of. Pure.

use super::artifact::{self, Program};
use super::choose::Chosen;
use super::dockerfile::{self, Stage};
use super::image::{Content, Recipe};
use super::local::Local;
use super::{DetectError, Found, Reason, Remote, RemoteProcess, paths, process, what_binary, what_build, what_sync};

/// What a Dockerfile says.
pub(super) struct Read {
    pub(super) found: Found,
    /// What runs, or would: by the entry point, where no process is known.
    pub(super) process: Option<RemoteProcess>,
}

pub(super) fn read(local: &Local, remote: &Remote, chosen: &Chosen) -> Result<Read, DetectError> {
    let text = local.texts.get(&chosen.path).map_or("", String::as_str);
    let stages = dockerfile::parse(text).map_err(|mistake| DetectError::Dockerfile {
        path: chosen.path.clone(),
        line: mistake.line,
        message: mistake.message,
    })?;
    let (recipe, context) = Recipe::new(local, chosen, &stages);
    let last = stages.len() - 1;
    let mut content = recipe.content(last)?;
    let process = remote.process.clone().or_else(|| specified(remote, &stages[last]));
    let mut found = Found {
        reasons: vec![Reason::new(format!("Dockerfile: {}", chosen.path.display()), chosen.why.clone()), context],
        ..Found::default()
    };
    if let Some((path, program)) = program(&recipe, last, &mut content, process.as_ref())? {
        found.reasons.push(Reason::new(what_build(&program.build), program.why.clone()));
        found.reasons.push(Reason::new(what_binary(&path), format!("{} puts it there", chosen.path.display())));
        found.build = Some((program.build, path));
    }
    for (rule, why) in content.files {
        found.reasons.push(Reason::new(what_sync(&rule), why));
        found.sync.push(rule);
    }
    found.reasons.extend(content.left_out);
    Ok(Read { found, process })
}

/// The pod's command takes the place of the entry point, its arguments that of
/// `CMD`.
fn specified(remote: &Remote, stage: &Stage) -> Option<RemoteProcess> {
    let folder = remote.working_dir.as_deref().or(stage.workdir());
    let arguments = if remote.args.is_empty() { &stage.cmd } else { &remote.args };
    match (remote.command.is_empty(), stage.entrypoint.is_empty()) {
        (false, _) => process::from_spec(&remote.command, &remote.args, folder),
        (true, false) => process::from_spec(&stage.entrypoint, arguments, folder),
        (true, true) => process::from_spec(arguments, &[], folder),
    }
}

/// The program of the image that runs. The others are left out.
fn program(
    recipe: &Recipe<'_>,
    stage: usize,
    content: &mut Content,
    process: Option<&RemoteProcess>,
) -> Result<Option<(String, Program)>, DetectError> {
    let executable = process.map(|process| process.executable.trim_end_matches(" (deleted)"));
    let mut programs = std::mem::take(&mut content.programs);
    // An image that is built in one stage has its program where that makes it.
    if let Some(executable) = executable.filter(|path| path.starts_with('/'))
        && let Some(program) = artifact::made(recipe, stage, executable, content)?
    {
        programs.push((executable.to_owned(), program));
    }
    programs.reverse();
    let Some(executable) = executable else {
        return match programs.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            several => Err(DetectError::Ambiguous {
                what: "which program of the image runs".to_owned(),
                choices: several.iter().map(|(path, _)| path.clone()).collect(),
                advice: "say which with `build` and `binary` in a devloop.yaml, or begin while a container runs".to_owned(),
            }),
        };
    };
    let runs = |path: &String| {
        let is_name = !executable.contains('/') && paths::name(path) == executable;
        // A destination that turned out to be a folder of the base image.
        path == executable || is_name || paths::join(path, paths::name(executable)) == executable
    };
    let position = programs.iter().position(|(path, _)| runs(path));
    let chosen = position.map(|position| programs.remove(position));
    for (path, program) in programs.into_iter().filter(|(path, _)| !runs(path)) {
        let why = format!("the container runs {executable}, not {path} ({})", program.why);
        content.left_out.push(Reason::new(format!("left out: {}", what_build(&program.build)), why));
    }
    Ok(chosen.map(|(path, program)| if executable.starts_with('/') { (executable.to_owned(), program) } else { (path, program) }))
}
