use super::examine;
use crate::doctor::facts::{
    Api, Capabilities, Cluster, Disk, Docker, Engine, Environment, Facts, Inotify, KubeContext, Kubeconfig, Machine, Memory, Node,
    Programs, Proxy, Reach, Registry, Space,
};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::render::render;
use devloop_core::docker::Survey;
use devloop_core::environment::Phase;
use proptest::prelude::*;
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;
const ALL: u64 = (1 << 41) - 1;

fn space(free: u64) -> Space {
    Space { free, total: 100 * GIB, free_files: 1_000_000, total_files: 2_000_000 }
}

fn engine() -> Engine {
    Engine {
        version: "27.3.1".into(),
        endpoint: "unix:///var/run/docker.sock".into(),
        survey: Ok(Survey {
            root: "/var/lib/docker".into(),
            cgroup_version: Some(2),
            memory: Some(16 * GIB),
            default_runtime: "runc".into(),
            ..Survey::default()
        }),
        bounding: Ok(ALL),
        node_images: Ok(vec!["kindest/node:v1.34.0".into()]),
        can_pull: None,
        clusters: Ok(BTreeMap::from([("dev".into(), true)])),
        clock_ahead: Some(0),
    }
}

fn context(name: &str, server: &str) -> KubeContext {
    KubeContext { name: name.into(), cluster: name.into(), server: Some(server.into()), user: Some(name.into()), user_is_there: true }
}

fn environment(provider: &str) -> Environment {
    let certs = BTreeMap::from([("localhost:5001".to_owned(), vec![("http://kind-registry:5000".to_owned(), Reach::Answers)])]);
    let registry = Registry { host: "localhost:5001".into(), from_nodes: "localhost:5001".into(), here: Reach::Answers };
    Environment {
        name: "dev".into(),
        provider: provider.into(),
        context: "kind-dev".into(),
        phase: Ok(Phase::Ready),
        cluster: Some(Cluster {
            api: Ok(Api { ready: true, clock_ahead: Some(0) }),
            registry: Ok(Some(registry)),
            nodes: Ok(vec![Node {
                name: "dev-control-plane".into(),
                certs: Ok(certs),
                direct: Some(Reach::Fails("connection refused".into())),
            }]),
        }),
    }
}

/// A machine on which all is well.
fn healthy() -> Facts {
    Facts {
        machine: Ok(Machine {
            supported: true,
            root: true,
            capabilities: Ok(Capabilities { effective: ALL, bounding: ALL }),
            cgroup_version: Ok(2),
            inotify: Ok(Inotify { watches: 524_288, instances: 512, used: 20 }),
            memory: Ok(Memory { available: 8 * GIB, total: 16 * GIB }),
        }),
        programs: Ok(Programs { node_built: true, go: Some(Ok("1.25.3".into())), kind: true, kubectl: true, ..Programs::default() }),
        disks: Ok(vec![
            Disk { what: "state", path: "/home/dev/.local/state/devloop".into(), space: Ok(space(50 * GIB)) },
            Disk { what: "Docker", path: "/var/lib/docker".into(), space: Ok(space(50 * GIB)) },
        ]),
        docker: Ok(Docker::Answers(Box::new(engine()))),
        proxy: Proxy::default(),
        kubeconfig: Ok(Kubeconfig { current: Some("kind-dev".into()), contexts: vec![context("kind-dev", "https://127.0.0.1:41234")] }),
        environments: Ok(vec![environment("kind")]),
        embedded_version: "v1.34.4".into(),
    }
}

/// The findings of a check that are no good news.
fn problems(facts: &Facts) -> Vec<Finding> {
    examine(facts).into_iter().filter(|finding| finding.severity != Severity::Ok).collect()
}

/// Id and severity of the problems after a change to a healthy machine.
fn after(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity)> {
    let mut facts = healthy();
    change(&mut facts);
    problems(&facts).into_iter().map(|finding| (finding.id, finding.severity)).collect()
}

fn with_machine(change: impl FnOnce(&mut Machine)) -> Vec<(&'static str, Severity)> {
    after(|facts| change(facts.machine.as_mut().unwrap()))
}

fn with_engine(change: impl FnOnce(&mut Engine)) -> Vec<(&'static str, Severity)> {
    after(|facts| {
        let mut changed = engine();
        change(&mut changed);
        facts.docker = Ok(Docker::Answers(Box::new(changed)));
    })
}

