//! Pools.

use cistern_client::PoolCreation;
use cistern_model::{
    DiskId, DiskState, ErrorKind, ImportRequest, Invalid, Layers, Orphan, PoolChange, PoolKeyRequest, PoolRequest,
    ReplaceRequest, ScrubRequest, SpareRequest, TopologyPlan, TopologyRequest,
};

use super::{Context, going, growth};
use crate::cli::{NewPool, Pools};
use crate::error::CliError;
use crate::{ask, progress, tables};

pub(crate) async fn run(context: &Context, command: Pools) -> Result<(), CliError> {
    let Context { client, output } = context;
    let one = |pool| output.one(&pool, |p| p.name.to_string(), tables::pool);
    match command {
        Pools::List => {
            let none = "There are no pools; make one with `pools create`.";
            output.list(&client.pools().await?, |p| p.name.to_string(), tables::pools, none)
        }
        Pools::Show { pool } => one(client.pool(&pool).await?),
        Pools::Plan(new) if new.topology.is_some() => {
            let plan = planned(context, &new).await?;
            output.one(&plan, |p| p.node.clone(), tables::topology)
        }
        Pools::Plan(new) => {
            let plan = client.plan_pool(&request(context, new).await?).await?;
            output.one(&plan, |p| p.request.name.to_string(), tables::plan)
        }
        Pools::Create { pool, no_wait } => {
            let request = request(context, pool).await?;
            match client.create_pool(&request).await? {
                PoolCreation::Exists(pool) => {
                    output.note("The pool is there already, the same.");
                    one(pool)
                }
                PoolCreation::Started(job) if no_wait => output.one(&job, |j| j.id.to_string(), tables::job),
                PoolCreation::Started(job) => {
                    progress::wait(client, job, !output.is_json()).await?;
                    one(client.pool(request.name.as_str()).await?)
                }
            }
        }
        Pools::Replace {
            pool,
            old,
            new,
            yes,
            no_wait,
        } => {
            let what = format!("replacing the disk {old} of pool {pool}");
            ask::confirm(
                yes,
                &what,
                &format!("Let {new} take the place of {old} in the pool {pool}?"),
            )?;
            let request = ReplaceRequest {
                old: old.parse()?,
                new: new.parse()?,
            };
            let job = client.replace_disk(&pool, &request).await?;
            if no_wait {
                return output.one(&job, |j| j.id.to_string(), tables::job);
            }
            progress::wait(client, job, !output.is_json()).await?;
            one(client.pool(&pool).await?)
        }
        Pools::AddDisks(command) => growth::add_disks(context, command).await,
        Pools::Grow(command) => growth::grow(context, command).await,
        Pools::Drain(command) => growth::drain(context, command).await,
        Pools::AddSpare { pool, disk } => one(client.add_spare(&pool, &SpareRequest { disk: disk.parse()? }).await?),
        Pools::RemoveSpare { pool, disk } => one(client.remove_spare(&pool, &disk.parse()?).await?),
        Pools::Scrub { pool, repair, no_wait } => {
            let job = client.scrub_pool(&pool, &ScrubRequest { repair }).await?;
            let job = match no_wait {
                true => job,
                false => progress::wait(client, job, !output.is_json()).await?,
            };
            output.one(&job, |j| j.id.to_string(), tables::job)
        }
        Pools::Key { pool } => output.one(&client.pool_key(&pool).await?, |k| k.key.clone(), tables::pool_key),
        Pools::Import {
            pool,
            name,
            take_from,
            key,
        } => {
            if let Some(path) = key {
                let given = PoolKeyRequest { key: read_key(&path)? };
                client.give_pool_key(&pool, &given).await?;
            }
            let request = ImportRequest {
                pool: pool.parse()?,
                name: name.map(|name| name.parse()).transpose()?,
                take_from,
            };
            one(client.import_pool(&request).await?)
        }
        Pools::Release { pool, yes } => {
            let what = format!("releasing the pool {pool}");
            ask::confirm(
                yes,
                &what,
                &format!("Release the pool {pool}? Its volumes are no longer served here."),
            )?;
            let released = client.release_pool(&pool).await?;
            let text = |o: &Orphan| {
                let adopt = o.adopt.clone().unwrap_or_default();
                format!("The pool {pool} is released. Where its disks are next, take it in with:\n  {adopt}")
            };
            output.one(&released, |o| o.object.clone(), text)
        }
        Pools::Set {
            pool,
            overcommit,
            reserve,
            trash,
            scrub,
            yes,
        } => {
            let change = PoolChange {
                overcommit_percent: overcommit.map(|text| text.parse()).transpose()?,
                reserve_percent: reserve.map(|text| text.parse()).transpose()?,
                trash_seconds: trash.as_deref().map(seconds).transpose()?,
                scrub: scrub.map(|text| text.parse()).transpose()?,
            };
            if let Some(seconds) = change.trash_seconds.filter(|_| !yes) {
                going::from_the_trash(client, &pool, seconds).await?;
            }
            one(client.change_pool(&pool, &change).await?)
        }
        Pools::Delete { pool, yes, no_wait } => {
            let what = format!("deleting the pool {pool}");
            ask::confirm(yes, &what, &format!("Delete the pool {pool}? Its disks become blank."))?;
            let mut job = client.delete_pool(&pool).await?;
            if !no_wait {
                job = progress::wait(client, job, !output.is_json()).await?;
            }
            let text = if no_wait { "is being deleted" } else { "is deleted" };
            output.one(&job, |j| j.id.to_string(), |_| format!("The pool {pool} {text}."))
        }
    }
}

