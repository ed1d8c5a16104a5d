//! What is on the disks and not explained.

use cistern_model::{AdoptRequest, RemoveOrphanRequest};

use super::{Context, volumes};
use crate::cli::Orphans;
use crate::error::CliError;
use crate::{ask, tables};

pub(crate) async fn run(context: &Context, command: Orphans) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        Orphans::List => output.list(
            &client.orphans().await?,
            |orphan| orphan.object.clone(),
            tables::orphans,
            "All that is on the disks is explained.",
        ),
        Orphans::Adopt { object, name, clients } => {
            let request = AdoptRequest {
                object,
                name: name.parse()?,
                clients: clients.iter().map(|client| client.parse()).collect::<Result<_, _>>()?,
            };
            let volume = client.adopt_orphan(&request).await?;
            volumes::show(context, volume).await
        }
        Orphans::Remove { object, confirm } => {
            let confirm = match confirm {
                Some(confirm) => confirm,
                None if ask::somebody() => {
                    let asked = ask::line(&format!(
                        "All that is in {object} will be lost. Type its name to remove it:"
                    ))?;
                    asked.unwrap_or_default()
                }
                None => {
                    let hint = "confirm with --confirm and its name once more";
                    return Err(CliError::NotConfirmed {
                        what: format!("removing {object}"),
                        hint,
                    });
                }
            };
            client.remove_orphan(&RemoveOrphanRequest { object, confirm }).await?;
            output.note("It is removed.");
            Ok(())
        }
    }
}
