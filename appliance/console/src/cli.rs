//! The command tree: one for the laptop, for scripts and for the console's prompt. Invariant: an argument that has a type
//! in the model is checked by that type, before anything is sent.

use std::path::PathBuf;

use cistern_model::{Layout, Role, Squash};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod growth;
pub(crate) use growth::{AddDisks, Drain, Grow};

/// Cistern: volumes over NFS from raw disks.
#[derive(Debug, Parser)]
#[command(name = "cistern", version, propagate_version = false, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command tree at the console's prompt, where the program's own name is not typed.
#[derive(Debug, Parser)]
#[command(
    name = "cistern",
    no_binary_name = true,
    disable_version_flag = true,
    max_term_width = 100,
    help_template = "{subcommands}\n\nEach explains itself with --help."
)]
pub(crate) struct Line {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: LineCommand,
}

/// What is understood at the prompt.
#[derive(Debug, Subcommand)]
pub(crate) enum LineCommand {
    #[command(flatten)]
    Command(Box<Command>),
    /// Go to a root shell; that is recorded
    Shell,
    /// Show the banner again
    Banner,
    /// Clear the screen
    Clear,
    /// End this session and begin a new one
    Exit,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// How to print: a table, or the API's JSON as one document
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "CISTERN_OUTPUT",
        hide_env = true
    )]
    pub(crate) output: Format,
    /// Print names or ids only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// The appliance to talk to, by the name of its profile
    #[arg(long, global = true, env = "CISTERN_PROFILE", hide_env = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Get a token from an appliance with its console's one-time code, and keep it in a profile
    Enrol(Enrol),
    /// The appliances that this user has enrolled with
    #[command(subcommand)]
    Profile(Profile),
    /// Disks
    #[command(subcommand)]
    Disks(Disks),
    /// Pools
    #[command(subcommand)]
    Pools(Pools),
    /// What is on the disks and not explained
    #[command(subcommand)]
    Orphans(Orphans),
    /// Volumes
    #[command(subcommand)]
    Volumes(Volumes),
    /// Snapshots of volumes
    #[command(subcommand)]
    Snapshots(Snapshots),
    /// Deleted volumes that can be had back
    #[command(subcommand)]
    Trash(Trash),
    /// Who may mount a volume
    #[command(subcommand)]
    Clients(Clients),
    /// What is the matter now, and what to do about it
    Alerts(Alerts),
    /// What happened
    Events(Events),
    /// Long work, under way and ended
    #[command(subcommand)]
    Jobs(Jobs),
    /// Tokens
    #[command(subcommand)]
    Tokens(Tokens),
    /// The appliance itself
    #[command(subcommand)]
    System(System),
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: Shell,
    },
    /// The session on the appliance's own console
    #[command(hide = true)]
    Console,
}

#[derive(Debug, Args)]
pub(crate) struct Enrol {
    /// The appliance's address, as its console shows it: https://10.0.0.5:8443
    pub(crate) address: String,
    /// The one-time code on its console
    #[arg(long)]
    pub(crate) code: String,
    /// The certificate's fingerprint on its console; without it you are asked to compare
    #[arg(long)]
    pub(crate) fingerprint: Option<String>,
    /// What the token is to be called on the appliance
    #[arg(long, default_value = "admin")]
    pub(crate) name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    /// List them
    List,
    /// Use this one where none is named
    Use {
        /// Its name
        name: String,
    },
    /// Forget one; its token stays valid until it is deleted on the appliance
    Remove {
        /// Its name
        name: String,
    },
}

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
        /// How long deleted volumes stay in the trash: 7d, 12h, 30m, 90s; 0: they are gone at once
        #[arg(long, value_name = "TIME")]
        trash: Option<String>,
        /// How often its copies are compared by themselves: none, weekly, monthly
        #[arg(long, value_name = "HOW-OFTEN")]
        scrub: Option<String>,
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
    /// Delete an empty pool
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
    /// Show one, and how to mount it
    Show {
        /// Its id, its name, or POOL/NAME
        volume: String,
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
        /// How many are kept of each period: hourly=24,daily=7,weekly=4; or none
        schedule: String,
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
pub(crate) enum Clients {
    /// List who may mount a volume
    List {
        /// Its id, its name, or POOL/NAME
        volume: String,
    },
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

/// Where settings are kept: `$XDG_CONFIG_HOME/cistern` or `~/.config/cistern`.
pub(crate) fn config_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".config")))
        .map(|base| base.join("cistern"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_trees_hold_together() {
        Cli::command().debug_assert();
        Line::command().debug_assert();
    }

    #[test]
    fn what_the_manual_shows_is_understood() {
        for line in [
            "enrol https://10.0.0.5:8443 --code A --fingerprint B --name laptop --profile nas",
            "profile use nas",
            "disks list -o json",
            "-o json disks list",
            "disks wipe serial-1 --confirm serial-1",
            "pools plan tank --layout mirror --disk a --disk b",
            "pools create tank --layout mirror --all-blank-disks --no-wait",
            "orphans list -o json",
            "orphans adopt pool-1/old --name photos --client 10.0.0.7",
            "orphans remove pool-1/old --confirm pool-1/old",
            "pools import pool-0f8fad5bd9cb469fa16570867728950e --name other --take-from cistern-1",
            "pools release tank --yes",
            "pools plan tank --layout mirror --topology topology.json",
            "pools set tank --overcommit 150 --reserve 20%",
            "pools delete tank --yes",
            "pools add-disks tank --disk a --disk b --plan",
            "pools add-disks tank --disk a --yes --no-wait",
            "pools grow tank --plan",
            "pools grow tank --no-wait",
            "pools drain tank --disk a --yes --no-wait",
            "volumes create photos --pool tank --size 10GiB --client 10.0.0.0/24 --client fd00::7",
            "volumes show tank/photos",
            "volumes list --label team=media --label tier=1",
            "volumes expand photos --size 20GiB",
            "volumes rename tank/photos pictures",
            "volumes create copy --pool tank --from photos@monday",
            "volumes schedule photos hourly=24,daily=7",
            "volumes rollback photos monday --discard --yes",
            "snapshots list photos --sizes",
            "snapshots create monday photos music",
            "snapshots serve photos@monday --client 10.0.0.7",
            "snapshots unserve photos@monday",
            "snapshots delete photos@monday -y",
            "trash list",
            "trash undelete photos --name photos-again",
            "trash purge --all --yes",
            "pools set tank --trash 7d",
            "pools set tank --scrub weekly",
            "pools create tank --layout mirror --all-blank-disks --trash 0",
            "volumes label photos team=media old-",
            "volumes chown photos cluster-a",
            "clients add photos 10.0.0.7",
            "alerts",
            "alerts list --all -o json",
            "alerts ack pool-degraded.pool-0f8fad5bd9cb469fa16570867728950e",
            "clients add photos fd00::7:ro",
            "volumes create photos --pool tank --size 10GiB --squash root --root-owner 1000:100 --root-mode 2770",
            "volumes options photos --read-only true --squash all --anonymous 1000:100",
            "events --follow",
            "events -o json",
            "jobs list",
            "tokens create csi --role provisioner --pool tank",
            "system poweroff -y",
            "completion bash",
            "console",
        ] {
            let words = std::iter::once("cistern").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "",
            "pools create tank --layout mirror",
            "pools set tank",
            "pools add-disks tank",
            "pools create t --layout raid5 --disk a",
            "volumes create x",
            "snapshots create x",
            "trash purge",
        ] {
            let words = std::iter::once("cistern").chain(line.split(' ').filter(|w| !w.is_empty()));
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
