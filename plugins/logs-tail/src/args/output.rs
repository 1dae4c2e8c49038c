//! How lines are printed.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// How and where to.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output options")]
pub struct OutputArgs {
    /// Form of the output [default: default]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
    /// Print each by this template (Jinja; Go as stern takes it is recognised)
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "output")]
    pub template: Option<String>,
    /// The template is in this file
    #[arg(short = 'T', long, value_name = "FILE", conflicts_with_all = ["output", "stern_template"])]
    pub template_file: Option<PathBuf>,
    /// Print each by this Go template, as stern takes it
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["output", "template"])]
    pub stern_template: Option<String>,
    /// Show when each line was written: default, short, or a pattern such as %H:%M:%S%.3f
    #[arg(short, long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "default")]
    pub timestamps: Option<String>,
    /// Time zone of the timestamps [default: the local one]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Mark what this regular expression matches; may be repeated
    #[arg(short = 'H', long, value_name = "REGEX")]
    pub highlight: Vec<String>,
    /// Pass on control characters as they are
    #[arg(long)]
    pub raw: bool,
    /// A colour for each container's name, not for each pod
    #[arg(short, long)]
    pub diff_container: bool,
    /// Colours of pods, as SGR parameters: 91,92,93
    #[arg(long, value_name = "COLORS", value_delimiter = ',')]
    pub pod_colors: Vec<String>,
    /// Colours of containers, as many as of pods [default: those of pods]
    #[arg(long, value_name = "COLORS", value_delimiter = ',')]
    pub container_colors: Vec<String>,
    /// Say nothing of pods that come and go
    #[arg(long)]
    pub only_log_lines: bool,
    /// Write to a file for each container in this folder, not to stdout
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Begin a new file at this size (k, M and G may follow)
    #[arg(long, value_name = "SIZE", default_value = "100M", requires = "output_dir")]
    pub output_max_size: String,
    /// Keep so many full files of each container
    #[arg(long, value_name = "COUNT", default_value_t = 5, requires = "output_dir")]
    pub output_keep: usize,
    /// Look through them on the whole screen: filter as you type, pause, go from error to error
    #[arg(long, conflicts_with_all = ["output", "template", "template_file", "stern_template", "output_dir", "stdin", "group"])]
    pub ui: bool,
    /// File with defaults: `<flag>: <value>` [default: ~/.config/devloop/logs-tail.yaml]
    #[arg(long, value_name = "FILE", env = "DEVLOOP_LOGS_TAIL_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}

/// The form of a printed line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// The pod (and container, if it has several), then the line; safe on a terminal
    #[default]
    Default,
    /// The line alone, byte for byte
    Raw,
    /// A JSON object a line: timestamp, namespace, pod, container, message
    Json,
    /// JSON with names in colour, in which a message that is JSON stays JSON
    #[value(name = "extjson")]
    ExtendedJson,
    /// The same over several lines
    #[value(name = "ppextjson")]
    PrettyJson,
}
