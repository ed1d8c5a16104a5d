//! What can be asked of volumes, their snapshots and their clients.

use cistern_model::Squash;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Volumes {
    /// List them
    List {
        /// Only those in this pool
        #[arg(long)]
        pool: Option<String>,
        /// Only those with this label; give it once for each
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Show one, and how to mount it; with -o pv, as a PersistentVolume for `kubectl apply -f -`
    Show {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// With -o pv: the plugin mounts it, and knows this appliance by this id
        #[arg(long, value_name = "ID")]
        appliance: Option<String>,
        /// With -o pv: from where nodes mount, if that is another address than the API's
        #[arg(long, value_name = "ADDRESS", conflicts_with = "appliance")]
        server: Option<String>,
    },
    /// Make one
    Create {
        /// Its name
        name: String,
        /// Its pool
        #[arg(long)]
        pool: String,
        /// How much it holds: 10GiB, 1.5TiB, 20GB. With --from it is as large as that if not given
        #[arg(long, required_unless_present = "from")]
        size: Option<String>,
        /// What it holds from the start: a snapshot (by id or VOLUME@NAME) or another volume
        #[arg(long, value_name = "SOURCE")]
        from: Option<String>,
        /// Refuse instead of making it larger than this
        #[arg(long)]
        limit: Option<String>,
        /// Who may mount it: an address or a network; give it once for each
        #[arg(long = "client", value_name = "CLIENT")]
        clients: Vec<String>,
        #[command(flatten)]
        options: Serving,
        /// A label; give it once for each
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Change how one is served; its clients go on
    Options {
        /// Its id, its name, or POOL/NAME
        volume: String,
        #[command(flatten)]
        options: Serving,
    },
    /// Make one larger, while it is served
    Expand {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// How much it holds then, in all: 20GiB
        #[arg(long)]
        size: String,
    },
    /// Have snapshots made of one by themselves
    Schedule {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// How many are kept of each period: hourly=24,daily=7,weekly=4; the others are deleted. Or none: no more are
        /// made, and none is deleted
        schedule: String,
        /// Do not ask before snapshots go by this
        #[arg(short, long)]
        yes: bool,
    },
    /// Make one again what one of its snapshots is; its clients are cut off for the moment
    Rollback {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// The snapshot's name or id
        snapshot: String,
        /// Do not keep what it holds now as a snapshot
        #[arg(long)]
        discard: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Give one another name
    Rename {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// Its new name
        name: String,
    },
    /// Show or change one's labels
    Label {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// KEY=VALUE puts one in, KEY- takes it out
        #[arg(value_name = "LABEL")]
        changes: Vec<String>,
    },
    /// Give one to another owner
    Chown {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// The new owner: a token's name
        owner: String,
    },
    /// Delete one, and all that is in it
    Delete {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// How a volume is served; what is not named stays, or is as usual.
#[derive(Debug, Args)]
pub(crate) struct Serving {
    /// Which of its clients' users become the anonymous one: none (usual), root or all
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Squash::ALL.iter().map(|s| s.name())))]
    pub(crate) squash: Option<String>,
    /// The anonymous user and group, by number (usual: 65534:65534)
    #[arg(long, value_name = "UID:GID")]
    pub(crate) anonymous: Option<String>,
    /// Whether all clients may only read
    #[arg(long, value_name = "true|false")]
    pub(crate) read_only: Option<bool>,
    /// Whom to give its root directory to, by number (usual: 0:0)
    #[arg(long, value_name = "UID:GID")]
    pub(crate) root_owner: Option<String>,
    /// The mode to give its root directory (usual: 1777)
    #[arg(long, value_name = "MODE")]
    pub(crate) root_mode: Option<String>,
    /// How clients prove who they are; give it once for each flavour (only sys in this version)
    #[arg(long, value_name = "FLAVOUR")]
    pub(crate) security: Vec<String>,
    /// Whether the connection is encrypted (only none in this version)
    #[arg(long, value_name = "none|tls|mtls")]
    pub(crate) transport_security: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshots {
    /// List them
    List {
        /// Only those of this volume, by its id, its name, or POOL/NAME
        volume: Option<String>,
        /// Only those in this pool
        #[arg(long)]
        pool: Option<String>,
        /// Also what each takes of its pool, and what deleting it would give back; takes longer
        #[arg(long)]
        sizes: bool,
    },
    /// Show one
    Show {
        /// Its id, or VOLUME@NAME
        snapshot: String,
    },
    /// Make one, or several at one moment
    Create {
        /// Its name
        name: String,
        /// The volume: its id, its name, or POOL/NAME; with several, all snapshots are made at one moment or none is
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
    /// Serve one, read-only, to these clients and no others
    Serve {
        /// Its id, or VOLUME@NAME
        snapshot: String,
        /// Who may mount it: an address or a network; give it once for each
        #[arg(long = "client", value_name = "CLIENT", required = true)]
        clients: Vec<String>,
    },
    /// Serve one no longer
    Unserve {
        /// Its id, or VOLUME@NAME
        snapshot: String,
    },
    /// Delete one
    Delete {
        /// Its id, or VOLUME@NAME
        snapshot: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Trash {
    /// List it, the oldest first
    List,
    /// Take a volume back out of it
    Undelete {
        /// Its id, or its name if that is there once
        volume: String,
        /// What it is to be called, if its name was taken meanwhile
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove a volume from it, for good
    Purge {
        /// Its id, or its name if that is there once
        #[arg(required_unless_present = "all")]
        volume: Option<String>,
        /// All that is in it
        #[arg(long, conflicts_with = "volume")]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Nodes {
    /// List the nodes that a volume is published to
    List {
        /// Its id, its name, or POOL/NAME
        volume: String,
    },
    /// Publish a volume to a node of a cluster, as its plugin does
    Add {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// The node's name
        node: String,
        /// From where it mounts
        #[arg(required = true)]
        addresses: Vec<std::net::IpAddr>,
        /// It may only read
        #[arg(long)]
        read_only: bool,
        /// No other node may have it meanwhile
        #[arg(long)]
        alone: bool,
    },
    /// Take a volume from a node, and cut it off; only if the node is gone for good, or its cluster is
    Remove {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// The node's name
        node: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Clients {
    /// List who may mount a volume
    List {
        /// Its id, its name, or POOL/NAME
        volume: String,
    },
    /// List who is connected now, and what each holds open
    Live,
    /// Allow a client to mount a volume
    Add {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// An address (10.0.0.7) or a network (10.0.0.0/24); to only read: 10.0.0.7:ro
        client: String,
    },
    /// Allow a client no longer to mount a volume
    Remove {
        /// Its id, its name, or POOL/NAME
        volume: String,
        /// As it was added
        client: String,
    },
}
