//! What can be typed for `ubique sessions`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `ubique sessions`.
#[derive(Debug, Subcommand)]
#[command(before_help = "\
Examples:
  ubique sessions key service.toml --site lon    what a QUIC server at the site is told: key and number
  ubique sessions off                            no connection is looked at any more, on this machine
")]
pub enum SessionsCommand {
    /// Print the key of QUIC connection identifiers and the number of a site. The key is a secret of all sites.
    Key(SessionsKeyArguments),
    /// Take the programs off all interfaces of this machine, as root. They stay when an agent ends, so that connections do;
    /// those whose timestamps they rewrite end now.
    Off,
}

/// `ubique sessions key`.
#[derive(Debug, Args)]
pub struct SessionsKeyArguments {
    /// Service file with `[sessions]`; the secret is read from the file that it names.
    pub file: PathBuf,
    /// Which of its sites.
    #[arg(long)]
    pub site: String,
}
