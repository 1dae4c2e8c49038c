//! From the stages of a Dockerfile to what of the project is where in the
//! container, as `docker build` puts it there. Pure.

use super::artifact::{self, Program};
use super::choose::Chosen;
use super::dockerfile::{Action, Copy, Origin, Stage};
use super::local::{Entry, Local, inside, rule_path, shown};
use super::{DetectError, Reason, paths};
use crate::project::SyncRule;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What an image holds of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// With the line of the Dockerfile that says so.
    pub(super) files: Vec<(SyncRule, String)>,
    /// Programs by their paths in the container.
    pub(super) programs: Vec<(String, Program)>,
    /// What was not followed.
    pub(super) left_out: Vec<Reason>,
    /// Folders that there are certainly.
    folders: BTreeSet<String>,
}

/// A Dockerfile, with the folder that it is built in.
pub(super) struct Recipe<'a> {
    pub(super) local: &'a Local,
    pub(super) stages: &'a [Stage],
    /// The context, relative to the root.
    pub(super) context: PathBuf,
    pub(super) path: &'a Path,
}

impl<'a> Recipe<'a> {
    /// The context is the Dockerfile's own folder, or the root: where everything
    /// is that is copied.
    pub(super) fn new(local: &'a Local, chosen: &'a Chosen, stages: &'a [Stage]) -> (Self, Reason) {
        let own = chosen.path.parent().unwrap_or(Path::new("")).to_owned();
        let missing = |context: &Path| -> usize {
            let steps = stages.iter().flat_map(|stage| &stage.steps);
            let copies = steps.filter_map(|step| if let Action::Copy(copy) = &step.action { Some(copy) } else { None });
            let sources = copies.filter(|copy| copy.from == Origin::Context && !copy.unpacks).flat_map(|copy| &copy.sources);
            sources.filter(|source| matched(local, context, source).is_empty()).count()
        };
        let (of_own, of_root) = (missing(&own), missing(Path::new("")));
        let root = Path::new("").to_owned();
        let (context, why) = match of_own.cmp(&of_root) {
            std::cmp::Ordering::Less => (own, "what it copies is there, and not in the root"),
            std::cmp::Ordering::Greater => (root, "what it copies is in the root, and not beside it"),
            std::cmp::Ordering::Equal => (own, "it is the Dockerfile's own folder"),
        };
        let reason = Reason::new(format!("context: {}", shown(&context)), why);
        (Self { local, stages, context, path: &chosen.path }, reason)
    }

    /// What a stage holds, with what it is built upon.
    pub(super) fn content(&self, index: usize) -> Result<Content, DetectError> {
        let needed = self.needed(index);
        let mut done: BTreeMap<usize, Content> = BTreeMap::new();
        // A stage needs earlier ones only.
        for stage in needed {
            let content = self.stage_content(stage, &done)?;
            done.insert(stage, content);
        }
        Ok(done.remove(&index).unwrap_or_default())
    }

