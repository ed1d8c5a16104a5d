//! Volumes, and who may mount them.

use cistern_client::VolumeQuery;
use cistern_model::{Bytes, MINIMUM_VOLUME, Volume, VolumeRequest};

use super::Context;
use crate::cli::{Clients, Volumes};
use crate::error::CliError;
use crate::{ask, output::Rows, tables};

pub(crate) async fn run(context: &Context, command: Volumes) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        Volumes::List { pool } => {
            let all = client.all_volumes(&VolumeQuery { pool, name: None }).await?;
            output.list(&all, |v| v.name.to_string(), tables::volumes, "There are no volumes.")
        }
        Volumes::Show { volume } => show(context, client.find_volume(&volume).await?).await,
        Volumes::Create {
            name,
            pool,
            size,
            limit,
            clients,
        } => {
            let size: Bytes = size.parse()?;
            let request = VolumeRequest {
                name: name.parse()?,
                pool: pool.parse()?,
                size,
                limit: limit.map(|l| l.parse()).transpose()?,
                clients: clients.iter().map(|c| c.parse()).collect::<Result<_, _>>()?,
            };
            let made = client.create_volume(&request).await?;
            if !made.created {
                output.note("The volume is there already, the same.");
            }
            if made.object.size > size {
                // On the error output in every format: whoever asked for less should know.
                let why = if made.object.size == MINIMUM_VOLUME {
                    ", the least that a volume can be"
                } else {
                    ""
                };
                eprintln!("note: {size} was raised to {}{why}", made.object.size);
            }
            show(context, made.object).await
        }
        Volumes::Delete { volume, yes } => {
            let volume = client.find_volume(&volume).await?;
            let question = format!(
                "Delete {} ({}, {}) and all that is in it?",
                volume.name,
                volume.size,
                volume
                    .used
                    .map_or_else(|| "use not known".to_owned(), |used| format!("{used} used"))
            );
            ask::confirm(yes, &format!("deleting the volume {}", volume.name), &question)?;
            client.delete_volume(volume.id).await?;
            output.note(&format!("The volume {} is deleted.", volume.name));
            Ok(())
        }
    }
}

pub(super) async fn show(context: &Context, volume: Volume) -> Result<(), CliError> {
    // Only the text has a use for the address, and it can do without.
    let host = if context.output.is_json() {
        None
    } else {
        host(context).await
    };
    context
        .output
        .one(&volume, |v| v.id.to_string(), |v| tables::volume(v, host.as_deref()))
}

/// The address that a client would mount from: the one that this command was sent to, or the appliance's first.
async fn host(context: &Context) -> Option<String> {
    if let Some(rest) = context.client.endpoint().strip_prefix("https://") {
        return Some(rest.rsplit_once(':').map_or(rest, |(host, _)| host).to_owned());
    }
    let system = context.client.system().await.ok()?;
    let address = system.interfaces.iter().flat_map(|i| i.reachable_addresses()).next()?;
    Some(if address.is_ipv6() {
        format!("[{address}]")
    } else {
        address.to_string()
    })
}

pub(crate) async fn clients(context: &Context, command: Clients) -> Result<(), CliError> {
    let Context { client, output } = context;
    let print = |volume: &Volume| {
        let table = |clients: &[cistern_model::Client]| Rows::new(["CLIENT"], clients.iter().map(|c| [c.to_string()]));
        output.list(&volume.clients, |c| c.to_string(), table, "Nobody may mount it.")
    };
    match command {
        Clients::List { volume } => print(&client.find_volume(&volume).await?),
        Clients::Add { volume, client: added } => {
            let added = added.parse()?;
            let volume = client.find_volume(&volume).await?;
            print(&client.add_client(volume.id, added).await?)
        }
        Clients::Remove {
            volume,
            client: removed,
        } => {
            let removed = removed.parse()?;
            let volume = client.find_volume(&volume).await?;
            print(&client.remove_client(volume.id, removed).await?)
        }
    }
}