fn with_survey(change: impl FnOnce(&mut Survey)) -> Vec<(&'static str, Severity)> {
    with_engine(|engine| change(engine.survey.as_mut().unwrap()))
}

fn with_cluster(change: impl FnOnce(&mut Cluster)) -> Vec<(&'static str, Severity)> {
    after(|facts| change(facts.environments.as_mut().unwrap()[0].cluster.as_mut().unwrap()))
}

use Severity::{Blocks, Unknown, Warning};

#[test]
fn a_healthy_machine_in_words() {
    assert_eq!(problems(&healthy()), []);
    insta::assert_snapshot!(render(&examine(&healthy())));
}

#[test]
fn the_machine() {
    assert_eq!(with_machine(|machine| machine.root = false), [("privilege", Warning)]);
    assert_eq!(with_machine(|machine| machine.supported = false), [("privilege", Warning)]);
    assert_eq!(with_machine(|machine| machine.memory = Ok(Memory { available: GIB, total: 4 * GIB })), [("memory", Warning)]);
    assert_eq!(with_machine(|machine| machine.memory = Ok(Memory { available: 0, total: 4 * GIB })), [("memory", Blocks)]);
    assert_eq!(with_machine(|machine| machine.inotify = Ok(Inotify { watches: 8192, instances: 512, used: 0 })), [("inotify", Warning)]);
    assert_eq!(
        with_machine(|machine| machine.inotify = Ok(Inotify { watches: 524_288, instances: 128, used: 120 })),
        [("inotify", Blocks)]
    );
    assert_eq!(with_machine(|machine| machine.inotify = Err("gone".into())), [("inotify", Unknown)]);
    let without = |number: u32| {
        with_machine(move |machine| machine.capabilities = Ok(Capabilities { effective: ALL, bounding: ALL & !(1 << number) }))
    };
    assert_eq!(without(24), []);
    assert_eq!(without(21), [("capabilities", Warning)]);
    assert_eq!(without(19), [("capabilities", Warning)]);
    let old_cgroups = |version: &str| {
        after(|facts| {
            facts.embedded_version = version.into();
            facts.machine.as_mut().unwrap().cgroup_version = Ok(1);
        })
    };
    assert_eq!(old_cgroups("v1.34.4"), []);
    assert_eq!(old_cgroups("v1.35.0"), [("cgroups", Warning)]);
    assert_eq!(old_cgroups("v2.0"), [("cgroups", Warning)]);
    let disk = |space: Space| after(|facts| facts.disks.as_mut().unwrap()[0].space = Ok(space));
    assert_eq!(disk(space(GIB / 2)), [("disk", Warning)]);
    assert_eq!(disk(space(2 * GIB)), [("disk", Warning)]);
    assert_eq!(disk(Space { free_files: 10, ..space(50 * GIB) }), [("disk", Warning)]);
    let full = after(|facts| facts.disks.as_mut().unwrap().iter_mut().for_each(|disk| disk.space = Ok(space(0))));
    assert_eq!(full, [("disk", Blocks), ("disk", Blocks)]);
}

