//! The project: of its file, or worked out from manifests and programs.

use crate::git;
use crate::request::Request;
use devloop_core::deploy::{HelmCluster, Loader, Manifest, images};
use devloop_core::detect::{self, FoundDockerfile, Local};
use devloop_core::project::{self, DeploySpec, FILE_NAME, ProjectFile};
use devloop_core::target::Target;
use devloop_core::{CommandError, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A project, and what was worked out about it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) project: ProjectFile,
    /// A line for each service, where there is no project file.
    pub(crate) worked_out: Vec<String>,
}

/// Folders where manifests are looked for.
const FOLDERS: [&str; 3] = ["k8s", "deploy", "manifests"];

/// Reads the project file, or does without.
///
/// # Errors
/// When the file can't be read, or without one nothing can be worked out.
pub(crate) async fn find(request: &Request) -> Result<Found> {
    if let Some(project) = project::load_if_any(request.file.as_deref(), &request.start)? {
        return Ok(Found { project, worked_out: Vec::new() });
    }
    let nothing = |why: String| match project::load(None, &request.start) {
        Err(error) => error.with_hint(format!("nothing could be worked out instead: {why}")),
        Ok(_) => CommandError::usage(why),
    };
    let local = detect::look(&request.start).await?;
    let folders: Vec<PathBuf> =
        FOLDERS.iter().map(PathBuf::from).filter(|folder| local.files.iter().any(|file| file.starts_with(folder))).collect();
    if folders.is_empty() {
        return Err(nothing("there are no manifests in k8s/, deploy/ or manifests/".to_owned()));
    }
    let mut loader = Loader::new(shorten(&local.root, &request.start), HelmCluster::default());
    let deploy = DeploySpec { manifests: folders.clone(), ..DeploySpec::of(Target::Selector(String::new()), None) };
    let manifests = loader.load("", &deploy).await?;
    let (services, worked_out) = work_out(&local, &folders, &manifests).map_err(nothing)?;
    let text = json!({"apiVersion": project::API_VERSION, "services": services}).to_string();
    Ok(Found { project: project::from_text(&local.root, &text)?, worked_out })
}

/// A program that can be built here.
struct Candidate {
    name: String,
    build: Value,
    said: String,
}

/// The services whose programs and manifests go together by the image's name.
/// Pure.
///
/// # Errors
/// Why there is none, or it can't be told.
fn work_out(local: &Local, folders: &[PathBuf], manifests: &[Manifest]) -> Result<(Vec<Value>, Vec<String>), String> {
    let candidates = candidates(local);
    let (mut services, mut lines) = (Vec::new(), Vec::new());
    for candidate in &candidates {
        let Candidate { name, build, said } = candidate;
        let runs = manifests.iter().filter(|manifest| is_workload(manifest)).find_map(|manifest| {
            let image = images(manifest, &[]).into_iter().map(|image| bare(&image)).find(|image| last_part(image) == name)?;
            Some((manifest, image))
        });
        let Some((manifest, image)) = runs else { continue };
        if let Some(other) = candidates.iter().find(|other| other.name == *name && other.said != *said) {
            return Err(format!("{name:?} may be {said} or {}; say which in a {FILE_NAME}", other.said));
        }
        let binary = format!("/app/{name}");
        services.push(json!({
            "name": name,
            "build": build,
            "image": {"name": image, "base": "scratch", "binary": binary},
            "deploy": {"manifests": folders, "target": manifest.describe()},
        }));
        lines.push(format!("{name}: {said} is image {image:?} of {} ({})", manifest.describe(), manifest.place()));
    }
    let dockerfiles = detect::dockerfiles(local);
    for (name, image, manifest, found) in of_dockerfiles(local, &dockerfiles, manifests)? {
        // A program is compiled here rather than in a container.
        if services.iter().any(|service: &Value| service["name"] == name) {
            continue;
        }
        let (file, context) = (&found.file, &found.context);
        services.push(json!({
            "name": name,
            "build": {"dockerfile": {"file": file, "context": context}},
            "image": {"name": image},
            "deploy": {"manifests": folders, "target": manifest.describe()},
        }));
        lines.push(format!(
            "{name}: {} is image {image:?} of {} ({}); its context is {}",
            file.display(),
            manifest.describe(),
            manifest.place(),
            context.display()
        ));
    }
    if services.is_empty() {
        let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
        let programs = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let wanted: Vec<String> =
            manifests.iter().filter(|manifest| is_workload(manifest)).flat_map(|manifest| images(manifest, &[])).collect();
        let wanted: BTreeSet<String> = wanted.into_iter().collect();
        let wanted = if wanted.is_empty() { "none".to_owned() } else { wanted.into_iter().collect::<Vec<_>>().join(", ") };
        return Err(format!("no program here has the name of an image in the manifests (programs: {programs}; images: {wanted})"));
    }
    Ok((services, lines))
}

