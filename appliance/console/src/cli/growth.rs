//! The arguments of what gives a pool more room.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct AddDisks {
    /// The pool's name or id
    pub(crate) pool: String,
    /// A blank disk, by its id; give it once for each. Mirrors take pairs, striped layouts as many as they have
    #[arg(long = "disk", value_name = "DISK", required = true)]
    pub(crate) disks: Vec<String>,
    /// Only show what it would come to; nothing is touched
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Do not wait until it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Grow {
    /// The pool's name or id
    pub(crate) pool: String,
    /// Only show what it would come to; nothing is touched
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do not wait until it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The pool's name or id
    pub(crate) pool: String,
    /// The disk that leaves; it is blank afterwards
    #[arg(long, value_name = "DISK")]
    pub(crate) disk: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Do not wait until it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
}