#[test]
fn docker() {
    for docker in [Docker::Absent("x".into()), Docker::Denied("x".into()), Docker::TooOld("x".into()), Docker::Misconfigured("x".into())] {
        assert_eq!(after(|facts| facts.docker = Ok(docker)), [("docker", Warning)]);
    }
    assert_eq!(after(|facts| facts.docker = Err("no answer within 1.0 s".into())), [("docker", Warning)]);
    let neither = after(|facts| {
        facts.docker = Ok(Docker::Absent("x".into()));
        facts.machine.as_mut().unwrap().root = false;
    });
    assert_eq!(neither, [("privilege", Blocks), ("docker", Blocks)]);
    assert_eq!(with_survey(|survey| survey.containerd_image_store = true), [("image-store", Warning)]);
    assert_eq!(with_survey(|survey| survey.memory = Some(GIB)), [("docker-memory", Warning)]);
    assert_eq!(with_survey(|survey| survey.cgroup_version = None), [("docker-cgroups", Unknown)]);
    assert_eq!(with_survey(|survey| survey.cgroup_version = Some(1)), []);
    assert_eq!(with_survey(|survey| (survey.cgroup_version, survey.rootless) = (Some(1), true)), [("docker-cgroups", Warning)]);
    let newer = with_engine(|engine| {
        engine.node_images = Ok(vec!["kindest/node:v1.35.0".into()]);
        engine.survey.as_mut().unwrap().cgroup_version = Some(1);
    });
    assert_eq!(newer, [("docker-cgroups", Warning)]);
    assert_eq!(with_engine(|engine| engine.bounding = Ok(ALL & !(1 << 24))), [("docker-capabilities", Warning)]);
    let wrapped = with_engine(|engine| {
        engine.bounding = Ok(ALL & !(1 << 24));
        engine.survey.as_mut().unwrap().default_runtime = "confined".into();
    });
    assert_eq!(wrapped, []);
    let images = |can_pull| with_engine(|engine| (engine.node_images, engine.can_pull) = (Ok(Vec::new()), can_pull));
    assert_eq!(images(Some(Ok(()))), []);
    assert_eq!(images(Some(Err("no such host".into()))), [("node-image", Warning)]);
    assert_eq!(images(None), [("node-image", Unknown)]);
    assert_eq!(with_engine(|engine| engine.clock_ahead = Some(-3600)), [("clock", Warning)]);
    assert_eq!(with_engine(|engine| engine.clock_ahead = Some(i64::MIN)), [("clock", Warning)]);
}

#[test]
fn programs() {
    let with = |programs: Programs| after(|facts| facts.programs = Ok(programs));
    let all = || Programs { node_built: true, go: None, kind: true, kubectl: true, ..Programs::default() };
    assert_eq!(with(all()), []);
    assert_eq!(with(Programs { missing_packages: vec!["runc".into()], ..all() }), [("node-packages", Warning)]);
    assert_eq!(with(Programs { node_built: false, ..all() }), [("node-programs", Warning)]);
    assert_eq!(with(Programs { node_built: false, go: Some(Ok("1.21".into())), ..all() }), [("node-programs", Warning)]);
    assert_eq!(with(Programs { node_built: false, go: Some(Err("x".into())), ..all() }), [("node-programs", Unknown)]);
    assert_eq!(with(Programs { kind: false, ..all() }), [("kind", Warning)]);
    assert_eq!(with(Programs { kind: false, go: Some(Ok("1.25".into())), ..all() }), []);
    assert_eq!(with(Programs { kubectl: false, ..all() }), [("kubectl", Warning)]);
}

#[test]
fn proxies() {
    let with = |proxy: &str, exceptions: &str| {
        after(|facts| facts.proxy = Proxy { proxies: vec![("HTTPS_PROXY".into(), proxy.into())], exceptions: exceptions.into() })
    };
    let enough = "localhost,127.0.0.1,10.0.0.0/8,.cluster.local,kind-registry";
    assert_eq!(with("http://proxy:3128", enough), []);
    assert_eq!(with("http://proxy:3128", "*"), []);
    assert_eq!(with("http://proxy:3128", ""), [("proxy", Warning)]);
    assert_eq!(with("http://proxy:3128", "localhost,127.0.0.1"), [("proxy", Warning)]);
    assert_eq!(with("http://127.0.0.1:3128", enough), [("proxy-on-loopback", Warning)]);
    let mut facts = healthy();
    facts.proxy = Proxy { proxies: vec![("HTTPS_PROXY".into(), "http://me:secret@localhost:3128".into())], exceptions: String::new() };
    assert!(!format!("{:?}", examine(&facts)).contains("secret"), "a password is not shown");
}

