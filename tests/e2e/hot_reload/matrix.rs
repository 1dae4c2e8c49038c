//! Each kind of image, by each way: what is saved is served, what happens to pods
//! is followed, and in the end nothing is left.

use super::apps::{APPS, App, Compiled, LAST_WORDS};
use super::stage::{SOON, Stage, Way, with};
use crate::Named;
use crate::clusters::Cluster;
use devloop_tests::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A case: its name, whether only compiled examples have it, and what it does.
type Step = (&'static str, bool, fn(&mut Stage));

/// In the order in which they run, on one deployment and mostly in one session.
const STEPS: [Step; 11] = [
    ("saved_files_are_served", false, save),
    ("deleted_files_are_not", false, delete),
    ("renamed_files_are_served_by_their_new_names", false, rename),
    ("new_code_runs_in_the_same_container", false, new_code),
    ("code_that_does_not_compile_keeps_the_old", true, build_error),
    ("code_that_crashes_is_rolled_back", true, crash),
    ("replaced_pod_is_up_to_date_when_it_is_reported", false, pod_kill),
    ("rollout_by_someone_else_is_followed", false, rollout),
    ("restarted_container_is_brought_up_to_date", false, container_restart),
    ("ctrl_c_undoes_all", false, ctrl_c),
    ("killed_session_is_undone", false, killed),
];

/// Last, since it leaves the pod changed.
const LAST: Step = ("keep_leaves_all", false, keep);

/// The matrix's part that belongs to a cluster.
pub(crate) fn cases(cluster: Cluster, ways: &'static [Way]) -> Vec<Named> {
    let mut cases = Vec::new();
    for app in &APPS {
        for way in ways.iter().copied() {
            for (name, only_compiled, step) in STEPS.into_iter().chain([LAST]) {
                if only_compiled && app.compiled.is_none() {
                    continue;
                }
                let name = format!("hot_reload::{}_by_{}::{name}", app.id, way.name());
                cases.push(Named::new(name, move || with(cluster, app, way, step)));
            }
        }
    }
    cases
}

fn save(stage: &mut Stage) {
    stage.session();
    let (index, new) = (stage.page("index.html"), stage.page("new/deep/page.txt"));
    stage.example.edit(&index, "</h1>", ", edited</h1>");
    let event = stage.session().wait_for("synced");
    assert!(event["phasesMs"]["deliver"].as_f64().is_some(), "{event}");
    stage.serves("/", ", edited</h1>");
    std::fs::create_dir_all(stage.example.folder.join(&new).parent().unwrap()).unwrap();
    stage.example.write(&new, "a page in a folder that is new");
    stage.serves("/new/deep/page.txt", "a page in a folder that is new");
    stage.converges();
}

fn delete(stage: &mut Stage) {
    stage.session();
    let spare = stage.page(stage.app.spare);
    std::fs::remove_file(stage.example.folder.join(spare)).unwrap();
    stage.lacks(&format!("/{}", stage.app.spare));
    stage.converges();
}

fn rename(stage: &mut Stage) {
    stage.session();
    let folder = stage.example.folder.join(stage.app.pages);
    stage.example.write(&stage.page("first.txt"), "a page with two names");
    stage.serves("/first.txt", "a page with two names");
    std::fs::rename(folder.join("first.txt"), folder.join("second.txt")).unwrap();
    stage.serves("/second.txt", "a page with two names");
    stage.lacks("/first.txt");
    // A folder, with all that is in it.
    std::fs::create_dir_all(folder.join("old")).unwrap();
    for number in 0..20 {
        std::fs::write(folder.join(format!("old/{number}.txt")), format!("page {number}")).unwrap();
    }
    stage.serves("/old/19.txt", "page 19");
    std::fs::rename(folder.join("old"), folder.join("young")).unwrap();
    stage.serves("/young/19.txt", "page 19");
    stage.lacks("/old/0.txt");
    stage.converges();
}

/// Makes the code say something else, and waits until that is served.
fn greet(stage: &mut Stage, from: &str, to: &str) -> Value {
    stage.session().skip();
    let (code, version, renewed) = (stage.app.code, stage.app.version, stage.app.renewed);
    stage.example.edit(code, from, to);
    let event = stage.session().wait_for(renewed);
    stage.serves(version, to);
    event
}

/// What the code says in this session, once it was changed.
fn greeting(app: &App) -> String {
    format!("{}, at last", app.greeting)
}

fn new_code(stage: &mut Stage) {
    stage.session();
    let before = stage.example.pod();
    let app = stage.app;
    let mut from = app.greeting.to_owned();
    for (round, end) in ["once more", "and again", "at last"].into_iter().enumerate() {
        let to = format!("{}, {end}", app.greeting);
        let event = greet(stage, &from, &to);
        // The first save may get into what the session builds at its start, which
        // goes back to no save.
        assert!(round == 0 || event["phasesMs"]["total"].as_f64().is_some(), "{event}");
        from = to;
    }
    // The same pod, the same container, not restarted.
    assert_eq!(stage.example.pod(), before);
    stage.converges();
}

fn compiled(stage: &Stage) -> &'static Compiled {
    stage.app.compiled.as_ref().expect("only compiled ones have this case")
}

