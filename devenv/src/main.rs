//! `kubectl devenv`: a local Kubernetes cluster in seconds, without Docker.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_devenv::main()
}