#[test]
fn contexts() {
    let with = |contexts: Vec<KubeContext>, current: &str| {
        after(|facts| facts.kubeconfig = Ok(Kubeconfig { current: Some(current.into()), contexts }))
    };
    let near = "https://127.0.0.1:1";
    assert_eq!(with(vec![context("devloop-gone", near)], ""), [("dangling-context", Warning)]);
    assert_eq!(with(vec![context("kind-gone", near)], ""), [("dangling-context", Warning)]);
    assert_eq!(with(vec![context("kind-elsewhere", "https://192.0.2.1:1"), context("prod", near)], ""), []);
    assert_eq!(with(vec![KubeContext { server: None, ..context("a", "") }], ""), [("dangling-context", Warning)]);
    assert_eq!(with(vec![KubeContext { user_is_there: false, ..context("a", "") }], ""), [("dangling-context", Warning)]);
    assert_eq!(with(vec![context("prod", near)], "nobody"), [("current-context", Warning)]);
    // What another context needs is not to be deleted.
    let mut facts = healthy();
    let shared = KubeContext { name: "devloop-gone".into(), ..context("kind-dev", near) };
    facts.kubeconfig = Ok(Kubeconfig { current: None, contexts: vec![context("kind-dev", near), shared] });
    let fixes: Vec<_> = problems(&facts).into_iter().filter_map(|finding| finding.fix).collect();
    assert_eq!(fixes, ["`kubectl config delete-context devloop-gone`"]);
    // An engine that doesn't answer may have the cluster.
    let unsure = after(|facts| {
        facts.docker = Ok(Docker::Absent("x".into()));
        facts.kubeconfig = Ok(Kubeconfig { current: None, contexts: vec![context("kind-gone", near)] });
    });
    assert_eq!(unsure, [("docker", Warning)]);
    assert_eq!(after(|facts| facts.kubeconfig = Err("not YAML".into())), [("kubeconfig", Blocks)]);
}

#[test]
fn environments() {
    let phase = |phase: Result<Phase, String>| {
        after(|facts| {
            let environment = &mut facts.environments.as_mut().unwrap()[0];
            (environment.phase, environment.cluster) = (phase, None);
        })
    };
    assert_eq!(phase(Ok(Phase::Stopped)), []);
    assert_eq!(phase(Ok(Phase::Failed)), [("environment", Warning)]);
    assert_eq!(phase(Err("damaged".into())), [("environment", Unknown)]);
    assert_eq!(with_cluster(|cluster| cluster.api = Err("connection refused".into())), [("environment", Blocks)]);
    assert_eq!(with_cluster(|cluster| cluster.api = Ok(Api { ready: false, clock_ahead: None })), [("environment", Warning)]);
    assert_eq!(with_cluster(|cluster| cluster.api = Ok(Api { ready: true, clock_ahead: Some(60) })), [("clock", Warning)]);
    assert_eq!(with_cluster(|cluster| cluster.nodes = Err("x".into())), [("node", Unknown)]);
    let refused = || Reach::Fails("connection refused".into());
    let registry = |cluster: &mut Cluster, here| {
        cluster.registry = Ok(Some(Registry { host: "localhost:5001".into(), from_nodes: "localhost:5001".into(), here }));
    };
    assert_eq!(with_cluster(|cluster| registry(cluster, refused())), [("registry", Warning)]);
    let certs = |cluster: &mut Cluster, certs: &[(&str, Reach)], direct| {
        let certs = certs.iter().map(|(name, reach)| ((*name).to_owned(), vec![("http://x:1".to_owned(), reach.clone())])).collect();
        cluster.nodes = Ok(vec![Node { name: "n".into(), certs: Ok(certs), direct }]);
    };
    // The registry's own entry leads nowhere; there is none; another one's is stale.
    assert_eq!(with_cluster(|cluster| certs(cluster, &[("localhost:5001", refused())], None)), [("registry-from-node", Blocks)]);
    assert_eq!(with_cluster(|cluster| certs(cluster, &[], Some(refused()))), [("registry-from-node", Blocks)]);
    assert_eq!(with_cluster(|cluster| certs(cluster, &[], Some(Reach::Answers))), []);
    assert_eq!(
        with_cluster(|cluster| certs(cluster, &[("localhost:5001", Reach::Answers), ("localhost:5005", refused())], None)),
        [("certs-d", Warning)]
    );
}