/// Says something else than the image does, in whatever session.
fn renew(stage: &mut Stage) {
    let (app, wanted) = (stage.app, greeting(stage.app));
    stage.session();
    if !std::fs::read_to_string(stage.example.folder.join(app.code)).unwrap().contains(&wanted) {
        greet(stage, app.greeting, &wanted);
    }
}

fn build_error(stage: &mut Stage) {
    let (app, wanted, Compiled { broken: (good, bad), complaint, .. }) = (stage.app, greeting(stage.app), compiled(stage));
    renew(stage);
    let before = stage.example.pod();
    stage.example.edit(app.code, good, bad);
    let event = stage.session().wait_for("build-failed");
    assert!(event["message"].as_str().unwrap_or_default().contains(complaint), "{event}");
    stage.serves(app.version, &wanted);
    stage.example.edit(app.code, bad, good);
    // It is the code that runs already.
    stage.session().wait_for("unchanged");
    assert_eq!(stage.example.pod(), before);
}

fn crash(stage: &mut Stage) {
    let (app, wanted, Compiled { crash: (file, good, bad), .. }) = (stage.app, greeting(stage.app), compiled(stage));
    renew(stage);
    let before = stage.example.pod();
    stage.session().skip();
    stage.example.edit(file, good, bad);
    let is_told = |event: &Value| event["event"] == "error" && event["message"].as_str().unwrap_or_default().contains(LAST_WORDS);
    stage.session().wait_until(&format!("error with {LAST_WORDS:?}"), is_told);
    stage.serves(app.version, &wanted);
    stage.example.edit(file, bad, good);
    greet(stage, &wanted, &format!("{wanted}, after all"));
    greet(stage, &format!("{wanted}, after all"), &wanted);
    assert_eq!(stage.example.pod().name, before.name);
}

/// Waits until a pod that is not this one is reported as in sync, and looks at
/// it then and there.
fn successor(stage: &mut Stage, old: &str) {
    let (app, wanted) = (stage.app, greeting(stage.app));
    let is_another = |event: &Value| event["event"] == "pod-added" && event["pods"][0] != old;
    let event = stage.session().wait_until("another pod in sync", is_another);
    let name = event["pods"][0].as_str().unwrap_or_default().to_owned();
    let pod = stage.example.pods().into_iter().find(|pod| pod.name == name).unwrap_or_else(|| panic!("{name} is gone"));
    let differences = stage.local_pages().files().differences(&stage.pages(&pod).files());
    assert!(differences.is_empty(), "reported as in sync, but local / pod: {differences:#?}");
    let local = std::fs::read(stage.example.folder.join(app.code)).unwrap();
    assert!(stage.code(&pod).is_none_or(|code| code == local), "reported as in sync, with other code");
    stage.pod_serves(&pod, app.version, &wanted);
    // From now on it is like any other.
    let page = stage.page("later.txt");
    stage.example.write(&page, format!("after {old}"));
    stage.pod_serves(&pod, "/later.txt", &format!("after {old}"));
}

