//! What engines run.

use crate::doctor::facts::{Facts, Programs};
use crate::doctor::finding::{Engine, Finding, Group, Severity};
use crate::embedded::node_binary::MIN_GO;

const GROUP: Group = Group::Programs;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    match &facts.programs {
        Ok(programs) => vec![packages(programs), node(programs), kind(programs), kubectl(programs)],
        Err(reason) => vec![Finding::unknown(GROUP, "programs", "Programs", reason)],
    }
}

fn packages(programs: &Programs) -> Finding {
    const ID: &str = "node-packages";
    if programs.missing_packages.is_empty() {
        return Finding::ok(GROUP, ID, "containerd, runc, CNI plugins and what else a node is made of are there");
    }
    let packages = programs.missing_packages.join(" ");
    Finding::new(GROUP, ID, Severity::Blocks, format!("Programs of an embedded node are missing: packages {packages}"))
        .disables(&[Engine::Embedded])
        .fix(format!("`apt-get install --no-install-recommends {packages}`"))
}

fn node(programs: &Programs) -> Finding {
    const ID: &str = "node-programs";
    if programs.node_built {
        return Finding::ok(GROUP, ID, "The embedded node's programs are built");
    }
    let get = format!("install Go {MIN_GO} or newer (https://go.dev/doc/install) and put `go` on PATH");
    match &programs.go {
        Some(Ok(version)) if go_is_new_enough(version) => {
            Finding::ok(GROUP, ID, format!("The embedded node's programs can be built with Go {version}"))
                .explain("The first `up` takes 4 to 10 minutes for it; `kubectl devenv build` does it now.")
        }
        Some(Ok(version)) => {
            Finding::new(GROUP, ID, Severity::Blocks, format!("Go {version} is too old to build the embedded node's programs"))
                .disables(&[Engine::Embedded])
                .fix(get)
        }
        Some(Err(reason)) => Finding::unknown(GROUP, ID, "Go", reason),
        None => Finding::new(GROUP, ID, Severity::Blocks, "The embedded node's programs are not built, and Go is missing")
            .disables(&[Engine::Embedded])
            .fix(get),
    }
}

fn go_is_new_enough(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or_default();
        text.split('.').take(2).map(digits).collect()
    };
    numbers(version) >= numbers(MIN_GO)
}

fn kind(programs: &Programs) -> Finding {
    const ID: &str = "kind";
    if programs.kind {
        return Finding::ok(GROUP, ID, "kind is there");
    }
    match programs.go {
        Some(_) => Finding::ok(GROUP, ID, "kind is not there; the first `up` installs it with Go"),
        None => Finding::new(GROUP, ID, Severity::Blocks, "kind is missing, and Go, which would install it, too")
            .disables(&[Engine::Kind])
            .fix("install kind (https://kind.sigs.k8s.io/docs/user/quick-start/#installation) and put `kind` on PATH"),
    }
}

fn kubectl(programs: &Programs) -> Finding {
    const ID: &str = "kubectl";
    if programs.kubectl {
        return Finding::ok(GROUP, ID, "kubectl is there");
    }
    Finding::new(GROUP, ID, Severity::Warning, "kubectl is missing")
        .explain("Clusters work without it; you will want it.")
        .fix("`kubectl devenv build --with-kubectl` builds one and prints its folder, which goes onto PATH")
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_of_go_are_compared_by_number() {
        for (version, enough) in
            [("1.25", true), ("1.25.3", true), ("1.26rc1", true), ("2.0", true), ("1.9", false), ("1.24.9", false), ("", false)]
        {
            assert_eq!(super::go_is_new_enough(version), enough, "{version}");
        }
    }
}
