//! What each command does: one request or a few, and what is printed of the answer.

mod alerts;
mod asked;
mod doctor;
mod enrol;
mod going;
mod growth;
mod kube;
mod orphans;
mod pools;
mod snapshots;
mod system;
mod tokens;
mod volumes;

use cistern_client::Client;
use clap::CommandFactory;

use crate::cli::{Cli, Command, Disks, Global, Profile, Volumes};
use crate::error::CliError;
use crate::output::{Output, Rows};
use crate::profile::{Profiles, connect};
use crate::{ask, tables};

/// What a command works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
}

/// Runs a command.
pub(crate) async fn run(global: &Global, command: Command) -> Result<(), CliError> {
    let output = Output::new(global);
    let context = || {
        Ok::<_, CliError>(Context {
            client: connect(global)?,
            output: output.clone(),
        })
    };
    if output.is_pv() && !matches!(command, Command::Volumes(Volumes::Show { .. })) {
        let hint = Some("leave -o pv out, or give it to `cistern volumes show`");
        let message = "only a volume that is shown can be printed as a PersistentVolume";
        return Err(CliError::other(cistern_model::ErrorKind::Invalid, message, hint));
    }
    match command {
        Command::Enrol(enrol) => enrol::run(global, &output, enrol).await,
        Command::Profile(command) => profile(&output, command),
        Command::Disks(command) => disks(&context()?, command).await,
        Command::Pools(command) => pools::run(&context()?, command).await,
        Command::Orphans(command) => orphans::run(&context()?, command).await,
        Command::Volumes(command) => volumes::run(&context()?, command).await,
        Command::Snapshots(command) => snapshots::run(&context()?, command).await,
        Command::Trash(command) => snapshots::trash(&context()?, command).await,
        Command::Clients(command) => volumes::clients(&context()?, command).await,
        Command::Nodes(command) => volumes::nodes(&context()?, command).await,
        Command::Kube(command) => kube::run(global, &output, command).await,
        Command::Alerts(command) => alerts::run(&context()?, command).await,
        Command::Events(events) => system::events(&context()?, events).await,
        Command::Jobs(command) => system::jobs(&context()?, command).await,
        Command::Tokens(command) => tokens::run(&context()?, command).await,
        Command::System(command) => system::run(&context()?, command).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cistern", &mut script);
            output.document(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Console => Err(CliError::other(
            cistern_model::ErrorKind::Conflict,
            "this is the console's session already",
            None,
        )),
    }
}

async fn disks(context: &Context, command: Disks) -> Result<(), CliError> {
    let Context { client, output } = context;
    let one = |disk| output.one(&disk, |d| d.id.to_string(), tables::disk);
    match command {
        Disks::List => output.list(
            &client.disks().await?,
            |d| d.id.to_string(),
            tables::disks,
            "There are no disks.",
        ),
        Disks::Show { disk } => one(client.disk(&disk.parse()?).await?),
        Disks::Wipe { disk, confirm, give_up } => {
            let id = disk.parse()?;
            let confirm = match confirm {
                Some(confirm) => confirm,
                None if ask::somebody() => {
                    eprintln!("{}", tables::disk(&client.disk(&id).await?));
                    let asked = ask::line("All that is on this disk will be lost. Type its id to wipe it:")?;
                    asked.unwrap_or_default()
                }
                None => {
                    let hint = "confirm with --confirm and the disk's id once more";
                    return Err(CliError::NotConfirmed {
                        what: format!("wiping {id}"),
                        hint,
                    });
                }
            };
            one(client.wipe_disk(&id, &confirm, give_up.as_deref()).await?)
        }
    }
}

fn profile(output: &Output, command: Profile) -> Result<(), CliError> {
    let path = Profiles::path()?;
    let mut all = Profiles::load(&path)?;
    match command {
        Profile::List => {
            // Never the tokens.
            let names: Vec<_> = all
                .profiles
                .iter()
                .map(|(name, p)| {
                    let default = all.default.as_ref() == Some(name);
                    serde_json::json!({
                        "name": name, "endpoint": p.endpoint, "fingerprint": p.fingerprint, "default": default
                    })
                })
                .collect();
            let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
            let table = |rows: &[serde_json::Value]| {
                let mark = |r: &serde_json::Value| if r["default"] == true { "*" } else { "" }.to_owned();
                let rows = rows
                    .iter()
                    .map(|r| [text(r, "name"), mark(r), text(r, "endpoint"), text(r, "fingerprint")]);
                Rows::new(["PROFILE", "", "ENDPOINT", "FINGERPRINT"], rows)
            };
            output.list(&names, |r| text(r, "name"), table, "There are no profiles.")
        }
        Profile::Use { name } => {
            all.get(Some(&name))?;
            all.default = Some(name);
            all.save(&path)
        }
        Profile::Remove { name } => {
            all.get(Some(&name))?;
            all.profiles.remove(&name);
            if all.default.as_ref() == Some(&name) {
                all.default = None;
            }
            all.save(&path)
        }
    }
}
