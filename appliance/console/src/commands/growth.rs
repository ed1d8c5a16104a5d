//! More room for a pool: further disks, and disks that have grown.

use cistern_model::{AddDisksRequest, DrainRequest};

use super::Context;
use crate::cli::{AddDisks, Drain, Grow};
use crate::error::CliError;
use crate::{ask, progress, tables};

/// Adds disks to a pool, or says what that would come to.
pub(super) async fn add_disks(context: &Context, command: AddDisks) -> Result<(), CliError> {
    let Context { client, output } = context;
    let AddDisks {
        pool,
        disks,
        plan,
        yes,
        no_wait,
    } = command;
    let request = AddDisksRequest {
        disks: disks.iter().map(|disk| disk.parse()).collect::<Result<_, _>>()?,
    };
    if plan {
        let plan = client.plan_disks(&pool, &request).await?;
        return output.one(&plan, |p| p.pool.to_string(), tables::growth_plan);
    }
    let what = format!("adding disks to the pool {pool}");
    let question = format!(
        "Add {} to the pool {pool}? They cannot be taken out again.",
        disks.join(", ")
    );
    ask::confirm(yes, &what, &question)?;
    let job = client.add_disks(&pool, &request).await?;
    if no_wait {
        return output.one(&job, |j| j.id.to_string(), tables::job);
    }
    progress::wait(client, job, !output.is_json()).await?;
    output.one(&client.pool(&pool).await?, |p| p.name.to_string(), tables::pool)
}

/// Takes up what a pool's disks have grown by, or says what that would come to.
pub(super) async fn grow(context: &Context, command: Grow) -> Result<(), CliError> {
    let Context { client, output } = context;
    let Grow { pool, plan, no_wait } = command;
    if plan {
        let plan = client.plan_growth(&pool).await?;
        return output.one(&plan, |p| p.pool.to_string(), tables::growth_plan);
    }
    let before = client.pool(&pool).await?.size;
    let job = client.grow_pool(&pool).await?;
    if no_wait {
        return output.one(&job, |j| j.id.to_string(), tables::job);
    }
    progress::wait(client, job, !output.is_json()).await?;
    let after = client.pool(&pool).await?;
    if after.size == before {
        output.note("Its disks give no more than before.");
    }
    output.one(&after, |p| p.name.to_string(), tables::pool)
}

/// Empties a disk and takes it out.
pub(super) async fn drain(context: &Context, command: Drain) -> Result<(), CliError> {
    let Context { client, output } = context;
    let Drain {
        pool,
        disk,
        yes,
        no_wait,
    } = command;
    let what = format!("draining the disk {disk} of the pool {pool}");
    let question = format!("Move what lies on {disk} to the other disks of the pool {pool}, and take it out?");
    ask::confirm(yes, &what, &question)?;
    let job = client.drain_disk(&pool, &DrainRequest { disk: disk.parse()? }).await?;
    if no_wait {
        return output.one(&job, |j| j.id.to_string(), tables::job);
    }
    progress::wait(client, job, !output.is_json()).await?;
    output.one(&client.pool(&pool).await?, |p| p.name.to_string(), tables::pool)
}
