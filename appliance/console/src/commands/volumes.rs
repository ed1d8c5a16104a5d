//! Volumes, and who may mount them.

use cistern_client::{ClientError, Endpoint, Fingerprint, VolumeQuery};
use cistern_kube::Source;
use cistern_model::{
    Bytes, ErrorKind, Invalid, Label, Labels, MINIMUM_VOLUME, NodeAccess, PublishedNode, RollbackRequest, Snapshot,
    SnapshotId, Volume, VolumeChange, VolumeOptionsChange, VolumeRequest, VolumeSource,
};

use super::{Context, asked, going, snapshots};
use crate::cli::{Clients, Nodes, Serving, Volumes};
use crate::error::CliError;
use crate::progress::to_the_end;
use crate::{ask, output::Rows, tables};

pub(crate) async fn run(context: &Context, command: Volumes) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        Volumes::List { pool, labels } => {
            let labels: Vec<Label> = labels.iter().map(|l| l.parse()).collect::<Result<_, _>>()?;
            let query = VolumeQuery {
                pool,
                name: None,
                label: (!labels.is_empty()).then(|| labels.iter().map(Label::to_string).collect::<Vec<_>>().join("\n")),
            };
            let all = client.all_volumes(&query).await?;
            output.list(&all, |v| v.name.to_string(), tables::volumes, "There are no volumes.")
        }
        Volumes::Show {
            volume,
            appliance,
            server,
        } => {
            let volume = client.find_volume(&volume).await?;
            if output.is_pv() {
                let source = match (appliance, server) {
                    (Some(appliance), _) => Source::Csi { appliance },
                    (None, Some(server)) => Source::Nfs { server },
                    (None, None) => Source::Nfs {
                        server: host(context).await.unwrap_or_default(),
                    },
                };
                let text = cistern_kube::persistent_volume(&volume, &source);
                return output.document(text.map_err(crate::commands::kube::unfit)?.trim_end());
            }
            show(context, volume).await
        }
        Volumes::Create {
            name,
            pool,
            size,
            from,
            limit,
            clients,
            options,
            labels,
        } => {
            let source = match &from {
                Some(from) => Some(source(context, from).await?),
                None => None,
            };
            let size: Bytes = match (&size, source) {
                (Some(size), _) => size.parse()?,
                (None, source) => source.map(|(_, size)| size).unwrap_or_default(),
            };
            let request = VolumeRequest {
                name: name.parse()?,
                pool: pool.parse()?,
                size,
                limit: limit.map(|l| l.parse()).transpose()?,
                clients: clients.iter().map(|c| c.parse()).collect::<Result<_, _>>()?,
                options: change(&options)?,
                labels: changed(Labels::default(), &labels)?,
                source: source.map(|(source, _)| source),
                schedule: None,
            };
            let (made, again) = to_the_end(|| client.create_volume(&request)).await?;
            if !made.created {
                asked::compare(&request, &made.object)?;
            }
            if !made.created && !again {
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
        Volumes::Options { volume, options } => {
            let change = change(&options)?;
            if change == VolumeOptionsChange::default() {
                return show(context, client.find_volume(&volume).await?).await;
            }
            let volume = client.find_volume(&volume).await?;
            show(context, client.set_options(volume.id, &change).await?).await
        }
        Volumes::Expand { volume, size } => {
            let size = Some(size.parse()?);
            let change = VolumeChange {
                size,
                ..VolumeChange::default()
            };
            change_and_show(context, &volume, &change).await
        }
        Volumes::Schedule { volume, schedule, yes } => {
            let schedule = schedule.parse()?;
            let volume = client.find_volume(&volume).await?;
            if !yes {
                going::from_the_snapshots(client, &volume, schedule).await?;
            }
            let change = VolumeChange {
                schedule: Some(schedule),
                ..VolumeChange::default()
            };
            show(context, client.change_volume(volume.id, &change).await?).await
        }
        Volumes::Rollback {
            volume,
            snapshot,
            discard,
            yes,
        } => {
            let volume = client.find_volume(&volume).await?;
            let reference = match snapshot.parse::<SnapshotId>() {
                Ok(id) => id.to_string(),
                Err(_) if snapshot.contains('@') => snapshot,
                Err(_) => format!("{}@{snapshot}", volume.id),
            };
            let to = snapshots::find(client, &reference).await?;
            let lost = if discard {
                "What it holds now will be lost"
            } else {
                "What it holds now is kept as a snapshot"
            };
            let question = format!(
                "Roll {} back to {} of {}? {lost}, and its clients are cut off for the moment.",
                volume.name, to.name, to.created
            );
            ask::confirm(yes, &format!("rolling back the volume {}", volume.name), &question)?;
            let request = RollbackRequest {
                snapshot: to.id,
                discard,
            };
            show(context, client.roll_back(volume.id, &request).await?).await
        }
        Volumes::Rename { volume, name } => {
            let name = Some(name.parse()?);
            let change = VolumeChange {
                name,
                ..VolumeChange::default()
            };
            change_and_show(context, &volume, &change).await
        }
        Volumes::Label { volume, changes } => {
            let mut volume = client.find_volume(&volume).await?;
            if !changes.is_empty() {
                let change = VolumeChange {
                    labels: Some(changed(volume.labels, &changes)?),
                    ..VolumeChange::default()
                };
                volume = client.change_volume(volume.id, &change).await?;
            }
            let labels: Vec<Label> = volume.labels.iter().collect();
            let table = |labels: &[Label]| Rows::new(["LABEL"], labels.iter().map(|l| [l.to_string()]));
            output.list(&labels, Label::to_string, table, "It has no labels.")
        }
        Volumes::Chown { volume, owner } => {
            let owner = Some(owner.parse()?);
            let change = VolumeChange {
                owner,
                ..VolumeChange::default()
            };
            change_and_show(context, &volume, &change).await
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
            let pool = client.pool(&volume.pool.to_string()).await;
            let note = match pool.map(|pool| pool.trash_seconds) {
                Ok(seconds) if seconds > 0 => {
                    let time = tables::duration(seconds);
                    format!(
                        "The volume {} is deleted; for {time} `trash undelete` brings it back.",
                        volume.name
                    )
                }
                Ok(_) | Err(_) => format!("The volume {} is deleted.", volume.name),
            };
            output.note(&note);
            Ok(())
        }
    }
}

