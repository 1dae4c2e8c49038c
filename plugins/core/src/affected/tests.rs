//! Changes in a made workspace, and which services they are about.

use super::*;
use crate::project;

const PROJECT: &str = "apiVersion: devloop/v1
services:
  - name: shop
    build: { cargo: { package: shop, binary: shop } }
    image: { name: shop, base: scratch, binary: /shop, files: [{ from: shop/static, to: /srv }] }
    deploy: { manifests: [k8s/shop.yaml], target: shop }
  - name: cart
    build: { cargo: { package: cart, binary: cart } }
    image: { name: cart, base: scratch, binary: /cart }
    deploy: { manifests: [k8s/cart.yaml], target: cart, helm: { chart: repo/x, values: [values.yaml] } }
  - name: page
    build: { command: { run: [make], watch: [page/src], output: page/out } }
    binary: /page
    sync: [{ from: page/www, to: /www }]
    deploy: { target: page }
  - name: api
    build: { node: { folder: api, include: [patches] } }
    image: { name: api, base: 'oci:bases/node.tar', files: [{ from: api/src, to: /app/src }] }
    deploy: { target: api }
";

fn inputs(root: &Path) -> Inputs {
    std::fs::write(root.join("devloop.yaml"), PROJECT).unwrap();
    let project = project::load(None, root).unwrap();
    let workspace = Workspace::made(
        &project.root,
        &[("shop", &["kit", "Serde"]), ("cart", &["kit"]), ("kit", &["Rand"]), ("tool", &["cart"]), ("Serde", &[]), ("Rand", &[])],
    );
    let services = project.services.iter().map(|service| ServiceInputs {
        listed: listed(&project.root, service),
        service: service.clone(),
        code: match &service.build {
            Some(Build::Cargo(build)) => Code::Cargo { workspace: 0, package: build.package.clone() },
            _ => Code::Listed,
        },
    });
    let services = services.collect();
    let lock = (workspace.lock(), lock("1.0.0"));
    Inputs { root: project.root.clone(), file: project.path.clone(), services, workspaces: vec![workspace], locks: BTreeMap::from([lock]) }
}

fn lock(serde: &str) -> String {
    format!("[[package]]\nname = \"Serde\"\nversion = \"{serde}\"\n\n[[package]]\nname = \"Rand\"\nversion = \"1.0.0\"\n")
}

