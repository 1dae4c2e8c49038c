//! How much of it.

use clap::Args;

/// From when on, and until when.
#[derive(Args, Clone, Debug, Default)]
pub struct RangeArgs {
    /// Of what is there already: only lines that are not older (30s, 5m, 1h30m)
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Of what is there already: at most this many lines of each container
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Print what is there, and end
    #[arg(long)]
    pub no_follow: bool,
    /// Print the log of the instance before the last restart, and end
    #[arg(short, long)]
    pub previous: bool,
}
