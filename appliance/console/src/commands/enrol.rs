//! Enrolling: from the console's one-time code to a profile. Invariant: the code is sent only to the holder of the
//! certificate whose fingerprint a person gave or confirmed, and no other appliance's profile is lost to what it makes.

use cistern_client::{Client, Endpoint, Fingerprint, presented_fingerprint};
use cistern_model::{EnrolRequest, ErrorKind};

use crate::ask;
use crate::cli::{Enrol, Global};
use crate::error::CliError;
use crate::output::Output;
use crate::profile::{Profile, Profiles, parse_fingerprint};

pub(crate) async fn run(global: &Global, output: &Output, enrol: Enrol) -> Result<(), CliError> {
    let name = enrol.name.parse()?;
    let path = Profiles::path()?;
    // Before the code is spent: a profile that cannot be read could not be written either.
    let mut profiles = Profiles::load(&path)?;
    let fingerprint = match &enrol.fingerprint {
        Some(text) => parse_fingerprint(text)?,
        None => {
            let shown = presented_fingerprint(&enrol.address).await?;
            if !ask::somebody() {
                let message = format!("no fingerprint was given, and nobody is there to compare {shown}");
                let hint = "give --fingerprint as the appliance's console shows it";
                return Err(CliError::other(ErrorKind::Invalid, message, Some(hint)));
            }
            eprintln!("{} shows a certificate with the fingerprint\n  {shown}", enrol.address);
            match ask::line("Does the appliance's console show the same? [y/N]")?.as_deref() {
                Some("y" | "Y" | "yes") => shown,
                _ => {
                    let what = "the fingerprint".to_owned();
                    return Err(CliError::NotConfirmed {
                        what,
                        hint: "compare it with the appliance's console",
                    });
                }
            }
        }
    };
    let profile_name = global.profile.clone().unwrap_or_else(|| "default".to_owned());
    // Before the code is spent, too: it makes one token, which has to be kept then.
    check_profile(&profiles, &profile_name, fingerprint)?;
    let endpoint = Endpoint::https(&enrol.address, fingerprint)?;
    let client = Client::new(&endpoint, None)?;
    let created = client.enrol(&EnrolRequest { code: enrol.code, name }).await?;
    let profile = Profile {
        endpoint: endpoint.to_string(),
        fingerprint: fingerprint.to_string(),
        token: created.secret,
    };
    profiles.profiles.insert(profile_name.clone(), profile);
    if profiles.default.is_none() {
        profiles.default = Some(profile_name.clone());
    }
    profiles.save(&path)?;
    output.one(
        &created.token,
        |t| t.name.to_string(),
        |t| {
            format!(
                "Enrolled with {endpoint} as {:?} ({}); kept as profile {profile_name:?}.",
                t.name.as_str(),
                t.role
            )
        },
    )
}

/// Refuses a profile that is another appliance's: its token, perhaps the only admin's there, is kept nowhere else.
fn check_profile(profiles: &Profiles, name: &str, fingerprint: Fingerprint) -> Result<(), CliError> {
    match profiles.profiles.get(name) {
        Some(kept) if kept.fingerprint.parse::<Fingerprint>() != Ok(fingerprint) => {
            let message = format!(
                "the profile {name:?} is of another appliance, {}; nothing was done",
                kept.endpoint
            );
            let hint = format!(
                "give --profile NAME to keep both; if {name:?} is of no use any more: cistern profile remove {name}"
            );
            Err(CliError::other(ErrorKind::NameTaken, message, Some(&hint)))
        }
        Some(_) | None => Ok(()),
    }
}
