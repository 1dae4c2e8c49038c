//! The Dockerfiles of a project, for those who build images of them. Pure.

use super::choose::{self, Chosen};
use super::dockerfile;
use super::image::Recipe;
use super::local::Local;
use std::path::{Path, PathBuf};

/// A Dockerfile and the folder that it is built in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDockerfile {
    /// Relative to the root.
    pub file: PathBuf,
    /// Relative to the root; `.` for the root itself.
    pub context: PathBuf,
}

impl FoundDockerfile {
    /// Whether it is named after an image, or lies in a folder that is.
    pub fn belongs_to(&self, local: &Local, image: &str) -> bool {
        choose::belongs_to(local, &self.file, image)
    }
}

/// All of them, in the order of their names.
pub fn dockerfiles(local: &Local) -> Vec<FoundDockerfile> {
    let paths = local.texts.iter().filter(|(path, _)| choose::is_dockerfile(path));
    let found = paths.map(|(path, text)| {
        // One with a mistake is built nevertheless: the builder says what is wrong.
        let stages = dockerfile::parse(text).unwrap_or_default();
        let chosen = Chosen { path: path.clone(), why: String::new() };
        let (recipe, _) = Recipe::new(local, &chosen, &stages);
        let context = if recipe.context.as_os_str().is_empty() { Path::new(".").to_owned() } else { recipe.context };
        FoundDockerfile { file: path.clone(), context }
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_context_and_a_name() {
        let local = Local::of(&[
            ("web/Dockerfile", "FROM scratch\nCOPY app.js /\n"),
            ("web/app.js", ""),
            ("docker/api.Dockerfile", "FROM scratch\nCOPY api/main.py /\n"),
            ("api/main.py", ""),
            ("bad/Dockerfile", "FRMO x\n"),
        ]);
        let found = dockerfiles(&local);
        let shown: Vec<String> = found.iter().map(|found| format!("{} in {}", found.file.display(), found.context.display())).collect();
        assert_eq!(shown, ["bad/Dockerfile in bad", "docker/api.Dockerfile in .", "web/Dockerfile in web"]);
        assert!(found[1].belongs_to(&local, "api") && found[2].belongs_to(&local, "web") && !found[2].belongs_to(&local, "api"));
    }
}
