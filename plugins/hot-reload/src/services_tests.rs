//! Which services are meant.

use super::*;
use devloop_core::ui::render_error;

pub(crate) fn project() -> (tempfile::TempDir, ProjectFile) {
    let folder = tempfile::tempdir().unwrap();
    let service = |name: &str| {
        format!(
            "  - name: {name}\n    build: {{cargo: {{package: {name}, binary: {name}}}}}\n    image: {{name: {name}, base: scratch, binary: /app/{name}}}\n    deploy: {{manifests: [k8s], target: deploy/{name}}}\n"
        )
    };
    std::fs::create_dir(folder.path().join("k8s")).unwrap();
    let text = format!("apiVersion: devloop/v1\nservices:\n{}{}", service("shop"), service("api"));
    std::fs::write(folder.path().join("devloop.yaml"), text).unwrap();
    let project = project::load(None, folder.path()).unwrap();
    (folder, project)
}

#[test]
fn services_are_chosen_by_name_or_target() {
    let (_folder, project) = project();
    let names = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        select(&project, &wanted).map(|services| services.iter().map(|service| service.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(&[]).unwrap(), ["shop", "api"]);
    assert_eq!(names(&["deployment/api", "api"]).unwrap(), ["api"]);
    assert_eq!(names(&["nothing"]).unwrap_err().status().code(), 2);
    let errors = [names(&["deploy/nothing"]).unwrap_err(), names(&["cron/x"]).unwrap_err()].map(|error| render_error(&error));
    let text = errors.join("\n\n").replace(&project.path.display().to_string(), "devloop.yaml");
    insta::assert_snapshot!(text, @r#"
    Error: no service in devloop.yaml is deployed as deployment/nothing
    Hint: targets in it: deployment/shop, deployment/api

    Error: a target can't be read
    Caused by: unknown kind "cron" in target; known: pod, deploy, sts, ds, rs, job, svc
    "#);
}
