//! The command tree: one for the laptop, for scripts and for the console's prompt. Invariant: an argument that has a type
//! in the model is checked by that type, before anything is sent.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod growth;
mod kube;
mod pools;
mod system;
mod volumes;

pub(crate) use growth::{AddDisks, Drain, Grow};
pub(crate) use kube::{Doctor, Kube, Manifests};
pub(crate) use pools::{Disks, NewPool, Orphans, Pools};
pub(crate) use system::{Alerts, AlertsCommand, Events, Jobs, System, Tokens};
pub(crate) use volumes::{Clients, Nodes, Serving, Snapshots, Trash, Volumes};

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
    /// For a cluster: a PersistentVolume, of `volumes show` only.
    Pv,
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
    /// To which nodes of a cluster a volume is published
    #[command(subcommand)]
    Nodes(Nodes),
    /// What a Kubernetes cluster is given to use this appliance
    #[command(subcommand)]
    Kube(Kube),
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
            "disks wipe serial-1 --confirm serial-1 --give-up tank",
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
            "volumes schedule photos daily=2 --yes",
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
            "pools set tank --trash 0 --yes",
            "pools set tank --scrub weekly",
            "pools create tank --layout mirror --all-blank-disks --trash 0",
            "volumes label photos team=media old-",
            "volumes chown photos cluster-a",
            "clients add photos 10.0.0.7",
            "clients live -o json",
            "nodes add photos worker-1 10.0.0.7 fd00::7 --read-only --alone",
            "nodes remove photos worker-1",
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
            "volumes show photos -o pv",
            "volumes show photos -o pv --appliance rack-1",
            "kube manifests --new-token k8s",
            "kube doctor",
            "kube doctor --appliance rack-1=nas --context home -o json",
            "kube doctor --from cluster.json --from snapshots.json",
            "kube manifests --new-token k8s --helm cistern-chart",
            "kube manifests --new-token k8s --zone a",
            "kube manifests --new-token k8s --zones",
            "kube manifests --new-token k8s --give-up-after 30",
            "kube manifests --monitoring --new-token k8s",
            "kube manifests --new-token k8s --monitoring metrics",
            "kube dashboard",
            "kube rules",
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
            "kube manifests --new-token k8s --give-up-after 0",
        ] {
            let words = std::iter::once("cistern").chain(line.split(' ').filter(|w| !w.is_empty()));
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
