//! The TPM, by systemd-creds(1): it makes a key in the TPM and encrypts with it. Invariant: a secret is passed on a pipe,
//! and neither in arguments nor in a file.

use std::fs;
use std::io;
use std::time::Duration;

use super::file;
use super::run::Run;
use crate::{HostError, Seals};

const PROGRAM: &str = "systemd-creds";
/// The kernel's own resource manager for a TPM 2.
const DEVICE: &str = "/dev/tpmrm0";
/// Which version the first TPM has.
const VERSION: &str = "/sys/class/tpm/tpm0/tpm_version_major";
/// A TPM makes a key in seconds; the slowest known take some tens.
const LIMIT: Duration = Duration::from_secs(120);

/// systemd-creds.
#[derive(Debug)]
pub(super) struct LinuxSeals;

impl Seals for LinuxSeals {
    fn missing(&self) -> Result<Option<String>, HostError> {
        let version = match fs::read_to_string(VERSION) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some("it has none, or its firmware hides it".to_owned()));
            }
            Err(source) => return Err(file::io("look for a TPM", VERSION, source)),
        };
        let there = fs::exists(DEVICE).map_err(|source| file::io("look for a TPM", DEVICE, source))?;
        Ok(match (version.trim(), there) {
            ("2", true) => None,
            ("2", false) => Some(format!("{DEVICE} is not there")),
            (other, _) => Some(format!("it has version {other}, and 2 is needed")),
        })
    }

    fn seal(&self, name: &str, secret: &str) -> Result<String, HostError> {
        let args = ["--with-key=tpm2", "--tpm2-pcrs="];
        let text = creds("seal", "encrypt", name, &args, secret)?;
        // It is folded for people.
        Ok(text.split_whitespace().collect())
    }

    fn unseal(&self, name: &str, sealed: &str) -> Result<String, HostError> {
        creds("unseal", "decrypt", name, &[], sealed)
    }
}

fn creds(what: &str, verb: &str, name: &str, options: &[&str], input: &str) -> Result<String, HostError> {
    let name = format!("--name={name}");
    let args = [&[verb, &name], options, &["-", "-"]].concat();
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let operation = format!("{what} {}", &name["--name=".len()..]);
    let run = Run {
        operation: &operation,
        program: PROGRAM,
        args: &args,
        limit: LIMIT,
        preload: None,
    };
    let output = run.checked_with(input)?;
    match output.stdout.is_empty() {
        true => Err(HostError::Unexpected {
            operation,
            detail: format!("{PROGRAM} gave nothing"),
        }),
        false => Ok(output.stdout),
    }
}