/// The Dockerfiles that are named after an image that a workload runs; or the only
/// one, where all workloads run the same image. Each with the image's last part,
/// its name and the workload.
///
/// # Errors
/// When two of them may be one image's.
fn of_dockerfiles<'a>(
    local: &Local,
    dockerfiles: &'a [FoundDockerfile],
    manifests: &'a [Manifest],
) -> Result<Vec<(String, String, &'a Manifest, &'a FoundDockerfile)>, String> {
    let workloads = manifests.iter().filter(|manifest| is_workload(manifest));
    let mut images: Vec<(String, &Manifest)> = Vec::new();
    for (image, manifest) in workloads.flat_map(|manifest| images_of(manifest).into_iter().map(move |image| (image, manifest))) {
        if !images.iter().any(|(known, _)| *known == image) {
            images.push((image, manifest));
        }
    }
    if let ([found], [(image, manifest)]) = (dockerfiles, images.as_slice()) {
        return Ok(vec![(last_part(image).to_owned(), image.clone(), *manifest, found)]);
    }
    let mut pairs = Vec::new();
    for (image, manifest) in images {
        let name = last_part(&image).to_owned();
        let mut fitting = dockerfiles.iter().filter(|found| found.belongs_to(local, &name));
        let Some(found) = fitting.next() else { continue };
        if let Some(other) = fitting.next() {
            return Err(format!("{name:?} may be {} or {}; say which in a {FILE_NAME}", found.file.display(), other.file.display()));
        }
        pairs.push((name, image, manifest, found));
    }
    Ok(pairs)
}

fn images_of(manifest: &Manifest) -> Vec<String> {
    images(manifest, &[]).iter().map(|image| bare(image)).collect()
}

fn candidates(local: &Local) -> Vec<Candidate> {
    let cargo = local.cargo.iter().map(|cargo| Candidate {
        name: cargo.binary.clone(),
        build: json!({"cargo": {"package": cargo.package, "binary": cargo.binary, "manifest": cargo.manifest}}),
        said: format!("cargo's binary {} of package {}", cargo.binary, cargo.package),
    });
    let go = local.go.iter().map(|go| Candidate {
        name: go.name().to_owned(),
        build: json!({"go": {"package": go.argument(), "folder": if go.folder.as_os_str().is_empty() { Path::new(".") } else { &go.folder }}}),
        said: format!("Go's package {} of {}", go.argument(), go.module),
    });
    cargo.chain(go).collect()
}

fn is_workload(manifest: &Manifest) -> bool {
    ["Deployment", "StatefulSet", "DaemonSet", "Job", "Pod", "ReplicaSet"].contains(&manifest.kind())
}

/// Without tag and digest.
fn bare(image: &str) -> String {
    let image = image.split('@').next().unwrap_or_default();
    let last = image.rfind('/').map_or(0, |slash| slash + 1);
    let end = image[last..].find(':').map_or(image.len(), |colon| last + colon);
    image[..end].to_owned()
}

fn last_part(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or_default()
}

/// Relative to where the user is, so that messages are short.
pub(crate) fn shorten(root: &Path, start: &Path) -> PathBuf {
    let start = start.canonicalize().unwrap_or_else(|_| start.to_owned());
    root.strip_prefix(&start).map_or_else(|_| root.to_owned(), PathBuf::from)
}

/// What tells a project from all others, wherever it is checked out: its
/// repository and its place in it; without one, its place on this machine.
pub(crate) async fn identity(project: &ProjectFile) -> String {
    let (origin, prefix) = tokio::join!(git::origin(&project.root), git::ask(&project.root, &["rev-parse", "--show-prefix"]));
    let file = project.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match (origin, prefix) {
        (Some(origin), Some(prefix)) => format!("{}//{prefix}{file}", repository(&origin)),
        _ => format!("{}/{file}", project.root.display()),
    }
}

