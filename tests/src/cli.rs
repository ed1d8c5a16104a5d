//! `cistern` as an operator runs it on a laptop: the real program, its own profile, its exit codes.
//!
//! Invariant: each call is kept, so that a failing scenario can show the requests that led to it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use cistern_model::ErrorKind;
use serde::de::DeserializeOwned;

/// A laptop with a profile of its own.
#[derive(Debug, Clone)]
pub struct Cli {
    home: PathBuf,
    endpoint: String,
    log: Rc<RefCell<Vec<String>>>,
}

/// What a call of `cistern` came to.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
}

impl Cli {
    /// A laptop that keeps its profile below `home` and reaches the appliance at `endpoint`, whatever the profile says: a
    /// machine that goes on from a saved state has another forwarded port.
    pub fn new(home: &Path, endpoint: &str) -> Result<Self> {
        std::fs::create_dir_all(home).with_context(|| format!("making {}", home.display()))?;
        Ok(Cli {
            home: home.to_owned(),
            endpoint: endpoint.to_owned(),
            log: Rc::default(),
        })
    }

    /// Runs `cistern` with these arguments and says what came of it, good or bad.
    pub fn run(&self, args: &[&str]) -> Result<Answer> {
        let output = Command::new(binary("cistern")?)
            .args(args)
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.home.join("config"))
            .env("NO_COLOR", "1")
            .env("CISTERN_ENDPOINT", &self.endpoint)
            .env_remove("CISTERN_TOKEN")
            .env_remove("CISTERN_FINGERPRINT")
            .env_remove("CISTERN_PROFILE")
            .stdin(Stdio::null())
            .output()
            .context("running cistern")?;
        let answer = Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        self.log.borrow_mut().push(format!(
            "$ cistern {}\n[exit {}]\n{}{}",
            args.join(" "),
            answer.code,
            answer.stdout,
            answer.stderr
        ));
        Ok(answer)
    }

    /// Runs `cistern`, which must succeed, and gives what it printed.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let answer = self.run(args)?;
        ensure!(
            answer.code == 0,
            "cistern {} ended with {}: {}",
            args.join(" "),
            answer.code,
            answer.stderr
        );
        Ok(answer.stdout)
    }

    /// Runs `cistern ... -o json`, which must succeed, and reads what it printed.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let text = self.ok(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("reading what cistern {} printed: {text}", args.join(" ")))
    }

    /// Runs `cistern`, which must be refused with this kind of error, and gives what it said.
    pub fn refused(&self, kind: ErrorKind, args: &[&str]) -> Result<String> {
        let answer = self.run(args)?;
        if answer.code != i32::from(kind.exit_code()) {
            bail!(
                "cistern {} ended with {} where {} ({}) was due\n{}{}",
                args.join(" "),
                answer.code,
                kind.exit_code(),
                kind.name(),
                answer.stdout,
                answer.stderr
            );
        }
        Ok(answer.stderr)
    }

    /// What the profile keeps under this name.
    pub fn profile_value(&self, name: &str) -> Result<String> {
        let path = self.home.join("config/cistern/profiles.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let file: toml::Table = text.parse().with_context(|| format!("reading {}", path.display()))?;
        let value = file.get("profiles").and_then(|p| p.get("default")?.get(name)?.as_str());
        value
            .map(str::to_owned)
            .with_context(|| format!("{} has no {name}", path.display()))
    }

    /// The last `count` calls and their answers, for a report.
    pub fn last_calls(&self, count: usize) -> String {
        let log = self.log.borrow();
        log[log.len().saturating_sub(count)..].join("\n")
    }
}

/// The path of a program that was built with this one.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    let path = own.with_file_name(name);
    ensure!(path.exists(), "{} is not built; run `make build`", path.display());
    Ok(path)
}

/// The top of the source tree, which holds target/.
pub fn top() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    let top = own
        .ancestors()
        .nth(3)
        .context("the program does not stand in target/debug")?;
    Ok(top.to_owned())
}
