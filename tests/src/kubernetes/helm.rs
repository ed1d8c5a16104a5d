//! Helm, as an operator gives it the printed chart. It asks no cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use data_encoding::BASE64;
use serde_json::Value;

use super::{NAMESPACE, peers};
use crate::lab::Lab;

/// What is printed as text and as a chart: each has other parts of the templates.
const WORDS: &[&[&str]] = &[
    &[],
    &["--zone", "a", "--nfs", "10.0.0.6", "--group-snapshots"],
    &[
        "--zones",
        "--give-up-after",
        "30",
        "--monitoring",
        "--kubelet",
        "/kubelet",
    ],
];
/// An appliance that is put into the values.
const SECOND: &[&str] = &[
    "appliances.rack-2.url=https://rack-2.example:8443",
    "appliances.rack-2.token=cistern_second",
    "appliances.rack-2.fingerprint=0f0f",
    "appliances.rack-2.pools={tank}",
];
/// Values that no cluster could use, in a chart without zones, and what Helm is to name.
const REFUSED: &[(&str, &str)] = &[
    ("image=", "/image"),
    ("giveUpAfter=soon", "/giveUpAfter"),
    ("giveupafter=30", "giveupafter"),
    ("appliances.rack-1.zone=a", "zone"),
    ("appliances.rack-2.pools={tank}", "/appliances/rack-2"),
    ("appliances.rack-1.token=cistern_\"first", "/appliances/rack-1/token"),
];

/// Objects by what they are and how they are called.
type Objects = BTreeMap<String, Value>;

/// Helm makes of a chart what the same words print, finds no fault with it, puts a second appliance beside the first, and refuses
/// values by their names, with no secret shown.
pub fn helm_makes_what_is_printed(lab: &Lab) -> Result<()> {
    let program = peers::files("sidecars")?
        .into_iter()
        .find(|path| path.ends_with("helm"));
    let helm = Helm {
        program: program.context("no peer has helm")?,
        home: lab.directory().join("helm"),
    };
    let token = lab.directory().join("chart-token");
    fs::write(&token, "cistern_first").context("writing a token")?;
    let token = token.display().to_string();
    let common: &[&str] = &["kube", "manifests", "--id", "rack-1", "--token-file", &token];
    let chart = |number: usize| lab.directory().join(format!("chart-{number}")).display().to_string();
    for (number, further) in WORDS.iter().enumerate() {
        let (words, chart) = ([common, *further].concat(), chart(number));
        let printed = lab.cli.ok(&words)?;
        lab.cli.ok(&[words.as_slice(), &["--helm", &chart]].concat())?;
        let lint = helm.run(&["lint", "--strict", &chart])?;
        lint.map_err(|said| anyhow!("helm lint of {further:?}: {said}"))?;
        let made = helm.objects(&chart, &[])?;
        same(&objects(&printed)?, &made).with_context(|| format!("a chart of {further:?}"))?;
    }

    let chart = chart(0);
    let mut both = helm.objects(&chart, SECOND)?;
    let class = both.remove("StorageClass cistern-rack-2-tank");
    ensure!(class.is_some(), "the second appliance has no class");
    let secret = both.get_mut("Secret cistern-appliances").context("no Secret")?;
    let entries = secret["data"].as_object_mut().context("a Secret with entries")?;
    ensure!(
        entries.remove("rack-2.toml").is_some(),
        "the second appliance has no entry"
    );
    same(&helm.objects(&chart, &[])?, &both).context("the first appliance beside a second one")?;

    for (value, name) in REFUSED {
        match helm.template(&chart, &[*value])? {
            Ok(_) => bail!("Helm takes {value}"),
            Err(said) => ensure!(
                said.contains(name) && !said.contains("cistern_"),
                "of {value} Helm says: {said}"
            ),
        }
    }
    Ok(())
}

struct Helm {
    program: PathBuf,
    home: PathBuf,
}

impl Helm {
    /// What it printed, or what it said when it refused.
    fn run(&self, arguments: &[&str]) -> Result<std::result::Result<String, String>> {
        let mut command = Command::new(&self.program);
        command.env("HOME", &self.home).args(arguments).stdin(Stdio::null());
        let output = command.output().context("running helm")?;
        let [printed, said] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        Ok(match output.status.success() {
            true => Ok(printed),
            false => Err(format!("{printed}{said}")),
        })
    }

    /// What it makes of a chart with these values in place of the chart's own.
    fn template(&self, chart: &str, values: &[&str]) -> Result<std::result::Result<String, String>> {
        let values = values.iter().flat_map(|value| ["--set", *value]);
        let words = ["template", "cistern-csi", chart, "--namespace", NAMESPACE];
        self.run(&words.into_iter().chain(values).collect::<Vec<_>>())
    }

    fn objects(&self, chart: &str, values: &[&str]) -> Result<Objects> {
        let made = self.template(chart, values)?;
        objects(&made.map_err(|said| anyhow!("helm template: {said}"))?)
    }
}

/// The objects of a text but for the namespace, which Helm makes by itself, and with a Secret's texts as a cluster keeps them.
fn objects(text: &str) -> Result<Objects> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| anyhow!("{error}\n{text}"))?;
    let mut objects = Objects::new();
    for mut object in documents {
        let texts = object.as_object_mut().and_then(|object| object.remove("stringData"));
        for (key, text) in texts.iter().filter_map(Value::as_object).flatten() {
            object["data"][key] = BASE64.encode(text.as_str().unwrap_or_default().as_bytes()).into();
        }
        let word = |word: &Value| word.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (word(&object["kind"]), word(&object["metadata"]["name"]));
        if kind != "Namespace" {
            let before = objects.insert(format!("{kind} {name}"), object);
            ensure!(before.is_none(), "{kind} {name} is there twice");
        }
    }
    Ok(objects)
}

fn same(printed: &Objects, made: &Objects) -> Result<()> {
    ensure!(!printed.is_empty(), "nothing was printed");
    for name in printed.keys().chain(made.keys()) {
        let (ours, its) = (printed.get(name), made.get(name));
        ensure!(ours == its, "{name} is printed as {ours:?}, and Helm makes {its:?}");
    }
    Ok(())
}
