//! Alerts.

use cistern_model::{AlertId, ErrorKind};

use super::Context;
use crate::cli::{Alerts, AlertsCommand};
use crate::error::CliError;
use crate::tables;

pub(crate) async fn run(context: &Context, command: Alerts) -> Result<(), CliError> {
    let Context { client, output } = context;
    let list = async |all: bool| {
        let alerts = client.alerts(all).await?;
        output.list(&alerts, |a| a.id.to_string(), tables::alerts, "There are no alerts.")
    };
    match command.command {
        None => list(false).await,
        Some(AlertsCommand::List { all }) => list(all).await,
        Some(AlertsCommand::Show { alert }) => {
            let id: AlertId = alert.parse()?;
            let found = client.alerts(true).await?.into_iter().find(|a| a.id == id);
            let found =
                found.ok_or_else(|| CliError::other(ErrorKind::NotFound, format!("there is no alert {id}"), None));
            output.one(&found?, |a| a.id.to_string(), tables::alert)
        }
        Some(AlertsCommand::Ack { alert }) => {
            let alert = client.acknowledge_alert(&alert.parse()?).await?;
            output.one(&alert, |a| a.id.to_string(), tables::alert)
        }
    }
}