fn pod_kill(stage: &mut Stage) {
    renew(stage);
    let old = stage.example.pod();
    stage.session().skip();
    stage.example.kubectl(&["delete", "pod", &old.name, "--wait=false"]).run().ok();
    successor(stage, &old.name);
}

fn rollout(stage: &mut Stage) {
    renew(stage);
    let old = stage.example.pod();
    stage.session().skip();
    stage.example.kubectl(&["rollout", "restart", &format!("deployment/{}", stage.app.name)]).run().ok();
    successor(stage, &old.name);
    stage.example.rolled_out();
}

fn container_restart(stage: &mut Stage) {
    renew(stage);
    let (before, app, wanted) = (stage.example.pod(), stage.app, greeting(stage.app));
    kill(Pid::from_raw(devloop_tests::container::process(&before.container).unwrap()), Signal::SIGKILL).unwrap();
    eventually("the container is restarted", SOON, || {
        let pod = stage.example.pod();
        if pod.restarts > before.restarts && pod.container != before.container { Ok(()) } else { Err(format!("{pod:?}")) }
    });
    stage.serves(app.version, &wanted);
    stage.converges();
    assert_eq!(stage.example.pod().name, before.name);
    if stage.way == Way::Api && stage.app.has_volume {
        // The agent ended with the container, and what it had on record about
        // the volume: only a new pod has the volume as it was.
        pod_kill(stage);
    }
}

/// Changes, deletes and adds files, and the code.
fn change_all(stage: &mut Stage, session: &mut devloop_tests::session::Session) {
    let (app, wanted) = (stage.app, greeting(stage.app));
    stage.example.edit(&stage.page("index.html"), "</h1>", ", changed</h1>");
    stage.example.write(&stage.page("added/one.txt"), "one");
    std::fs::remove_file(stage.example.folder.join(stage.page(app.spare))).unwrap();
    stage.serves("/", ", changed</h1>");
    stage.serves("/added/one.txt", "one");
    stage.lacks(&format!("/{}", app.spare));
    stage.example.edit(app.code, app.greeting, &wanted);
    session.wait_for(app.renewed);
    stage.serves(app.version, &wanted);
    stage.converges();
}

fn ctrl_c(stage: &mut Stage) {
    renew(stage);
    stage.example.edit(&stage.page("index.html"), "</h1>", ", before the end</h1>");
    stage.serves("/", ", before the end</h1>");
    let status = stage.take_session().end(Signal::SIGINT);
    assert!(status.success(), "{status}");
    stage.is_as_before();
    stage.example.restore();
}

fn killed(stage: &mut Stage) {
    stage.example.restore();
    let pod = stage.example.pod();
    // This time to the nanosecond.
    let before = stage.pages(&pod);
    let mut session = stage.own_session(&[]);
    std::fs::create_dir_all(stage.example.folder.join(stage.page("added"))).unwrap();
    change_all(stage, &mut session);
    session.end(Signal::SIGKILL);
    eventually("what a killed session did is undone", SOON, || {
        let differences = before.differences(&stage.pages(&pod));
        if differences.is_empty() { Ok(()) } else { Err(format!("before / now: {differences:#?}")) }
    });
    stage.serves(stage.app.version, stage.app.greeting);
    stage.is_as_before();
    assert_eq!(stage.example.pod(), pod);
    stage.example.restore();
}

fn keep(stage: &mut Stage) {
    stage.example.restore();
    let pod = stage.example.pod();
    let mut session = stage.own_session(&["--keep"]);
    std::fs::create_dir_all(stage.example.folder.join(stage.page("added"))).unwrap();
    change_all(stage, &mut session);
    let status = session.end(Signal::SIGINT);
    assert!(status.success(), "{status}");
    // The end of the agent is when it would undo.
    std::thread::sleep(std::time::Duration::from_millis(500));
    stage.converges();
    let (version, wanted) = (stage.app.version, greeting(stage.app));
    stage.serves(version, &wanted);
    assert_eq!(stage.example.pod(), pod);
}