/// Everything that can be wrong at once.
fn broken() -> Facts {
    let refused = || Reach::Fails("connection refused".into());
    let stale = vec![("http://old-registry:5000".to_owned(), Reach::Fails("name or service not known".into()))];
    let registry = Registry { host: "localhost:5001".into(), from_nodes: "localhost:5001".into(), here: refused() };
    let mut node =
        Node { name: "dev-control-plane".into(), certs: Ok(BTreeMap::from([("localhost:5005".into(), stale)])), direct: Some(refused()) };
    let mut kind = environment("kind");
    let cluster = kind.cluster.as_mut().unwrap();
    cluster.registry = Ok(Some(registry));
    cluster.nodes = Ok(vec![node.clone()]);
    node.certs = Err("its shell ended with 127: bash: not found".into());
    cluster.nodes.as_mut().unwrap().push(Node { name: "dev-worker".into(), ..node });
    let mut embedded = environment("embedded");
    (embedded.name, embedded.context) = ("default".into(), "devloop-default".into());
    embedded.cluster =
        Some(Cluster { api: Err("connection refused".into()), registry: Err("connection refused".into()), nodes: Ok(Vec::new()) });
    Facts {
        machine: Ok(Machine {
            supported: true,
            root: false,
            capabilities: Ok(Capabilities { effective: 0, bounding: ALL & !(1 << 24) & !(1 << 19) }),
            cgroup_version: Ok(1),
            inotify: Ok(Inotify { watches: 8192, instances: 128, used: 40 }),
            memory: Ok(Memory { available: GIB, total: 2 * GIB }),
        }),
        programs: Ok(Programs { missing_packages: vec!["containerd".into(), "runc".into()], ..Programs::default() }),
        disks: Ok(vec![
            Disk { what: "state", path: "/state".into(), space: Ok(space(GIB / 2)) },
            Disk { what: "cache", path: "/cache".into(), space: Err("no answer within 1.5 s".into()) },
        ]),
        docker: Ok(Docker::Denied("no Docker engine answers at unix:///var/run/docker.sock".into())),
        proxy: Proxy { proxies: vec![("HTTPS_PROXY".into(), "http://127.0.0.1:3128".into())], exceptions: "localhost".into() },
        kubeconfig: Ok(Kubeconfig {
            current: Some("devloop-old".into()),
            contexts: vec![context("devloop-gone", "https://127.0.0.1:1"), KubeContext { server: None, ..context("it's mine", "") }],
        }),
        environments: Ok(vec![kind, embedded]),
        embedded_version: "v1.34.4".into(),
    }
}

#[test]
fn a_broken_machine_in_words() {
    insta::assert_snapshot!(render(&examine(&broken())));
}

#[test]
fn a_machine_without_docker_in_words() {
    let mut facts = healthy();
    facts.docker = Ok(Docker::Absent("no Docker engine answers at unix:///var/run/docker.sock".into()));
    facts.environments = Ok(Vec::new());
    facts.kubeconfig = Ok(Kubeconfig::default());
    insta::assert_snapshot!(render(&examine(&facts)));
}