fn told(inputs: &Inputs, changed: &[&str], before: &Before) -> String {
    let changed: Vec<PathBuf> = changed.iter().map(|path| inputs.root.join(path)).collect();
    let affected = inputs.affected(&changed, before);
    let lines = affected.iter().map(|affected| {
        let reasons: Vec<String> =
            affected.reasons.iter().map(|reason| format!("{} by {}", reason.file.display(), reason.via.join(" > "))).collect();
        format!("{}: {}", affected.service, reasons.join(", "))
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[test]
fn a_change_is_about_what_is_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = inputs(folder.path());
    for (changed, expected) in [
        ("shop/src/main.rs", "shop: shop/src/main.rs by shop"),
        ("shop/build.rs", "shop: shop/build.rs by shop"),
        ("shop/data.txt", "shop: shop/data.txt by shop"),
        ("shop/static/a.css", "shop: shop/static/a.css by image"),
        ("shop/tests/it.rs", ""),
        ("shop/.vscode/settings.json", ""),
        ("kit/src/lib.rs", "shop: kit/src/lib.rs by kit > shop; cart: kit/src/lib.rs by kit > cart"),
        ("kit/Cargo.toml", "shop: kit/Cargo.toml by kit > shop; cart: kit/Cargo.toml by kit > cart"),
        ("tool/src/main.rs", ""),
        ("Cargo.toml", "shop: Cargo.toml by workspace > shop; cart: Cargo.toml by workspace > cart"),
        ("rust-toolchain.toml", "shop: rust-toolchain.toml by toolchain; cart: rust-toolchain.toml by toolchain"),
        (".cargo/config.toml", "shop: .cargo/config.toml by toolchain; cart: .cargo/config.toml by toolchain"),
        ("kit/rust-toolchain.toml", "shop: kit/rust-toolchain.toml by kit > shop; cart: kit/rust-toolchain.toml by kit > cart"),
        ("k8s/cart.yaml", "cart: k8s/cart.yaml by manifest"),
        ("values.yaml", "cart: values.yaml by helm"),
        ("page/src/a/b", "page: page/src/a/b by build"),
        ("page/www/a", "page: page/www/a by sync"),
        ("page", "page: page by build"),
        ("api/package-lock.json", "api: api/package-lock.json by dependencies"),
        ("api/patches/a.patch", "api: api/patches/a.patch by dependencies"),
        ("api/src/server.js", "api: api/src/server.js by image"),
        ("api/README.md", ""),
        ("bases/node.tar", "api: bases/node.tar by base"),
        ("README.md", ""),
        (
            "devloop.yaml",
            "shop: devloop.yaml by project file; cart: devloop.yaml by project file; page: devloop.yaml by project file; api: devloop.yaml by project file",
        ),
    ] {
        assert_eq!(told(&inputs, &[changed], &Before::default()), expected, "{changed}");
    }
    assert_eq!(
        told(&inputs, &["shop/src/b.rs", "shop/src/a.rs"], &Before::default()),
        "shop: shop/src/a.rs by shop, shop/src/b.rs by shop"
    );
}

#[test]
fn what_was_there_before_tells_more() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = inputs(folder.path());
    let path = inputs.root.join("Cargo.lock");
    let before = |text: String| Before { locks: BTreeMap::from([(path.clone(), text)]), services: None };
    assert_eq!(told(&inputs, &["Cargo.lock"], &before(lock("0.9.0"))), "shop: Cargo.lock by Serde > shop");
    assert_eq!(
        told(&inputs, &["Cargo.lock"], &before(lock("1.0.0").replace("Rand\"\nversion = \"1", "Rand\"\nversion = \"0"))),
        "shop: Cargo.lock by Rand > kit > shop; cart: Cargo.lock by Rand > kit > cart"
    );
    assert_eq!(told(&inputs, &["Cargo.lock"], &before(lock("1.0.0"))), "");
    assert_eq!(told(&inputs, &["Cargo.lock"], &Before::default()), "shop: Cargo.lock by lock file; cart: Cargo.lock by lock file");
    let services = project::parse_text(&PROJECT.replace("target: cart", "target: sts/cart")).unwrap();
    let before = Before { services: Some(services), ..Before::default() };
    assert_eq!(told(&inputs, &["devloop.yaml"], &before), "cart: devloop.yaml by project file");
}

proptest::proptest! {
    /// Whatever the graph: a change in a package is about the services that reach
    /// it, and about no others.
    #[test]
    fn reach_decides(edges in proptest::collection::vec((0usize..6, 0usize..6), 0..14), changed in 0usize..6) {
        let names = ["a", "b", "c", "d", "e", "f"];
        // Without cycles, as cargo demands.
        let of = |package: usize| edges.iter().filter(|(from, to)| *from == package && to > from).map(|(_, to)| *to).collect::<Vec<_>>();
        let owned: Vec<Vec<&str>> = (0..6).map(|package| of(package).iter().map(|to| names[*to]).collect()).collect();
        let packages: Vec<(&str, &[&str])> = (0..6).map(|package| (names[package], owned[package].as_slice())).collect();
        let workspace = Workspace::made(Path::new("/w"), &packages);
        for service in 0..6 {
            let mut reached = BTreeSet::new();
            let mut next = vec![service];
            while let Some(package) = next.pop() {
                if reached.insert(package) {
                    next.extend(of(package));
                }
            }
            let via = workspace.via(names[service], &Path::new("/w").join(names[changed]).join("src/lib.rs"));
            proptest::prop_assert_eq!(via.is_some(), reached.contains(&changed));
            if let Some(via) = via {
                proptest::prop_assert_eq!(via.first().map(String::as_str), Some(names[changed]));
                proptest::prop_assert_eq!(via.last().map(String::as_str), Some(names[service]));
            }
        }
    }
}
