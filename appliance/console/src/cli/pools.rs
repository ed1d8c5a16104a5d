//! What can be asked of disks and pools.

use std::path::PathBuf;

use cistern_model::Layout;
use clap::{Args, Subcommand};

use super::{AddDisks, Drain, Grow};

#[derive(Debug, Subcommand)]
pub(crate) enum Disks {
    /// List them
    List,
    /// Show one
    Show {
        /// Its id
        disk: String,
    },
    /// Erase the signatures of what is on a disk, so that it can be given to a pool
    Wipe {
        /// Its id
        disk: String,
        /// Its id once more
        #[arg(long, value_name = "DISK")]
        confirm: Option<String>,
        /// For a part of a pool that lacks other disks for good: that pool's name or id. What this disk has of it is lost
        #[arg(long, value_name = "POOL")]
        give_up: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pools {
    /// List them
    List,
    /// Show one
    Show {
        /// Its name or id
        pool: String,
    },
    /// Show what a pool would come to; nothing is touched
    Plan(NewPool),
    /// Make a pool of blank disks
    Create {
        #[command(flatten)]
        pool: NewPool,
        /// Do not wait until it is made
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a blank disk, or a spare, take the place of a disk, there or missing; the pool is served meanwhile
    Replace {
        /// The pool's name or id
        pool: String,
        /// The disk that goes
        #[arg(long, value_name = "DISK")]
        old: String,
        /// The disk that takes its place
        #[arg(long, value_name = "DISK")]
        new: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Do not wait until the new disk is filled
        #[arg(long)]
        no_wait: bool,
    },
    /// Keep a blank disk ready to take the place of one that fails
    AddSpare {
        /// The pool's name or id
        pool: String,
        /// The disk
        disk: String,
    },
    /// Take a spare disk out of a pool; it is blank afterwards
    RemoveSpare {
        /// The pool's name or id
        pool: String,
        /// The disk
        disk: String,
    },
    /// Add blank disks to a pool, while it is served
    AddDisks(AddDisks),
    /// Take up what a pool's disks have grown by, while it is served
    Grow(Grow),
    /// Empty a disk of a pool and take it out, while the pool is served; only with layout single
    Drain(Drain),
    /// Compare a pool's copies; what differs is told
    Scrub {
        /// The pool's name or id
        pool: String,
        /// Make those that differ agree
        #[arg(long)]
        repair: bool,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Change how a pool's space is given out, how long deleted volumes are kept, and how often it is scrubbed
    Set {
        /// Its name or id
        pool: String,
        /// How much may be promised to volumes, in percent of what is not reserved; above 100 a full pool fails writes
        #[arg(long, value_name = "PERCENT", required_unless_present_any = ["reserve", "trash", "scrub"])]
        overcommit: Option<String>,
        /// How much is kept for snapshots and trash, in percent of the pool
        #[arg(long, value_name = "PERCENT")]
        reserve: Option<String>,
        /// How long deleted volumes stay in the trash: 7d, 12h, 30m, 90s; 0: they are gone at once. That is so for those
        /// that are in it already, too
        #[arg(long, value_name = "TIME")]
        trash: Option<String>,
        /// How often its copies are compared by themselves: none, weekly, monthly
        #[arg(long, value_name = "HOW-OFTEN")]
        scrub: Option<String>,
        /// Do not ask before what is in the trash goes by this
        #[arg(short, long)]
        yes: bool,
    },
    /// Print the key of an encrypted pool, to be kept elsewhere: without it the pool is lost when the appliance is
    Key {
        /// The pool's name or id
        pool: String,
    },
    /// Take in a pool that another appliance made, with all its volumes; `orphans list` shows them
    Import {
        /// Its id
        pool: String,
        /// Call it so, if its name is in use here
        #[arg(long)]
        name: Option<String>,
        /// For a pool that was not released: the system ID of the appliance that can never use it again
        #[arg(long, value_name = "SYSTEM-ID")]
        take_from: Option<String>,
        /// For an encrypted pool whose key is not here: the file with the key; - for standard input
        #[arg(long, value_name = "FILE")]
        key: Option<std::path::PathBuf>,
    },
    /// Give a pool up, so that another appliance can import it; its volumes are no longer served here
    Release {
        /// Its name or id
        pool: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Delete an empty pool, or no longer wait for one none of whose disks is here
    Delete {
        /// Its name or id
        pool: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Do not wait until it is gone
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewPool {
    /// Its name
    pub(crate) name: String,
    /// How data lies on the disks: single (one copy), mirror (pairs), stripe-mirror (striped pairs), parity (any one may be
    /// lost) or double-parity (any two); `plan` says more
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Layout::ALL.map(Layout::name)))]
    pub(crate) layout: String,
    /// A disk, by its id; give it once for each disk
    #[arg(long = "disk", value_name = "DISK", required_unless_present_any = ["all_blank_disks", "topology"])]
    pub(crate) disks: Vec<String>,
    /// A disk that waits to take the place of one that fails; give it once for each
    #[arg(long = "spare", value_name = "DISK")]
    pub(crate) spares: Vec<String>,
    /// Keep a checksum of each block: what a disk gets wrong is read from another copy, or is an error
    #[arg(long)]
    pub(crate) checksums: bool,
    /// Encrypt the disks, with the key on the appliance's state partition, or there and sealed by its TPM
    #[arg(long, value_name = "none|key|tpm2", default_value = "none")]
    pub(crate) encryption: String,
    /// Take every blank disk, and never what is free of the boot disk
    #[arg(long, conflicts_with = "disks")]
    pub(crate) all_blank_disks: bool,
    /// How long deleted volumes stay in the trash: 7d, 12h, 30m, 90s; 0: they are gone at once. A day if not given
    #[arg(long, value_name = "TIME")]
    pub(crate) trash: Option<String>,
    /// Take the devices that heketi's topology.json names for this appliance
    #[arg(long, value_name = "FILE", conflicts_with_all = ["disks", "all_blank_disks"])]
    pub(crate) topology: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Orphans {
    /// List them, with the way to take each over or to remove it
    List,
    /// Take a volume that holds an XFS as a volume; what is in it stays
    Adopt {
        /// As the list calls it
        object: String,
        /// What it is to be called
        #[arg(long)]
        name: String,
        /// Who may mount it: an address or a network; give it once for each
        #[arg(long = "client", value_name = "CLIENT")]
        clients: Vec<String>,
    },
    /// Remove a volume, and all that is in it
    Remove {
        /// As the list calls it
        object: String,
        /// The same once more
        #[arg(long, value_name = "OBJECT")]
        confirm: Option<String>,
    },
}
