//! Merging, by values and by properties.

use super::*;
use crate::request::{KindOptions, Mount, PortMapping};
use proptest::prelude::*;

const HEADER: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";

fn file(rest: &str) -> Result<Config> {
    Config::parse("kind.yaml", &format!("{HEADER}{rest}"))
}

fn merge(rest: &str, options: &KindOptions, api_port: Option<u16>) -> Result<Config> {
    let mut config = file(rest)?;
    add_flags(&mut config, &Wanted { name: "dev", options, api_port })?;
    Ok(config)
}

fn refused(rest: &str, options: &KindOptions, api_port: Option<u16>) -> String {
    let error = merge(rest, options, api_port).unwrap_err();
    assert_eq!(error.status().code(), 2);
    error.to_string()
}

fn port(host: u16, node: u16) -> PortMapping {
    PortMapping { address: [127, 0, 0, 1].into(), host, node, protocol: "TCP" }
}

#[test]
fn flags_alone_make_a_configuration() {
    let options = KindOptions {
        workers: Some(1),
        node_image: Some("kindest/node:v1.34.0".into()),
        mounts: vec![Mount { host: "/src".into(), node: "/work".into(), read_only: true }],
        ports: vec![port(8080, 80)],
        feature_gates: [("Some".to_owned(), true)].into(),
        ..KindOptions::default()
    };
    let mut config = Config::empty();
    add_flags(&mut config, &Wanted { name: "dev", options: &options, api_port: Some(6444) }).unwrap();
    let versions: Vec<_> = config.images().iter().flatten().map(|image| version_of_image(image)).collect();
    let machine = Machine { lacks_sys_resource: true, cgroup_v1: true, versioned_patches: true };
    add_defaults(&mut config, &machine, &versions);
    insta::assert_snapshot!(config.render().unwrap(), @r#"
    kind: Cluster
    apiVersion: kind.x-k8s.io/v1alpha4
    nodes:
    - role: control-plane
      image: kindest/node:v1.34.0
      extraMounts:
      - hostPath: /src
        containerPath: /work
        readOnly: true
      extraPortMappings:
      - containerPort: 80
        hostPort: 8080
        listenAddress: 127.0.0.1
        protocol: TCP
    - role: worker
      image: kindest/node:v1.34.0
      extraMounts:
      - hostPath: /src
        containerPath: /work
        readOnly: true
    networking:
      apiServerPort: 6444
    featureGates:
      Some: true
      KubeletInUserNamespace: true
    kubeadmConfigPatches:
    - |
      apiVersion: kubeadm.k8s.io/v1beta3
      kind: ClusterConfiguration
      controllerManager:
        extraArgs:
          kube-api-qps: "200"
          kube-api-burst: "400"
    - |
      kind: KubeletConfiguration
      syncFrequency: 10s
      crashLoopBackOff: {maxContainerRestartPeriod: 5s}
      featureGates: {KubeletCrashLoopBackOffMax: true}
    containerdConfigPatches:
    - |
      version = 2
      [plugins."io.containerd.grpc.v1.cri".registry]
        config_path = "/etc/containerd/certs.d"
    - |
      version = 3
      [plugins."io.containerd.cri.v1.images".registry]
        config_path = "/etc/containerd/certs.d"
    "#);
}

#[test]
fn what_the_file_says_stays_and_patches_of_the_user_come_last() {
    let rest = "kubeadmConfigPatches:\n- |\n  kind: KubeletConfiguration\n  syncFrequency: 1m\nfeatureGates: {KubeletInUserNamespace: false}\ncontainerdConfigPatches:\n- '[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]'\nnetworking: {podSubnet: 10.1.0.0/16}\nnodes: [{role: control-plane, labels: {a: b}}]\n";
    let mut config = merge(rest, &KindOptions::default(), None).unwrap();
    add_defaults(&mut config, &Machine { lacks_sys_resource: true, ..Machine::default() }, &[None]);
    insta::assert_snapshot!(config.render().unwrap(), @r#"
    kind: Cluster
    apiVersion: kind.x-k8s.io/v1alpha4
    kubeadmConfigPatches:
    - |
      apiVersion: kubeadm.k8s.io/v1beta3
      kind: ClusterConfiguration
      controllerManager:
        extraArgs:
          kube-api-qps: "200"
          kube-api-burst: "400"
    - |
      kind: KubeletConfiguration
      syncFrequency: 10s
    - |
      kind: KubeletConfiguration
      syncFrequency: 1m
    featureGates:
      KubeletInUserNamespace: false
    containerdConfigPatches:
    - '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]'
    networking:
      podSubnet: 10.1.0.0/16
    nodes:
    - role: control-plane
      labels:
        a: b
    "#);
}

#[test]
fn contradictions_name_the_path() {
    let two = KindOptions { workers: Some(2), ..KindOptions::default() };
    let said = refused("nodes: [{role: control-plane}, {role: worker}]", &two, None);
    assert_eq!(said, "kind.yaml: nodes lists 1 of role worker, --workers says 2");
    let image = KindOptions { node_image: Some("a".into()), ..KindOptions::default() };
    assert!(refused("nodes: [{}, {image: b}]", &image, None).contains("nodes[1].image is \"b\""));
    let gate = KindOptions { feature_gates: [("A".to_owned(), true)].into(), ..KindOptions::default() };
    assert!(refused("featureGates: {A: false}", &gate, None).contains("featureGates.A is false, --feature-gate says true"));
    let none = KindOptions::default();
    assert!(refused("networking: {apiServerPort: 1}", &none, Some(2)).contains("networking.apiServerPort is 1, --api-port says 2"));
    assert!(refused("name: other", &none, None).contains("name is \"other\""));
    let mount = KindOptions { mounts: vec![Mount { host: "/a".into(), node: "/b".into(), read_only: false }], ..KindOptions::default() };
    let rest = "nodes: [{}, {extraMounts: [{hostPath: /x, containerPath: /b}]}]";
    assert!(refused(rest, &mount, None).contains("nodes[1].extraMounts[0].containerPath is \"/b\""));
    let zero = KindOptions { control_planes: Some(0), ..KindOptions::default() };
    assert_eq!(refused("", &zero, None), "a cluster needs a control plane");
}

#[test]
fn one_host_port_is_taken_once() {
    let rest = "nodes: [{role: control-plane}, {role: worker, extraPortMappings: [{containerPort: 80, hostPort: 8080}]}]";
    let options = KindOptions { ports: vec![port(8080, 81)], ..KindOptions::default() };
    let said = refused(rest, &options, None);
    assert!(said.contains("nodes[1].extraPortMappings[0].hostPort") && said.contains("--port 127.0.0.1:8080:81/tcp"), "{said}");
    // UDP is another matter; so is another address.
    let udp = KindOptions { ports: vec![PortMapping { protocol: "UDP", ..port(8080, 81) }], ..KindOptions::default() };
    assert!(merge(rest, &udp, None).is_ok());
    assert!(refused(rest, &KindOptions::default(), Some(8080)).contains("--api-port"));
    let twice = KindOptions { ports: vec![port(1, 2), port(1, 3)], ..KindOptions::default() };
    assert!(refused("", &twice, None).contains("nodes[0].extraPortMappings[0].hostPort"));
    let own = "nodes: [{extraPortMappings: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 9}]}]";
    assert!(refused(own, &KindOptions::default(), None).starts_with("kind.yaml: nodes[0].extraPortMappings[1].hostPort takes port 9"));
}

#[test]
fn a_file_that_is_none_is_refused_with_the_place() {
    let said = |text: &str| Config::parse("kind.yaml", text).unwrap_err().to_string();
    assert!(said("kind: Cluster\nnodes: [").contains("line 3 column 1"), "{}", said("kind: Cluster\nnodes: ["));
    assert_eq!(
        said("kind: Cluster\napiVersion: kind.sigs.k8s.io/v1alpha3\n"),
        "kind.yaml line 2 column 1: apiVersion is \"kind.sigs.k8s.io/v1alpha3\", expected \"kind.x-k8s.io/v1alpha4\""
    );
    assert_eq!(said("apiVersion: kind.x-k8s.io/v1alpha4"), "kind.yaml: kind is missing");
    assert_eq!(said("- 1"), "kind.yaml is not a kind configuration");
    assert_eq!(said(&format!("{HEADER}nodes: 3")), "kind.yaml: nodes is not a list");
    assert_eq!(said(&format!("{HEADER}nodes: [a]")), "kind.yaml: nodes[0] is not a mapping");
}

#[test]
fn the_kubelets_knobs_fit_its_version() {
    let patch = |versions: &[Option<(u32, u32)>], rest: &str| {
        let mut config = file(rest).unwrap();
        add_defaults(&mut config, &Machine { cgroup_v1: true, ..Machine::default() }, versions);
        config.render().unwrap()
    };
    let at = |minor| patch(&[Some((1, minor))], "");
    assert!(!at(31).contains("crashLoopBackOff"));
    assert!(at(32).contains("crashLoopBackOff") && at(32).contains("KubeletCrashLoopBackOffMax: true"));
    assert!(at(35).contains("crashLoopBackOff") && !at(35).contains("KubeletCrashLoopBackOffMax"));
    assert!(!at(34).contains("failCgroupV1") && at(35).contains("failCgroupV1: false"));
    assert!(!patch(&[Some((1, 30)), Some((1, 35))], "").contains("failCgroupV1"));
    assert!(!patch(&[None], "").contains("crashLoopBackOff"));
    assert!(!patch(&[Some((1, 35))], "featureGates: {AllBeta: false}").contains("crashLoopBackOff"));
    assert!(!patch(&[Some((1, 34))], "kubeadmConfigPatches: ['KubeletCrashLoopBackOffMax: false']").contains("crashLoopBackOff:"));
}

#[test]
fn an_images_version_is_in_its_tag() {
    assert_eq!(version_of_image("kindest/node:v1.37.0@sha256:00"), Some((1, 37)));
    assert_eq!(version_of_image("localhost:5000/node:v1.34.4-0123"), Some((1, 34)));
    for unknown in ["kindest/node", "kindest/node:latest", "localhost:5000/node", "node@sha256:00", "node:v1"] {
        assert_eq!(version_of_image(unknown), None, "{unknown}");
    }
}

#[test]
fn a_file_agrees_with_what_was_made_from_it() {
    let rest = "nodes: [{labels: {a: b}}]\nkubeadmConfigPatches: [x]";
    let mut made = merge(rest, &KindOptions { feature_gates: [("A".to_owned(), true)].into(), ..KindOptions::default() }, None).unwrap();
    made.set_default_image("node:v1.34.0");
    add_defaults(&mut made, &Machine::default(), &[Some((1, 34))]);
    let contradiction = |rest: &str| file(rest).unwrap().first_contradiction(&made);
    assert_eq!(contradiction(rest), None);
    assert_eq!(contradiction("nodes: [{labels: {a: c}}]").as_deref(), Some("nodes[0].labels.a"));
    assert_eq!(contradiction("nodes: [{}, {}]").as_deref(), Some("nodes[1]"));
    assert_eq!(contradiction("kubeadmConfigPatches: [x, y]").as_deref(), Some("kubeadmConfigPatches[1]"));
    assert_eq!(contradiction("networking: {ipFamily: ipv6}").as_deref(), Some("networking.ipFamily"));
}

#[test]
fn differences_have_a_path() {
    let one = file("nodes: [{role: control-plane}]\nfeatureGates: {}").unwrap();
    assert_eq!(one.first_difference(&file("nodes: [{role: control-plane}]").unwrap()), None);
    assert_eq!(one.first_difference(&file("nodes: [{role: worker}]").unwrap()).as_deref(), Some("nodes[0].role"));
    let gate = file("nodes: [{role: control-plane}]\nfeatureGates: {A: true}").unwrap();
    assert_eq!(one.first_difference(&gate).as_deref(), Some("featureGates.A"));
    assert_eq!(Config::empty().first_difference(&gate).as_deref(), Some("nodes"));
    let more = file("nodes: [{role: control-plane}, {}]").unwrap();
    assert_eq!(one.first_difference(&more).as_deref(), Some("nodes[1]"));
}

prop_compose! {
    fn options()(
        control_planes in proptest::option::of(1u16..4),
        workers in proptest::option::of(0u16..4),
        image in proptest::option::of("[a-z]{1,5}:v1\\.3[0-9]"),
        mounts in proptest::collection::btree_map("/[a-z]{1,3}", ("/[a-z]{1,3}", any::<bool>()), 0..3),
        ports in proptest::collection::btree_map(1u16..60, 1u16..60, 0..4),
        gates in proptest::collection::btree_map("[A-Z][a-z]{1,4}", any::<bool>(), 0..3),
    ) -> KindOptions {
        KindOptions {
            control_planes,
            workers,
            node_image: image,
            config: None,
            mounts: mounts.into_iter().map(|(node, (host, read_only))| Mount { host: host.into(), node: node.into(), read_only }).collect(),
            ports: ports.into_iter().map(|(host, node)| port(host, node)).collect(),
            feature_gates: gates,
        }
    }
}

proptest! {
    /// What flags made agrees with the same flags, and with none: `up` again is
    /// no change.
    #[test]
    fn flags_agree_with_what_they_made(options in options(), api_port in proptest::option::of(100u16..)) {
        let made = merge("", &options, api_port).unwrap();
        for (options, api_port) in [(&options, api_port), (&KindOptions::default(), None)] {
            let mut again = made.clone();
            add_flags(&mut again, &Wanted { name: "dev", options, api_port }).unwrap();
            prop_assert_eq!(made.first_difference(&again), None);
        }
        let reread = Config::parse(&made.label, &made.render().unwrap()).unwrap();
        prop_assert_eq!(made.first_difference(&reread), None);
    }

    /// Whatever is wanted beyond what is there is refused or seen as a difference.
    #[test]
    fn other_flags_are_noticed(one in options(), other in options()) {
        let made = merge("", &one, None).unwrap();
        let fresh = merge("", &other, None).unwrap();
        let mut again = made.clone();
        let noticed = match add_flags(&mut again, &Wanted { name: "dev", options: &other, api_port: None }) {
            Ok(()) => made.first_difference(&again).is_some(),
            Err(_) => true,
        };
        let is_more = !other.ports.iter().all(|port| one.ports.contains(port))
            || other.feature_gates.iter().any(|(name, value)| one.feature_gates.get(name) != Some(value))
            || other.workers.is_some_and(|workers| workers != one.workers.unwrap_or(0));
        prop_assert!(noticed || !is_more, "{:?} beside {:?}", fresh, made);
    }

    /// No text makes the reader panic.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = Config::parse("kind.yaml", &text);
        let _ = Config::parse("kind.yaml", &format!("{HEADER}{text}"));
    }
}
