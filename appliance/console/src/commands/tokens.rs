//! Tokens. Invariant: a secret is printed once, to the standard output, and kept nowhere.

use cistern_client::ClientError;
use cistern_model::{ErrorKind, Problem, TokenId, TokenRequest};

use super::Context;
use crate::cli::Tokens;
use crate::error::CliError;
use crate::{ask, tables};

pub(crate) async fn run(context: &Context, command: Tokens) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        Tokens::List => output.list(
            &client.tokens().await?,
            |t| t.name.to_string(),
            tables::tokens,
            "There are no tokens.",
        ),
        Tokens::Create { name, role, pools } => {
            let request = TokenRequest {
                name: name.parse()?,
                role: role.parse()?,
                pools: pools.iter().map(|p| p.parse()).collect::<Result<_, _>>()?,
            };
            let created = client.create_token(&request).await?;
            output.note("This is shown only now:");
            output.one(&created, |t| t.secret.clone(), |t| t.secret.clone())
        }
        Tokens::Delete { token, yes } => {
            let id = match token.parse::<TokenId>() {
                Ok(id) => id,
                Err(_) => {
                    let all = client.tokens().await?;
                    let found = all.iter().find(|t| t.name.as_str() == token).map(|t| t.id);
                    let missing = || Problem::new(ErrorKind::NotFound, format!("there is no token {token:?}"));
                    found.ok_or_else(|| ClientError::Problem(missing()))?
                }
            };
            ask::confirm(
                yes,
                &format!("deleting the token {token}"),
                &format!("Delete the token {token}?"),
            )?;
            client.delete_token(id).await?;
            output.note(&format!("The token {token} is deleted."));
            Ok(())
        }
    }
}
