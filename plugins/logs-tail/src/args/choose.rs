//! What to read.

use clap::Args;

/// Which containers.
#[derive(Args, Clone, Debug, Default)]
pub struct ChooseArgs {
    /// What to follow: KIND/NAME (pod, deploy, sts, ds, rs, job, svc); a bare NAME is a Deployment
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Follow the pods with these labels, as in `kubectl get -l`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Only this container; may be repeated [default: all]
    #[arg(short, long = "container", value_name = "NAME")]
    pub containers: Vec<String>,
}