/// What was said of how a volume is to be served.
fn change(said: &Serving) -> Result<VolumeOptionsChange, CliError> {
    let (anonymous_uid, anonymous_gid) = numbers("user and group", said.anonymous.as_deref())?;
    let (root_uid, root_gid) = numbers("owner and group", said.root_owner.as_deref())?;
    let security: Vec<_> = said.security.iter().map(|s| s.parse()).collect::<Result<_, _>>()?;
    Ok(VolumeOptionsChange {
        squash: said.squash.as_ref().map(|s| s.parse()).transpose()?,
        anonymous_uid,
        anonymous_gid,
        read_only: said.read_only,
        root_uid,
        root_gid,
        root_mode: said.root_mode.as_ref().map(|m| m.parse()).transpose()?,
        security: (!security.is_empty()).then_some(security),
        transport_security: said.transport_security.as_ref().map(|t| t.parse()).transpose()?,
    })
}

/// `UID:GID`.
fn numbers(what: &'static str, text: Option<&str>) -> Result<(Option<u32>, Option<u32>), Invalid> {
    let Some(text) = text else { return Ok((None, None)) };
    let pair = text
        .split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    match pair {
        Some((uid, gid)) => Ok((Some(uid), Some(gid))),
        None => Err(Invalid::new(what, text, "give two numbers, as 1000:100")),
    }
}

async fn change_and_show(context: &Context, volume: &str, change: &VolumeChange) -> Result<(), CliError> {
    let volume = context.client.find_volume(volume).await?;
    show(context, context.client.change_volume(volume.id, change).await?).await
}

/// These labels with `KEY=VALUE` put in and `KEY-` taken out.
fn changed(mut labels: Labels, changes: &[String]) -> Result<Labels, CliError> {
    for change in changes {
        match change.strip_suffix('-').filter(|key| !key.contains('=')) {
            Some(key) => labels.remove(key),
            None => labels.set(change.parse()?)?,
        }
    }
    Ok(labels)
}

