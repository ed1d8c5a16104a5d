//! Snapshots, and the trash.

use cistern_client::{Client, SnapshotQuery};
use cistern_model::{
    ErrorKind, GroupSnapshotRequest, Snapshot, SnapshotRequest, TrashedVolume, UndeleteRequest, VolumeId,
};

use super::Context;
use super::volumes::show;
use crate::cli::{Snapshots, Trash};
use crate::error::CliError;
use crate::progress::to_the_end;
use crate::{ask, tables};

pub(crate) async fn run(context: &Context, command: Snapshots) -> Result<(), CliError> {
    let Context { client, output } = context;
    let one = |snapshot: &Snapshot| output.one(snapshot, |s| s.id.to_string(), tables::snapshot);
    match command {
        Snapshots::List { volume, pool, sizes } => {
            let volume = match volume {
                Some(volume) => Some(client.find_volume(&volume).await?.id),
                None => None,
            };
            let query = SnapshotQuery {
                pool,
                volume,
                name: None,
                sizes,
            };
            let mut all = client.all_snapshots(&query).await?;
            all.sort_by_key(|s| (s.volume, s.created, s.id));
            output.list(&all, |s| s.id.to_string(), tables::snapshots, "There are no snapshots.")
        }
        Snapshots::Show { snapshot } => {
            let id = find(client, &snapshot).await?.id;
            one(&client.snapshot(id, true).await?)
        }
        Snapshots::Create { name, volumes } => {
            let name = name.parse()?;
            let mut ids: Vec<VolumeId> = Vec::new();
            for volume in &volumes {
                ids.push(client.find_volume(volume).await?.id);
            }
            let (made, created) = match ids[..] {
                [id] => {
                    let request = SnapshotRequest { name };
                    let (made, again) = to_the_end(|| client.create_snapshot(id, &request)).await?;
                    (vec![made.object], made.created || again)
                }
                _ => {
                    let request = GroupSnapshotRequest { name, volumes: ids };
                    let (made, again) = to_the_end(|| client.create_group_snapshot(&request)).await?;
                    (made.object, made.created || again)
                }
            };
            if !created {
                output.note("It is there already.");
            }
            match &made[..] {
                [snapshot] => one(snapshot),
                several => output.list(several, |s| s.id.to_string(), tables::snapshots, ""),
            }
        }
        Snapshots::Serve { snapshot, clients } => {
            let clients = clients.iter().map(|c| c.parse()).collect::<Result<_, _>>()?;
            let snapshot = find(client, &snapshot).await?;
            one(&client.serve_snapshot(snapshot.id, clients).await?)
        }
        Snapshots::Unserve { snapshot } => {
            let snapshot = find(client, &snapshot).await?;
            one(&client.serve_snapshot(snapshot.id, Vec::new()).await?)
        }
        Snapshots::Delete { snapshot, yes } => {
            let snapshot = find(client, &snapshot).await?;
            let (name, of) = (&snapshot.name, &snapshot.volume_name);
            ask::confirm(
                yes,
                &format!("deleting the snapshot {name}"),
                &format!("Delete {name} of {of}?"),
            )?;
            client.delete_snapshot(snapshot.id).await?;
            output.note(&format!("The snapshot {name} is deleted."));
            Ok(())
        }
    }
}

/// The snapshot that a person means.
pub(crate) async fn find(client: &Client, reference: &str) -> Result<Snapshot, CliError> {
    client.find_snapshot(reference).await?.ok_or_else(|| none(reference))
}

pub(super) fn none(reference: &str) -> CliError {
    CliError::other(
        ErrorKind::NotFound,
        format!("there is no snapshot {reference}"),
        Some("name it by its id or as VOLUME@NAME; `snapshots list` has them"),
    )
}

pub(crate) async fn trash(context: &Context, command: Trash) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        Trash::List => output.list(
            &client.trash().await?,
            |v| v.id.to_string(),
            tables::trash,
            "The trash is empty.",
        ),
        Trash::Undelete { volume, name } => {
            let request = UndeleteRequest {
                name: name.map(|name| name.parse()).transpose()?,
            };
            let volume = find_trashed(client, &volume).await?;
            show(context, client.undelete(volume.id, &request).await?).await
        }
        Trash::Purge { volume, all, yes } => {
            let volumes = match volume {
                Some(volume) if !all => vec![find_trashed(client, &volume).await?],
                Some(_) | None => client.trash().await?,
            };
            let names: Vec<String> = volumes.iter().map(|v| v.name.to_string()).collect();
            let question = format!("Remove {} for good, and all that is in it?", names.join(", "));
            if !volumes.is_empty() {
                ask::confirm(yes, "emptying the trash", &question)?;
            }
            for volume in &volumes {
                client.purge(volume.id).await?;
            }
            output.note(&format!("{} volume(s) are gone.", volumes.len()));
            Ok(())
        }
    }
}

async fn find_trashed(client: &Client, reference: &str) -> Result<TrashedVolume, CliError> {
    let mut found = client.trash().await?;
    found.retain(|v| v.id.to_string() == reference || v.name.as_str() == reference);
    match (found.pop(), found.is_empty()) {
        (Some(volume), true) => Ok(volume),
        (Some(_), false) => Err(CliError::other(
            ErrorKind::Invalid,
            format!("there is more than one {reference} in the trash"),
            Some("name it by its id; `trash list` has them"),
        )),
        (None, _) => Err(CliError::other(
            ErrorKind::NotFound,
            format!("there is no volume {reference} in the trash"),
            None,
        )),
    }
}