    /// The stages behind a stage, and itself: others may be anything.
    fn needed(&self, index: usize) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            if needed.insert(index) {
                let stage = &self.stages[index];
                let copied =
                    stage.steps.iter().filter_map(|step| if let Action::Copy(copy) = &step.action { Some(&copy.from) } else { None });
                let origins = copied.chain([&stage.base]);
                open.extend(origins.filter_map(|origin| if let Origin::Stage(earlier) = origin { Some(*earlier) } else { None }));
            }
        }
        needed
    }

    fn stage_content(&self, index: usize, done: &BTreeMap<usize, Content>) -> Result<Content, DetectError> {
        let stage = &self.stages[index];
        let mut content = match &stage.base {
            Origin::Stage(earlier) => done.get(earlier).cloned().unwrap_or_default(),
            Origin::Context | Origin::Image(_) => Content::default(),
        };
        for step in &stage.steps {
            match &step.action {
                Action::Workdir(path) => content.add_folder(path),
                Action::Run { .. } => {}
                Action::Unclear { text, why } => content.leave_out(&self.place(step.line, text), why.clone()),
                Action::Copy(copy) => self.copy(copy, step.line, &mut content, done)?,
            }
        }
        Ok(content)
    }

    fn place(&self, line: usize, text: &str) -> String {
        format!("{}:{line}: {text}", self.path.display())
    }

    fn copy(&self, copy: &Copy, line: usize, content: &mut Content, done: &BTreeMap<usize, Content>) -> Result<(), DetectError> {
        let mut place = self.place(line, &format!("COPY {}", copy.text));
        if copy.unpacks {
            place = self.place(line, &format!("ADD {}", copy.text));
        }
        let mut why = place.clone();
        if let Some(image) = &copy.assumes {
            why.push_str(&format!(" (the working directory of {image} is taken to be {})", paths::parent(&copy.to)));
        }
        for source in &copy.sources {
            match &copy.from {
                Origin::Context => self.copy_local(copy, source, &place, &why, content)?,
                Origin::Stage(index) => {
                    let Some(of_stage) = done.get(index) else { continue };
                    self.copy_stage(copy, (*index, of_stage), source, (&place, &why), content)?;
                }
                Origin::Image(image) => content.leave_out(&place, format!("it comes from the image {image}")),
            }
        }
        if copy.into_folder {
            content.add_folder(&copy.to);
        }
        Ok(())
    }

    fn copy_local(&self, copy: &Copy, source: &str, place: &str, why: &str, content: &mut Content) -> Result<(), DetectError> {
        if copy.unpacks && (source.contains("://") || source.starts_with("git@") || is_archive(source)) {
            content.leave_out(place, "it is fetched or unpacked, not copied");
            return Ok(());
        }
        let found = matched(self.local, &self.context, source);
        // A binary that was built before the image, or will be.
        let by_path = inside(&self.context, source).filter(|path| is_build_output(path) || found.is_empty() || is_plain_file(path, &found));
        if let Some(program) =
            by_path.map(|path| artifact::by_name(self.local, paths::name(&path.to_string_lossy()), place)).transpose()?.flatten()
        {
            content.programs.push((content.destination(copy, paths::name(source)), program));
            return Ok(());
        }
        if found.is_empty() {
            content.leave_out(place, format!("{source} is not in {}", shown(&self.context)));
            return Ok(());
        }
        if !is_pattern(source) {
            for (path, entry) in found {
                content.add(self.local, copy, source, &path, entry, why);
                if path == self.context
                    && let Some((rule, _)) = content.files.last_mut()
                {
                    rule.ignore.extend(self.own_ignore_file());
                }
            }
            return Ok(());
        }
        self.copy_pattern(copy, source, &found, why, content);
        Ok(())
    }

    /// The patterns of a `.dockerignore` that is this Dockerfile's alone; the one
    /// of the folder is known to whoever watches it.
    fn own_ignore_file(&self) -> Vec<String> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".dockerignore");
        let text = self.local.texts.get(Path::new(&name)).map_or("", String::as_str);
        crate::dockerfile::ignore::read_for_git(text)
    }

    /// A pattern of file names in one folder is a rule for the folder that leaves
    /// out all else: so what is made later is followed, too.
    fn copy_pattern(&self, copy: &Copy, source: &str, found: &[(PathBuf, Entry)], why: &str, content: &mut Content) {
        let (front, name) = source.rsplit_once('/').unwrap_or(("", source));
        let folder = inside(&self.context, front).filter(|_| !is_pattern(front) && !copy.keeps_parents);
        let files = found.iter().any(|(_, entry)| *entry == Entry::File);
        if let Some(folder) = folder.as_ref().filter(|_| files) {
            let mut ignore = vec!["/*".to_owned(), format!("!/{name}")];
            // The content of a folder goes elsewhere than the folder.
            let folders = found.iter().filter(|(_, entry)| *entry == Entry::Folder);
            ignore.extend(folders.filter_map(|(path, _)| Some(format!("/{}/", path.file_name()?.to_str()?))));
            ignore.extend(copy.exclude.iter().cloned());
            content.push(SyncRule { from: rule_path(folder), to: copy.to.clone(), ignore }, why);
        }
        for (path, entry) in found {
            if *entry == Entry::Folder || folder.is_none() {
                content.add(self.local, copy, &path.to_string_lossy(), path, *entry, why);
            }
        }
    }

    fn copy_stage(
        &self,
        copy: &Copy,
        stage: (usize, &Content),
        source: &str,
        (place, why): (&str, &str),
        content: &mut Content,
    ) -> Result<(), DetectError> {
        let (index, of_stage) = stage;
        let path = paths::join("/", source);
        if is_pattern(source) {
            content.leave_out(place, "patterns are not followed into another stage");
            return Ok(());
        }
        if let Some(program) = artifact::made(self, index, &path, of_stage)? {
            content.programs.push((content.destination(copy, paths::name(&path)), program));
            return Ok(());
        }
        // A folder may hold programs beside files.
        for (program_path, program) in artifact::made_below(self, index, &path, of_stage)? {
            let rest = paths::below(&program_path, &path).unwrap_or_default();
            content.programs.push((paths::join(&copy.to, rest), program));
        }
        for (program_path, program) in &of_stage.programs {
            if let Some(rest) = paths::below(program_path, &path) {
                let to = if rest.is_empty() { content.destination(copy, paths::name(&path)) } else { paths::join(&copy.to, rest) };
                content.programs.push((to, program.clone()));
            }
        }
        let before = content.files.len() + content.programs.len();
        for (rule, earlier) in &of_stage.files {
            let why = format!("{why}; there {earlier}");
            if let Some(rest) = paths::below(&path, &rule.to) {
                // A part of what was copied, if it is not something made there.
                let part = inside(&without_dot(&rule.from), rest);
                if let Some((part, entry)) = part.and_then(|part| self.local.entry(&part).map(|entry| (part, entry))) {
                    content.add_part(self.local, copy, &path, (&part, entry), rule, &why);
                }
            } else if let Some(rest) = paths::below(&rule.to, &path) {
                content.push(SyncRule { to: paths::join(&copy.to, rest), ..rule.clone() }, &why);
            }
        }
        if content.files.len() + content.programs.len() == before {
            let reason = format!("{path} is made while the image is built; a `build: {{command: …}}` in devloop.yaml can make it here");
            content.leave_out(place, reason);
        }
        Ok(())
    }
}