/// `host/path`, however the repository is reached: without scheme, user and
/// `.git`.
fn repository(origin: &str) -> String {
    let (scheme, rest) = match origin.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, origin),
    };
    let slash = rest.find('/').unwrap_or(rest.len());
    let rest = rest[..slash].rfind('@').map_or(rest, |at| &rest[at + 1..]);
    // `host:path`, as scp and git have it.
    let rest = match (scheme, rest.split_once(':')) {
        (None, Some((host, path))) if !host.contains('/') => format!("{host}/{path}"),
        _ => rest.to_owned(),
    };
    rest.trim_end_matches('/').trim_end_matches(".git").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::detect::{CargoBinary, GoMain};

    fn deployment(name: &str, image: &str) -> Manifest {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"template": {"spec": {"containers": [{"image": image}]}}}});
        Manifest { object, path: "k8s/all.yaml".into(), document: 1, line: 3 }
    }

    fn local() -> Local {
        Local {
            cargo: vec![CargoBinary { package: "shop-app".into(), binary: "shop".into(), manifest: None }],
            go: vec![GoMain { module: "example.com/cart".into(), folder: PathBuf::new(), package: "cmd/cart".into() }],
            ..Local::default()
        }
    }

    fn told(local: &Local, manifests: &[Manifest]) -> String {
        match work_out(local, &["k8s".into()], manifests) {
            Ok((services, lines)) => {
                let text = json!({"apiVersion": project::API_VERSION, "services": services}).to_string();
                let folder = tempfile::tempdir().unwrap();
                project::from_text(folder.path(), &text).unwrap();
                lines.join("\n")
            }
            Err(why) => why,
        }
    }

    #[test]
    fn programs_and_images_of_one_name_go_together() {
        let manifests = [deployment("web", "shop:1"), deployment("cart", "example.com/team/cart@sha256:0"), deployment("db", "postgres")];
        insta::assert_snapshot!(told(&local(), &manifests), @r#"
        shop: cargo's binary shop of package shop-app is image "shop" of deployment/web (k8s/all.yaml:3)
        cart: Go's package ./cmd/cart of example.com/cart is image "example.com/team/cart" of deployment/cart (k8s/all.yaml:3)
        "#);
        insta::assert_snapshot!(told(&local(), &manifests[2..]), @"no program here has the name of an image in the manifests (programs: shop, cart; images: postgres)");
        let mut two = local();
        two.cargo.push(CargoBinary { package: "other".into(), ..two.cargo[0].clone() });
        insta::assert_snapshot!(told(&two, &manifests), @r#""shop" may be cargo's binary shop of package shop-app or cargo's binary shop of package other; say which in a devloop.yaml"#);
    }

    #[test]
    fn dockerfiles_are_for_what_no_program_here_is() {
        let mut local = Local { root: "/work/shop".into(), ..Local::default() };
        let add = |local: &mut Local, path: &str| drop(local.texts.insert(path.into(), "FROM scratch\n".into()));
        add(&mut local, "web/Dockerfile");
        let manifests = [deployment("front", "team/other:1"), deployment("web", "team/web:1")];
        insta::assert_snapshot!(told(&local, &manifests[..1]), @r#"other: web/Dockerfile is image "team/other" of deployment/front (k8s/all.yaml:3); its context is web"#);
        add(&mut local, "Dockerfile.cart");
        insta::assert_snapshot!(told(&local, &manifests), @r#"web: web/Dockerfile is image "team/web" of deployment/web (k8s/all.yaml:3); its context is web"#);
        local.go = super::tests::local().go;
        let cart = [deployment("cart", "cart"), deployment("web", "web")];
        insta::assert_snapshot!(told(&local, &cart), @r#"
        cart: Go's package ./cmd/cart of example.com/cart is image "cart" of deployment/cart (k8s/all.yaml:3)
        web: web/Dockerfile is image "web" of deployment/web (k8s/all.yaml:3); its context is web
        "#);
        add(&mut local, "docker/web.Dockerfile");
        insta::assert_snapshot!(told(&local, &cart), @r#""web" may be docker/web.Dockerfile or web/Dockerfile; say which in a devloop.yaml"#);
    }

    #[test]
    fn a_repository_is_the_same_however_it_is_reached() {
        for origin in [
            "git@host.example:a/b.git",
            "https://host.example/a/b",
            "https://me:secret@host.example/a/b.git",
            "ssh://git@host.example/a/b/",
        ] {
            assert_eq!(repository(origin), "host.example/a/b", "{origin}");
        }
        assert_eq!(repository("/srv/git/b.git"), "/srv/git/b");
        assert_eq!(bare("localhost:5000/a:1"), "localhost:5000/a");
    }
}
