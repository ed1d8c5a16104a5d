//! The appliance itself, its events and its jobs.

use std::time::Duration;

use cistern_model::{Event, JobId, PowerAction};
use futures::StreamExt;

use super::Context;
use crate::cli::{Events, Jobs, System};
use crate::error::CliError;
use crate::{ask, progress, tables};

pub(crate) async fn run(context: &Context, command: System) -> Result<(), CliError> {
    let Context { client, output } = context;
    let (action, yes, what) = match command {
        System::Show => return output.one(&client.system().await?, |s| s.hostname.clone(), tables::system),
        System::Reboot { yes } => (PowerAction::Reboot, yes, "Restart the appliance?"),
        System::Poweroff { yes } => (PowerAction::PowerOff, yes, "Switch the appliance off?"),
    };
    ask::confirm(
        yes,
        what.trim_end_matches('?'),
        &format!("{what} Its clients wait until it is back."),
    )?;
    client.power(action).await?;
    output.note("The appliance does so now.");
    Ok(())
}

pub(crate) async fn jobs(context: &Context, command: Jobs) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        Jobs::List => output.list(
            &client.jobs().await?,
            |j| j.id.to_string(),
            tables::jobs,
            "There are no jobs.",
        ),
        Jobs::Show { job, wait } => {
            let id: JobId = job.parse()?;
            let mut job = client.job(id).await?;
            if wait {
                job = progress::wait(client, job, !output.is_json()).await?;
            }
            output.one(&job, |j| j.id.to_string(), tables::job)
        }
    }
}

pub(crate) async fn events(context: &Context, asked: Events) -> Result<(), CliError> {
    let Context { client, output } = context;
    if !asked.follow {
        let events = client.events(asked.after, asked.before, asked.limit).await?;
        if output.is_json() {
            return output.json(&events);
        }
        let lines: Vec<String> = events.iter().map(tables::event).collect();
        return output.text(&lines.join("\n"));
    }
    let print = |event: &Event| {
        if output.is_json() {
            output.document(&serde_json::to_string(event).map_err(|e| CliError::io("printing", e.into()))?)
        } else {
            output.text(&tables::event(event))
        }
    };
    let mut after = asked.after;
    let mut stream = client.follow_events(after).await?;
    loop {
        match stream.next().await {
            Some(Ok(event)) => {
                after = Some(event.seq);
                print(&event)?;
            }
            // The appliance restarts, or the connection was idle for too long: go on where it ended. Without a state
            // partition its numbers begin anew, so a number that it does not know yet must not be asked for.
            Some(Err(_)) | None => {
                output.note("(the connection ended; connecting again)");
                tokio::time::sleep(Duration::from_secs(2)).await;
                let latest = client.events(None, None, None).await?.last().map(|e| e.seq);
                if latest < after {
                    after = None;
                }
                stream = client.follow_events(after).await?;
            }
        }
    }
}