/// What a new volume is to be made of, and how large that is.
async fn source(context: &Context, reference: &str) -> Result<(VolumeSource, Bytes), CliError> {
    let client = &context.client;
    let of_volume = |v: Volume| (VolumeSource::Volume(v.id), v.size);
    let of_snapshot = |s: Snapshot| (VolumeSource::Snapshot(s.id), s.size);
    if reference.parse::<SnapshotId>().is_ok() {
        return snapshots::find(client, reference).await.map(of_snapshot);
    }
    if !reference.contains('@') {
        return Ok(of_volume(client.find_volume(reference).await?));
    }
    // A volume's name may hold an @ too.
    let snapshot = client.find_snapshot(reference).await?;
    let volume = match client.find_volume(reference).await {
        Ok(volume) => Some(volume),
        Err(ClientError::NoVolume(_)) => None,
        // One that may lie in a pool that is away cannot be copied.
        Err(error) if snapshot.is_some() && error.kind() == ErrorKind::Unavailable => None,
        Err(error) => return Err(error.into()),
    };
    match (volume, snapshot) {
        (Some(volume), Some(snapshot)) => Err(ClientError::ambiguous(reference, &[volume], &[snapshot]).into()),
        (Some(volume), None) => Ok(of_volume(volume)),
        (None, Some(snapshot)) => Ok(of_snapshot(snapshot)),
        (None, None) => Err(snapshots::none(reference)),
    }
}

pub(crate) async fn show(context: &Context, volume: Volume) -> Result<(), CliError> {
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
    if let Some(host) = host_of(context.client.endpoint()) {
        return Some(host);
    }
    let system = context.client.system().await.ok()?;
    let address = system.interfaces.iter().flat_map(|i| i.reachable_addresses()).next()?;
    Some(if address.is_ipv6() {
        format!("[{address}]")
    } else {
        address.to_string()
    })
}

/// The host in an appliance's address, an IPv6 one with its brackets; none in its own socket's.
fn host_of(endpoint: &str) -> Option<String> {
    // Which certificate it shows is of no matter to its address.
    let endpoint = Endpoint::https(endpoint, Fingerprint::of(&[])).ok()?;
    match endpoint {
        Endpoint::Https { url, .. } => url.host_str().map(str::to_owned),
        Endpoint::Unix(_) => None,
    }
}

pub(crate) async fn nodes(context: &Context, command: Nodes) -> Result<(), CliError> {
    let Context { client, output } = context;
    let print = |volume: &Volume| {
        let name = |node: &PublishedNode| node.name.to_string();
        output.list(&volume.nodes, name, tables::nodes, "It is published to no node.")
    };
    match command {
        Nodes::List { volume } => print(&client.find_volume(&volume).await?),
        Nodes::Add {
            volume,
            node,
            addresses,
            read_only,
            alone,
        } => {
            let node = node.parse()?;
            let access = NodeAccess {
                addresses,
                read_only,
                alone,
            };
            let volume = client.find_volume(&volume).await?;
            print(&client.publish_to_node(volume.id, &node, &access).await?)
        }
        Nodes::Remove { volume, node } => {
            let node = node.parse()?;
            let volume = client.find_volume(&volume).await?;
            let gone = client.unpublish_from_node(volume.id, &node).await?;
            for report in &gone.fenced {
                eprintln!("{}", tables::fence(report));
            }
            print(&gone.volume)
        }
    }
}

pub(crate) async fn clients(context: &Context, command: Clients) -> Result<(), CliError> {
    let Context { client, output } = context;
    let print = |volume: &Volume| {
        let table = |clients: &[cistern_model::Client]| Rows::new(["CLIENT"], clients.iter().map(|c| [c.to_string()]));
        output.list(&volume.clients, |c| c.to_string(), table, "Nobody may mount it.")
    };
    match command {
        Clients::List { volume } => print(&client.find_volume(&volume).await?),
        Clients::Live => output.list(
            &client.live_clients().await?,
            |live| live.address.to_string(),
            tables::live_clients,
            "Nobody is connected.",
        ),
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
            let gone = client.remove_client(volume.id, removed).await?;
            for report in &gone.fenced {
                // On the error output in every format: whoever asked should know what it touched.
                eprintln!("{}", tables::fence(report));
            }
            print(&gone.volume)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_taken_out_of_an_address_whole() {
        for (address, host) in [
            ("https://10.0.0.5:8443", Some("10.0.0.5")),
            ("https://storage.example", Some("storage.example")),
            ("https://[fd00::5]:8443", Some("[fd00::5]")),
            ("https://[fd00::5]", Some("[fd00::5]")),
            ("unix:/run/cistern/api.sock", None),
        ] {
            assert_eq!(host_of(address).as_deref(), host, "{address}");
        }
    }
}
