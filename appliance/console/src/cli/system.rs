//! What can be asked of the appliance itself: its alerts, its events, its jobs, who may use it.

use cistern_model::Role;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Alerts {
    #[command(subcommand)]
    pub(crate) command: Option<AlertsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// List them; so does `alerts` alone
    List {
        /// Also those whose cause has ended
        #[arg(short, long)]
        all: bool,
    },
    /// Show one: what it means, and what to do
    Show {
        /// Its id
        alert: String,
    },
    /// Say that one was seen; it stays until its cause has ended
    Ack {
        /// Its id
        alert: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Show more as they happen, until interrupted; as JSON, one document in each line
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only those after this number
    #[arg(long, value_name = "NUMBER")]
    pub(crate) after: Option<u64>,
    /// Only those before this number, the newest of them
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["follow", "after"])]
    pub(crate) before: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "COUNT", conflicts_with = "follow")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    /// List them
    List,
    /// Show one
    Show {
        /// Its id
        job: String,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// List them
    List,
    /// Make one; its secret is printed, once
    Create {
        /// Its name
        name: String,
        /// What it may do
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Role::ALL.map(Role::name)))]
        role: String,
        /// A provisioner's pool; give it once for each
        #[arg(long = "pool", value_name = "POOL")]
        pools: Vec<String>,
    },
    /// Take one back
    Delete {
        /// Its id or name
        token: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Show how it is
    Show,
    /// Restart it; clients wait meanwhile
    Reboot {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Switch it off
    Poweroff {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}