/// The key in a file, or on standard input.
fn read_key(path: &std::path::Path) -> Result<String, CliError> {
    let read = match path.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        Some(_) | None => std::fs::read_to_string(path),
    };
    let text = read.map_err(|error| CliError::io("reading the key", error))?;
    Ok(text.trim().to_owned())
}

/// What the appliance makes of a topology.
async fn planned(context: &Context, new: &NewPool) -> Result<TopologyPlan, CliError> {
    let path = new.topology.clone().unwrap_or_default();
    let text =
        std::fs::read_to_string(&path).map_err(|error| CliError::io(format!("reading {}", path.display()), error))?;
    let topology = serde_json::from_str(&text).map_err(|error| {
        let text = format!("{} is no topology: {error}", path.display());
        CliError::other(ErrorKind::Invalid, text, None)
    })?;
    let request = TopologyRequest {
        name: new.name.parse()?,
        layout: new.layout.parse()?,
        topology,
    };
    Ok(context.client.plan_topology(&request).await?)
}

/// A time as people write it.
fn seconds(text: &str) -> Result<u32, Invalid> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'd')) => (&text[..at], 24 * 60 * 60),
        Some((at, 'h')) => (&text[..at], 60 * 60),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 's')) => (&text[..at], 1),
        Some(_) | None => (text, 1),
    };
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse::<u32>().ok().filter(|_| plain);
    let seconds = number.and_then(|number| number.checked_mul(unit));
    seconds.ok_or_else(|| Invalid::new("time", text, "give it as 7d, 12h, 30m, 90s or 0"))
}

async fn request(context: &Context, new: NewPool) -> Result<PoolRequest, CliError> {
    if new.topology.is_some() {
        return Ok(planned(context, &new).await?.plan.request);
    }
    let disks = if new.all_blank_disks {
        let all = context.client.disks().await?;
        let blank: Vec<DiskId> = all
            .into_iter()
            .filter(|d| d.state == DiskState::Available)
            .map(|d| d.id)
            // What is free of the boot disk is used by its name only.
            .filter(|d| !d.is_free_part())
            .filter(|d| !new.spares.iter().any(|spare| spare == d.as_str()))
            .collect();
        if blank.is_empty() {
            let hint = "see `disks list`; a disk that carries something has to be wiped by name first";
            return Err(CliError::other(
                ErrorKind::Invalid,
                "there is no blank disk",
                Some(hint),
            ));
        }
        blank
    } else {
        new.disks.iter().map(|d| d.parse()).collect::<Result<_, _>>()?
    };
    Ok(PoolRequest {
        name: new.name.parse()?,
        layout: new.layout.parse()?,
        disks,
        spares: new.spares.iter().map(|d| d.parse()).collect::<Result<_, _>>()?,
        trash_seconds: new.trash.as_deref().map(seconds).transpose()?,
        layers: Layers {
            checksums: new.checksums,
            encryption: new.encryption.parse()?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("90", 90),
            ("90s", 90),
            ("30m", 1800),
            ("12h", 43_200),
            ("7d", 604_800),
        ] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for text in ["", "d", "-1d", "1w", "1.5d", "+1", "99999999999", "4294967295d", "ü"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }

    /// All that can be typed with up to four of some characters, and the largest numbers of each unit.
    #[test]
    fn whatever_is_typed_is_a_number_of_a_unit_or_no_time() {
        const CHARACTERS: [&str; 12] = ["", "0", "1", "9", "d", "h", "m", "s", " ", "-", "+", "ü"];
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            let longer = |text: &String| CHARACTERS.map(|character| format!("{text}{character}"));
            texts = texts.iter().flat_map(longer).collect();
        }
        for (unit, size) in [("", 1), ("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)] {
            let most = u32::MAX / size;
            texts.extend([format!("{most}{unit}"), format!("{}{unit}", u64::from(most) + 1)]);
        }
        for text in texts {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let size = match &text[digits..] {
                "" | "s" => Some(1),
                "m" => Some(60),
                "h" => Some(60 * 60),
                "d" => Some(24 * 60 * 60),
                _ => None,
            };
            let number = text[..digits].parse::<u64>().ok();
            let expected = number.zip(size).map(|(number, size): (u64, u64)| number * size);
            let expected = expected.and_then(|seconds| u32::try_from(seconds).ok());
            assert_eq!(seconds(&text).ok(), expected, "{text:?}");
        }
    }
}