impl Content {
    fn leave_out(&mut self, place: &str, why: impl Into<String>) {
        self.left_out.push(Reason::new(format!("left out: {place}"), why));
    }

    fn add_folder(&mut self, path: &str) {
        let mut path = path;
        while self.folders.insert(path.to_owned()) && path != "/" {
            path = paths::parent(path);
        }
    }

    fn is_folder(&self, path: &str) -> bool {
        /// What every base image has.
        const USUAL: [&str; 16] = [
            "/",
            "/bin",
            "/etc",
            "/home",
            "/lib",
            "/opt",
            "/root",
            "/sbin",
            "/srv",
            "/tmp",
            "/usr",
            "/usr/bin",
            "/usr/local",
            "/usr/local/bin",
            "/usr/sbin",
            "/var",
        ];
        self.folders.contains(path) || USUAL.contains(&path)
    }

    /// Where a file of this name ends up.
    fn destination(&self, copy: &Copy, name: &str) -> String {
        let into =
            copy.into_folder || copy.sources.len() > 1 || copy.sources.iter().any(|source| is_pattern(source)) || self.is_folder(&copy.to);
        if into { paths::join(&copy.to, name) } else { copy.to.clone() }
    }

    /// Adds a file, or a folder's content, that is copied from the context.
    fn add(&mut self, local: &Local, copy: &Copy, source: &str, path: &Path, entry: Entry, why: &str) {
        let to = match (copy.keeps_parents, entry) {
            (true, _) => paths::join(&copy.to, paths::join("/", source).trim_start_matches('/')),
            (false, Entry::Folder) => copy.to.clone(),
            (false, Entry::File) => self.destination(copy, paths::name(&path.to_string_lossy())),
        };
        let mut ignore = if entry == Entry::Folder { copy.exclude.clone() } else { Vec::new() };
        if entry == Entry::Folder {
            self.add_folder(&to);
            ignore.extend(own_ignores(local, path));
        }
        self.push(SyncRule { from: rule_path(path), to, ignore }, why);
    }

    /// Adds what another stage has copied.
    fn add_part(&mut self, local: &Local, copy: &Copy, source: &str, part: (&Path, Entry), rule: &SyncRule, why: &str) {
        let (path, entry) = part;
        let whole = path == without_dot(&rule.from);
        let to = if entry == Entry::Folder { copy.to.clone() } else { self.destination(copy, paths::name(source)) };
        let mut ignore: Vec<String> = copy.exclude.clone();
        if entry == Entry::Folder {
            self.add_folder(&to);
            // Patterns that begin at the folder mean nothing below it.
            ignore.extend(rule.ignore.iter().filter(|pattern| whole || !pattern.trim_start_matches('!').contains('/')).cloned());
            ignore.extend(own_ignores(local, path));
        }
        ignore.sort();
        ignore.dedup();
        if whole {
            ignore.clone_from(&rule.ignore);
        }
        self.push(SyncRule { from: rule_path(path), to, ignore }, why);
    }

