//! How much of it, and in which order.

use clap::Args;

/// What `--max-log-requests` is by default, and by -1, as in stern.
pub(crate) const MOST_REQUESTS: i64 = devloop_core::logs::CONNECTIONS as i64;

/// From when on, and until when.
#[derive(Args, Clone, Debug, Default)]
pub struct RangeArgs {
    /// Of what is there already: only lines that are not older (30s, 5m, 1h30m)
    #[arg(short, long, value_name = "DURATION", conflicts_with = "since_time")]
    pub since: Option<String>,
    /// Of what is there already: only lines from this time on (2026-01-02T03:04:05Z)
    #[arg(long, value_name = "TIME")]
    pub since_time: Option<String>,
    /// No lines after this time, or after so long ago
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<String>,
    /// Of what is there already: at most this many lines of each container; -1: all
    #[arg(long, value_name = "LINES", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub tail: Option<i64>,
    /// The first so many lines of each container
    #[arg(long, value_name = "LINES", conflicts_with = "tail")]
    pub head: Option<u64>,
    /// All that is still there: rotated files and earlier runs, too
    #[arg(long)]
    pub all: bool,
    /// Go on with what comes (the default)
    #[arg(short, long, overrides_with = "no_follow", conflicts_with = "previous")]
    pub follow: bool,
    /// Print what is there, and end
    #[arg(long)]
    pub no_follow: bool,
    /// Print the log of the instance before the last restart, and end
    #[arg(long)]
    pub previous: bool,
    /// Say what happens to the pods, too: the cluster's events and how containers end
    #[arg(long, conflicts_with_all = ["no_follow", "previous"])]
    pub events: bool,
    /// How long a line waits for older ones of other containers
    #[arg(long, value_name = "DURATION", default_value = "150ms", conflicts_with = "unordered")]
    pub window: String,
    /// Print lines as they come, those of each container in order
    #[arg(long)]
    pub unordered: bool,
    /// So many connections at once, where logs are read through the API; others take turns
    #[arg(long, value_name = "COUNT", default_value_t = MOST_REQUESTS, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub max_log_requests: i64,
    /// So much that is rotated away is kept on a node while the output is slow
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub spill: String,
}
