//! Which lines.

use clap::Args;

/// What is done with lines.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Lines")]
pub struct LineArgs {
    /// Read lines from standard input instead of a cluster
    #[arg(long, conflicts_with_all = ["targets", "selector", "field_selector", "all_namespaces", "node", "prompt"])]
    pub stdin: bool,
    /// Only what this regular expression matches; may be repeated: one of them
    #[arg(short, long, value_name = "REGEX")]
    pub include: Vec<String>,
    /// Nothing that this regular expression matches; may be repeated: none of them
    #[arg(short, long, value_name = "REGEX")]
    pub exclude: Vec<String>,
    /// Only what this expression is true of: 'status >= 500 && path ~ "^/api"'
    #[arg(long = "where", value_name = "EXPRESSION")]
    pub condition: Option<String>,
    /// What this jq program makes of each; nothing means that it is left out
    #[arg(long, value_name = "PROGRAM")]
    pub jq: Option<String>,
    /// Also so many records before each of them, of the same container
    #[arg(short = 'B', long, alias = "before-context", value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    pub before: usize,
    /// Also so many after
    #[arg(long, alias = "after-context", value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    pub after: usize,
    /// Also so many before and after
    #[arg(short = 'C', long, value_name = "COUNT", conflicts_with_all = ["before", "after"])]
    pub around: Option<usize>,
    /// Take a stack trace and its line as one [default: when something is filtered or grouped]
    #[arg(long, overrides_with = "no_fold")]
    pub fold: bool,
    /// Take each line by itself
    #[arg(long)]
    pub no_fold: bool,
    /// Print nothing but equal stack traces, counted, at the end
    #[arg(long)]
    pub group: bool,
    /// Only lines that the run before the last restart did not have, numbers aside
    #[arg(long, conflicts_with_all = ["stdin", "previous"])]
    pub diff_since_restart: bool,
    /// Cut longer lines (bytes; k and M may follow), at most 1M
    #[arg(long, value_name = "SIZE", default_value = "1M")]
    pub max_line: String,
}