#[test]
fn for_tools_it_is_a_list_whose_entries_all_have_the_same_fields() {
    let json = serde_json::to_value(examine(&broken())).unwrap();
    let keys = |entry: &serde_json::Value| entry.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let list = json.as_array().unwrap();
    for entry in list {
        assert_eq!(keys(entry), ["disablesEngines", "engines", "explanation", "fix", "group", "id", "severity", "subject", "title"]);
    }
    let all_of_them = list.iter().filter(|entry| entry["severity"] != "ok" && entry["severity"] != "unknown");
    for entry in all_of_them {
        assert!(entry["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "no fix: {entry}");
    }
}

#[test]
fn what_could_not_be_found_out_is_never_fine() {
    let reason = || "no answer within 1.0 s".to_owned();
    let facts = Facts {
        machine: Err(reason()),
        programs: Err(reason()),
        disks: Err(reason()),
        docker: Err(reason()),
        proxy: Proxy::default(),
        kubeconfig: Err(reason()),
        environments: Err(reason()),
        embedded_version: String::new(),
    };
    let fine: Vec<&str> = examine(&facts).iter().filter(|finding| finding.severity == Severity::Ok).map(|finding| finding.id).collect();
    assert_eq!(fine, ["proxy"], "only what needs no asking");
}

fn known<T: std::fmt::Debug + Clone + 'static>(value: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Result<T, String>> {
    prop_oneof![value.prop_map(Ok), ".{0,8}".prop_map(Err)]
}

prop_compose! {
    fn any_engine()(
        text in ".{0,20}", images in known(proptest::collection::vec("(kindest/node:v)?[0-9.:v@]{0,8}", 0..3)), can_pull in proptest::option::of(known(Just(()))),
        bounding in known(any::<u64>()), ahead in proptest::option::of(any::<i64>()), memory in proptest::option::of(any::<u64>()),
        cgroups in proptest::option::of(any::<u8>()), flags in any::<(bool, bool, bool)>(), clusters in known(Just(BTreeMap::new())),
    ) -> Docker {
        let survey = Survey {
            root: text.clone(), containerd_image_store: flags.0, cgroup_version: cgroups, memory, default_runtime: text.clone(), rootless: flags.1,
            ..Survey::default()
        };
        Docker::Answers(Box::new(Engine {
            version: text.clone(), endpoint: text.clone(), survey: if flags.2 { Ok(survey) } else { Err(text) }, bounding,
            node_images: images, can_pull, clusters, clock_ahead: ahead,
        }))
    }
}

prop_compose! {
    fn any_environment()(
        text in "[a-z\"' -]{0,12}", provider in "embedded|kind|context|", registry in known(proptest::option::of(("[a-z:0-9]{0,8}", any::<bool>()))),
        phase in known(prop_oneof![Just(Phase::Ready), Just(Phase::Starting), Just(Phase::Stopped), Just(Phase::Stopping), Just(Phase::Failed)]),
        api in known((any::<bool>(), proptest::option::of(any::<i64>()))), up in any::<bool>(), direct in any::<Option<bool>>(),
        certs in known(proptest::collection::btree_map("[a-z:0-9]{0,8}", proptest::collection::vec((".{0,8}", any::<bool>()), 0..3), 0..3)),
    ) -> Environment {
        let reach = |answers: bool| if answers { Reach::Answers } else { Reach::Fails(text.clone()) };
        let cluster = Cluster {
            api: api.map(|(ready, clock_ahead)| Api { ready, clock_ahead }),
            registry: registry.map(|found| found.map(|(host, here)| Registry { from_nodes: host.clone(), host, here: reach(here) })),
            nodes: Ok(vec![Node {
                name: text.clone(),
                certs: certs.map(|certs| certs.into_iter().map(|(name, all)| (name, all.into_iter().map(|(url, ok)| (url, reach(ok))).collect())).collect()),
                direct: direct.map(reach),
            }]),
        };
        Environment { name: text.clone(), provider, context: text, phase, cluster: up.then_some(cluster) }
    }
}

proptest! {
    #[test]
    fn any_facts_are_examined_and_shown(
        docker in known(any_engine()), environments in known(proptest::collection::vec(any_environment(), 0..3)),
        sets in known(any::<(u64, u64)>()), numbers in any::<[u64; 9]>(), root in any::<bool>(), cgroups in known(any::<u8>()),
        proxy in ".{0,20}", exceptions in ".{0,20}", version in "v?[0-9.+-]{0,10}", go in proptest::option::of(known(".{0,8}")),
        contexts in proptest::collection::vec((".{0,8}", proptest::option::of(".{0,20}"), any::<bool>()), 0..4),
    ) {
        let [free, total, free_files, total_files, available, watches, instances, used, memory] = numbers;
        let facts = Facts {
            machine: Ok(Machine {
                supported: true, root, cgroup_version: cgroups,
                capabilities: sets.map(|(effective, bounding)| Capabilities { effective, bounding }),
                inotify: Ok(Inotify { watches, instances, used }),
                memory: Ok(Memory { available, total: memory }),
            }),
            programs: Ok(Programs { go, ..Programs::default() }),
            disks: Ok(vec![Disk { what: "state", path: proxy.clone(), space: Ok(Space { free, total, free_files, total_files }) }]),
            docker,
            proxy: Proxy { proxies: vec![("HTTP_PROXY".into(), proxy)], exceptions },
            kubeconfig: Ok(Kubeconfig {
                current: Some("x".into()),
                contexts: contexts.into_iter().map(|(name, server, user_is_there)| {
                    KubeContext { cluster: name.clone(), user: Some(name.clone()), name, server, user_is_there }
                }).collect(),
            }),
            environments,
            embedded_version: version,
        };
        let findings = examine(&facts);
        prop_assert!(!render(&findings).is_empty());
        for finding in &findings {
            let problem = matches!(finding.severity, Severity::Warning | Severity::Blocks);
            prop_assert!(!problem || finding.fix.is_some(), "{:?}", finding);
        }
    }
}