    fn push(&mut self, rule: SyncRule, why: &str) {
        // The root of a container is no place to keep the same as a folder; a
        // file in it is.
        if rule.to == "/" {
            return self.left_out.push(Reason::new(format!("left out: {why}"), "the container's root holds more than the project"));
        }
        if !self.files.iter().any(|(earlier, _)| *earlier == rule) {
            self.files.push((rule, why.to_owned()));
        }
    }
}

/// What has no use in a container though it is in a folder that is copied.
fn own_ignores(local: &Local, folder: &Path) -> Vec<String> {
    // It is about the container, not in it; `init` makes it after the image.
    let is_root = folder.as_os_str().is_empty() && !local.files.contains(Path::new(crate::project::FILE_NAME));
    if is_root { vec![format!("/{}", crate::project::FILE_NAME)] } else { Vec::new() }
}

fn without_dot(path: &Path) -> PathBuf {
    path.components().filter(|component| !matches!(component, std::path::Component::CurDir)).collect()
}

/// What `target/release/web` looks like.
fn is_build_output(path: &Path) -> bool {
    path.iter().any(|part| part == "target") && path.iter().any(|part| part == "release" || part == "debug")
}

/// A file without an ending: a program that was built beside the sources, if a
/// program of the project has this name.
fn is_plain_file(path: &Path, found: &[(PathBuf, Entry)]) -> bool {
    path.extension().is_none() && matches!(found, [(_, Entry::File)])
}

fn is_archive(path: &str) -> bool {
    [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"].iter().any(|ending| path.ends_with(ending))
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// What a source stands for, as the build matches it: part by part.
fn matched(local: &Local, context: &Path, source: &str) -> Vec<(PathBuf, Entry)> {
    let Some(path) = inside(context, source) else { return Vec::new() };
    if !is_pattern(source) {
        return local.entry(&path).map(|entry| (path, entry)).into_iter().collect();
    }
    let mut found: BTreeMap<PathBuf, Entry> = [(context.to_owned(), Entry::Folder)].into();
    for part in path.strip_prefix(context).unwrap_or(&path).iter().filter_map(|part| part.to_str()) {
        let folders = found.iter().filter(|(_, entry)| **entry == Entry::Folder).map(|(folder, _)| folder);
        let next = folders.flat_map(|folder| {
            let children = local.children(folder).into_iter().filter(|(name, _)| fits(part, name));
            children.map(|(name, entry)| (folder.join(name), entry)).collect::<Vec<_>>()
        });
        found = next.collect();
    }
    found.into_iter().collect()
}

/// `*`, `?` and `[a-z]` in one part of a path, in time that is bounded by the
/// product of the lengths: only the last `*` is ever taken back.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut next) = (0, 0);
    let mut star = None;
    while next < name.len() {
        if pattern.get(at) == Some(&'*') {
            at += 1;
            star = Some((at, next));
        } else if let Some(width) = fits_one(&pattern[at..], name[next]) {
            at += width;
            next += 1;
        } else if let Some((after, taken)) = star {
            star = Some((after, taken + 1));
            (at, next) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// How much of the pattern the character fits, if it does.
fn fits_one(pattern: &[char], character: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', class @ ..] => {
            let end = class.iter().skip(1).position(|member| *member == ']')? + 1;
            let (negated, members) = if class[0] == '^' { (true, &class[1..end]) } else { (false, &class[..end]) };
            (in_class(members, character) != negated).then_some(end + 2)
        }
        [first, ..] => (*first == character).then_some(1),
        [] => None,
    }
}

fn in_class(members: &[char], character: char) -> bool {
    match members {
        [low, '-', high, rest @ ..] => (*low..=*high).contains(&character) || in_class(rest, character),
        [member, rest @ ..] => *member == character || in_class(rest, character),
        [] => false,
    }
}

#[cfg(test)]
mod tests;
