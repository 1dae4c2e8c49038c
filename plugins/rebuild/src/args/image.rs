//! The command line of `kubectl rebuild image`.

use clap::{Args, Subcommand, ValueEnum};

/// Images that devloop delivered.
#[derive(Clone, Debug, Args)]
pub struct ImageArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What can be done with delivered images.
#[derive(Clone, Debug, Subcommand)]
pub enum ImageCommand {
    /// List what devloop delivered: per node, with size and age, and which pods use it
    Ls {
        /// Form of the output
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: ListForm,
    },
    /// Remove from the nodes what rebuilds delivered and nothing uses
    ///
    /// In use is what a pod runs or names, and what a workload's template names,
    /// also of those that are kept to roll back to. What is in a registry is left
    /// there, and said: others may pull it, too.
    Gc {
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Only what was delivered longer ago than this (30m, 24h): what is on its way to be rolled out is in use by nothing yet
        #[arg(long, value_name = "DURATION", default_value = "10m")]
        older_than: String,
        /// Form of the output
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: ListForm,
    },
}

/// The form in which images are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListForm {
    /// For people.
    #[default]
    Text,
    /// With digests, image ids, and all that uses an image.
    Wide,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}
